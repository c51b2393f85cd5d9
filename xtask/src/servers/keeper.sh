# Creates a folder and keeps the server in it: starts, stops and kills it on command. When the input ends, in whatever way
# the program at its other end has ended, it stops the server and removes the folder.
#
# The folder has the file `run`, which starts the server in the foreground. This script writes `pid` and, when the
# server has ended, `ended` with its exit status. The file `prepare`, which reads `input`, is run to its end.
folder=$1 signal=$2 launched=no

# An answer may find nobody: then the end of the input follows.
trap '' PIPE
# Whoever wants this script to end closes its input.
trap : INT TERM HUP

mkdir -m 700 "$folder" || exit 1
cd "$folder" || exit 1
echo created

launch() {
  # A second server could not listen, and would hide the first one from `halt`.
  if [ "$launched" = yes ] && [ ! -e ended ]; then return 0; fi
  rm -f pid ended
  launched=yes
  (
    sh -c 'echo $$ >pid.new; mv pid.new pid; exec sh ./run' </dev/null >>log 2>&1
    echo $? >ended
  ) </dev/null >/dev/null &
}

# Sends a signal to every process of a running server. A new process may come while they are signalled, but not from one
# that is stopped: so twice, the parent first.
everyone() {
  [ "$launched" = yes ] || return 1
  until [ -e pid ] || [ -e ended ]; do sleep 0.05; done
  [ ! -e ended ] || return 1
  server=$(cat pid)
  for _ in 1 2; do
    children=$(cat "/proc/$server/task/$server/children" 2>/dev/null || pgrep -P "$server" 2>/dev/null)
    # shellcheck disable=SC2086 # a list of numbers
    kill "-$1" "$server" $children 2>/dev/null
  done
  return 0
}

# Sends a signal to the server and waits for its end: $2 times 50 ms, then it is killed.
halt() {
  [ "$launched" = yes ] || return 0
  # One that was paused could not obey.
  everyone CONT
  until [ -e pid ] || [ -e ended ]; do sleep 0.05; done
  left=$2
  [ -e ended ] || kill "-$1" "$(cat pid)" 2>/dev/null
  until [ -e ended ]; do
    sleep 0.05
    left=$((left - 1))
    if [ "$left" -eq 0 ]; then crash; fi
  done
  launched=no
}

# The processes of a server that has several would outlive it, and hold on to what it needs to start again.
crash() {
  [ "$launched" = yes ] || return 0
  until [ -e pid ] || [ -e ended ]; do sleep 0.05; done
  if [ ! -e ended ]; then
    server=$(cat pid)
    children=$(cat "/proc/$server/task/$server/children" 2>/dev/null || pgrep -P "$server" 2>/dev/null)
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL "$server" $children 2>/dev/null
  fi
  until [ -e ended ]; do sleep 0.05; done
  launched=no
}

while read -r command; do
  case $command in
    prepare) sh ./prepare <input >>log 2>&1 ;;
    launch) launch ;;
    stop) halt "$signal" 200 ;;
    kill) crash ;;
    pause) everyone STOP ;;
    resume) everyone CONT ;;
    *) false ;;
  esac && echo "$command" || echo failed
done

halt "$signal" 200
cd / && rm -rf "$folder"
