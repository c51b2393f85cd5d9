# Installs promtool from the Debian package `prometheus`, and keeps the package's daemon from running.
set -eu

policy=/usr/sbin/policy-rc.d
ours=no
cleanup() {
  if [ "$ours" = yes ]; then rm -f "$policy"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Package scripts ask this file before they start a service; 101 means no.
if [ ! -e "$policy" ]; then
  ours=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends prometheus

# Not at the next boot either, and not when another policy let it start.
if [ -d /run/systemd/system ]; then
  systemctl disable --now prometheus
elif service prometheus status >/dev/null 2>&1; then
  service prometheus stop
fi
