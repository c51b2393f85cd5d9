# Keeps a server of the compose file: starts, stops and kills it on command. When the input ends, in whatever way the
# program at its other end has ended, it removes the container, its data and the folder.
#
# The arguments are the folder, the service, and the command that leads to the project: docker compose -p … -f …
folder=$1 service=$2
shift 2
cd "$folder" || exit 1

# Only what is downloaded is told to a person.
exec 3>&2 2>/dev/null

# An answer may find nobody: then the end of the input follows.
trap '' PIPE
# Whoever wants this script to end closes its input.
trap : INT TERM HUP

while read -r command; do
  case $command in
    prepare) sh ./prepare <input >>log 2>&1 ;;
    create) "$@" create "$service" </dev/null >&3 2>&3 3>&- ;;
    launch) "$@" up --detach "$service" </dev/null >>log 2>&1 ;;
    wait) "$@" up --detach --wait --wait-timeout 240 "$service" </dev/null >>log 2>&1 ;;
    stop) "$@" stop "$service" </dev/null >>log 2>&1 ;;
    kill) "$@" kill "$service" </dev/null >>log 2>&1 ;;
    *) false ;;
  esac && echo "$command" || echo failed
done

"$@" down --volumes --timeout 10 </dev/null >>log 2>&1
cd /
rm -rf "$folder"
