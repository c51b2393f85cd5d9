#!/bin/sh
# Creates the files that docker-compose.prod.yml and docker-compose.cluster.yml use from this folder (or the folder in the argument): passwords, a
# token, an authority and the certificates that it signs. Existing files are kept: remove a file to renew it.
# Certificates that expire within thirty days are renewed automatically. README.md has the details.
set -eu
umask 077
own=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$own}
mkdir -p "$folder"
cd "$folder"

say() { echo "made $folder/$1"; }
warn() { echo "warning: $*" >&2; }
fail() {
  echo "error: $*" >&2
  exit 1
}
# The output of openssl is shown only if it fails.
quietly() {
  said=$("$@" 2>&1) && return
  printf '%s\n' "$said" >&2
  return 1
}

# Certificates are created here and moved when they are complete.
work=$(mktemp -d "$PWD/.making.XXXXXX")
# In every case: containers have their own users and mount single files, so the files are readable by all, and only the
# owner can access this folder. No container gets the key of the authority.
finish() {
  status=$?
  rm -rf "$work"
  chmod 700 . || status=1
  for file in ./*.pem ./*.key web-config.yml metrics_token monitoring_password grafana_* database_url \
    postgres_password http_token nats_token nats_auth.conf; do
    case $file in ./ca.key) mode=400 ;; *) mode=444 ;; esac
    [ ! -e "$file" ] || chmod "$mode" "$file" || status=1
  done
  exit "$status"
}
trap finish EXIT
trap 'exit 130' HUP INT TERM
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
# The example app writes to a file in its volume. Your own database: postgres://user:password@host/database
secret database_url sqlite:/data/batchsql.db
# The cluster.
secret postgres_password "$(random)"
secret http_token "$(random)"
secret nats_token "$(random)"
secret nats_auth.conf "authorization { token: \"$(cat nats_token)\" }"

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
  # "|" separates the pattern, because the hash cannot contain it.
  sed -e '/# `htpasswd/d' -e "s|^  batchsql: .*|  batchsql: $hash|" "$own/../web-config.example.yml" >web-config.yml
  say web-config.yml
fi

# The authority consists of these two files. If only one exists, it is not replaced: clients that trust `ca.pem` would
# not trust certificates of a new authority.
if [ ! -s ca.pem ] && [ ! -s ca.key ]; then
  quietly openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 3650 \
    -subj "/CN=BatchSQL monitoring authority" -addext basicConstraints=critical,CA:TRUE,pathlen:0 \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$work/ca.key" -out "$work/ca.pem"
  mv "$work/ca.key" "$work/ca.pem" .
  say ca.pem
fi
[ -s ca.pem ] || fail "ca.key is here without ca.pem; put ca.pem back, or remove ca.key and every certificate to begin anew"

lasts() { openssl x509 -checkend "$2" -noout -in "$1" >/dev/null; }
month=2592000
lasts ca.pem "$month" || warn "ca.pem, the authority, ends within thirty days; remove ca.pem, ca.key and every certificate"

# A server certificate for a name and its alternatives, valid for so many days.
certificate() {
  name=$1 days=$2 names=$3
  if [ -s "$name.pem" ]; then
    [ -s "$name.key" ] || fail "$name.pem is here without $name.key; put it back, or remove $name.pem to have both made"
    if lasts "$name.pem" "$month"; then
      # The certificates after the first one in the file are the chain to the authority.
      quietly openssl verify -CAfile ca.pem -untrusted "$name.pem" "$name.pem" ||
        fail "$name.pem was not signed by ca.pem, which its clients trust; remove $name.pem to have it made"
      return
    fi
    if [ ! -s ca.key ] && lasts "$name.pem" 0; then
      warn "$name.pem ends within thirty days; put ca.key back for a run of this script, or replace $name.pem and $name.key"
      return
    fi
  fi
  [ -s ca.key ] || fail "$name.pem cannot be signed without ca.key, which is not here; put it back for this run," \
    "or put $name.pem and $name.key of your own here"
  quietly openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
    -keyout "$work/$name.key" -out "$work/csr"
  printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n' \
    "$names" >"$work/extensions"
  quietly openssl x509 -req -in "$work/csr" -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -sha256 \
    -days "$days" -extfile "$work/extensions" -out "$work/$name.pem" ||
    fail "$name.pem could not be signed; is ca.key the key of ca.pem?"
  mv "$work/$name.key" "$work/$name.pem" .
  say "$name.pem"
}

# They expire on different days; the certificates of the alerting path expire last.
local=DNS:localhost,IP:127.0.0.1
certificate app 355 "DNS:app,$local"
certificate prometheus 383 "DNS:prometheus-a,DNS:prometheus-b,$local"
certificate alertmanager 397 "DNS:alertmanager-a,DNS:alertmanager-b,$local"
# Needed only with grafana/tls.yml; not needed with your own certificates.
if [ -s ca.key ] || [ -s grafana.pem ]; then certificate grafana 369 "DNS:grafana,$local"; fi
