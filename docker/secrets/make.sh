#!/bin/sh
# Makes what docker-compose.prod.yml takes from this folder (or the one given as the argument): passwords, a token, an
# authority and the certificates that it signs. What is there already is kept, so remove a file to have it made anew.
set -eu
umask 077
own=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$own}
mkdir -p "$folder"
cd "$folder"

say() { echo "made $folder/$1"; }
random() { openssl rand -hex 24; }
# Without a line end: it would be a part of the secret for some programs.
secret() {
  [ -s "$1" ] && return
  printf %s "$2" >"$1"
  say "$1"
}

secret metrics_token "$(random)"
secret monitoring_password "$(random)"
secret grafana_admin_password "$(random)"
secret grafana_secret_key "$(random)"
# The app of the example writes to a file in its volume. Yours: postgres://user:password@host/database
secret database_url sqlite:/data/batchsql.db

if [ ! -s ca.key ]; then
  openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 3650 \
    -subj "/CN=BatchSQL monitoring authority" -addext basicConstraints=critical,CA:TRUE,pathlen:0 \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout ca.key -out ca.pem 2>/dev/null
  say ca.pem
fi

# A server certificate for a name and its alternatives.
certificate() {
  name=$1 names=$2
  [ -s "$name.pem" ] && return
  rm -f "$name.key"
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
    -keyout "$name.key" -out "$name.csr" 2>/dev/null
  printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n' \
    "$names" >"$name.ext"
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -sha256 \
    -days 397 -extfile "$name.ext" -out "$name.pem" 2>/dev/null
  rm "$name.csr" "$name.ext"
  say "$name.pem"
}

local=DNS:localhost,IP:127.0.0.1
certificate app "DNS:app,$local"
certificate prometheus "DNS:prometheus-a,DNS:prometheus-b,$local"
certificate alertmanager "DNS:alertmanager-a,DNS:alertmanager-b,$local"
certificate grafana "DNS:grafana,$local"

# Prometheus wants a bcrypt hash, which openssl cannot make.
bcrypt() {
  if command -v htpasswd >/dev/null; then
    htpasswd -niBC 10 batchsql | cut -d: -f2
  elif command -v mkpasswd >/dev/null; then
    mkpasswd --method=bcrypt --rounds=10 --stdin
  elif python3 -W ignore -c 'import crypt' 2>/dev/null; then
    python3 -W ignore -c 'import crypt, sys
print(crypt.crypt(sys.stdin.read(), crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=1 << 10)))'
  elif command -v docker >/dev/null; then
    docker run --rm -i httpd:2.4-alpine htpasswd -niBC 10 batchsql | cut -d: -f2
  else
    echo "error: nothing here makes bcrypt hashes; install htpasswd (apache2-utils) or mkpasswd (whois)" >&2
    return 1
  fi
}
if [ ! -s web-config.yml ]; then
  hash=$(bcrypt <monitoring_password | tr -d '\r\n')
  case $hash in '$2'*) ;; *) echo "error: the bcrypt hash could not be made" >&2; exit 1 ;; esac
  # An absolute path is never taken as a part of the pattern: the hash has no "|".
  sed -e '/# `htpasswd/d' -e "s|^  batchsql: .*|  batchsql: $hash|" "$own/../web-config.example.yml" >web-config.yml
  say web-config.yml
fi

# Containers have users of their own and see single files. This folder keeps everybody else out.
chmod 700 .
chmod 444 ./*.pem ./*.key web-config.yml metrics_token monitoring_password grafana_* database_url
chmod 400 ca.key
