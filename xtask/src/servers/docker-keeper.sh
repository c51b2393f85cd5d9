# Creates a folder and keeps services of a compose file: starts, stops and kills them on command. When the input ends, in
# whatever way the program at its other end has ended, it removes the containers and the folder.
#
# The arguments are the folder, the services in one word, what becomes of their data at the end (`drop` or `keep`), and
# the command that leads to the project: docker compose -p … -f …
folder=$1 services=$2 data=$3
shift 3

# Only what is downloaded is told to a person.
exec 3>&2 2>/dev/null

# An answer may find nobody: then the end of the input follows.
trap '' PIPE
# Whoever wants this script to end closes its input.
trap : INT TERM HUP

mkdir -m 700 "$folder" || exit 1
cd "$folder" || exit 1
echo created

# shellcheck disable=SC2086 # a list of names
while read -r command; do
  case $command in
    prepare) sh ./prepare <input >>log 2>&1 ;;
    create) "$@" create $services </dev/null >&3 2>&3 3>&- ;;
    launch) "$@" up --detach $services </dev/null >>log 2>&1 ;;
    wait) "$@" up --detach --wait --wait-timeout 240 $services </dev/null >>log 2>&1 ;;
    stop) "$@" stop $services </dev/null >>log 2>&1 ;;
    kill) "$@" kill $services </dev/null >>log 2>&1 ;;
    pause) "$@" pause $services </dev/null >>log 2>&1 ;;
    resume) "$@" unpause $services </dev/null >>log 2>&1 ;;
    *) false ;;
  esac && echo "$command" || echo failed
done

if [ "$data" = drop ]; then set -- "$@" down --volumes; else set -- "$@" down; fi
"$@" --timeout 10 </dev/null >>log 2>&1
cd /
rm -rf "$folder"
