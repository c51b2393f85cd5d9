# Keeps a server of the compose file: starts, stops and kills it on command. When the input ends, in whatever way the
# program at its other end has ended, it removes the container, its data and the folder.
#
# The arguments are the folder, the service, and the command that leads to the project: docker compose -p … -f …
folder=$1 service=$2
shift 2
cd "$folder" || exit 1

# An answer may find nobody: then the end of the input follows.
trap '' PIPE
# Whoever wants this script to end closes its input.
trap : INT TERM HUP

while read -r command; do
  case $command in
    prepare) sh ./prepare <input ;;
    launch) "$@" up --detach "$service" </dev/null ;;
    wait) "$@" up --detach --wait "$service" </dev/null ;;
    stop) "$@" stop "$service" </dev/null ;;
    kill) "$@" kill "$service" </dev/null ;;
    *) false ;;
  esac >>log 2>&1 && echo "$command" || echo failed
done

"$@" down --volumes --timeout 10 </dev/null >>log 2>&1
cd /
rm -rf "$folder"
