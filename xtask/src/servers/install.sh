# Installs Debian packages, and keeps the services that come with them from running. Services that were there before
# are left alone.
#
# The arguments are the file that package scripts ask, and the packages.
set -eu

policy=$1
shift
marker='# of BatchSQL'"'"'s xtask, while this process installs: '
ours=no
cleanup() {
  if [ "$ours" = yes ]; then rm -f "$policy"; fi
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# One that was killed could not remove its file, and no service would ever start again.
owner=$(sed -n "s/^$marker//p" "$policy" 2>/dev/null || true)
if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -f "$policy"; fi

# Package scripts ask this file before they start a service; 101 means no.
if [ ! -e "$policy" ]; then
  ours=yes
  printf '#!/bin/sh\n%s\nexit 101\n' "$marker$$" >"$policy"
  chmod 755 "$policy"
fi

services() {
  find /etc/init.d /lib/systemd/system /usr/lib/systemd/system -type f 2>/dev/null |
    sed 's,.*/,,; s,\.service$,,' | sort -u
}
before=$(services)

export DEBIAN_FRONTEND=noninteractive
status=0
# Outdated lists may do.
apt-get update || true
for package in "$@"; do
  # One that cannot be had does not keep the others away.
  apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$package" || status=1
done

# Not at the next boot either, and not when another policy let them start.
for service in $(services); do
  case "
$before
" in
    *"
$service
"*) continue ;;
  esac
  if [ -d /run/systemd/system ]; then
    systemctl disable --now "$service" >/dev/null 2>&1 || true
  elif [ -e "/etc/init.d/$service" ] && service "$service" status >/dev/null 2>&1; then
    service "$service" stop || true
  fi
done
exit "$status"
