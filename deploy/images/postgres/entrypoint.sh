#!/usr/bin/env bash
# The part of Docker Hub's docker-entrypoint.sh that docker-compose.yml uses: a database
# is made in an empty PGDATA, of POSTGRES_USER and POSTGRES_DB with POSTGRES_PASSWORD,
# and /docker-entrypoint-initdb.d's *.sql are run in it while nobody can connect by TCP.
set -euo pipefail
[ "${1:-}" = postgres ] || exec "$@"

if [ "$(id -u)" -eq 0 ]; then
	chown postgres:postgres "$PGDATA" /run/postgresql
	exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
	[ -n "${POSTGRES_PASSWORD:-}" ] || { echo "POSTGRES_PASSWORD is not set" >&2; exit 1; }
	initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --auth-local=trust --auth-host=scram-sha-256
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	pg_ctl --wait start -o "-c listen_addresses=''"
	run() { psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$user" --dbname="$1" "${@:2}"; }
	[ "$database" = postgres ] || run postgres --command="CREATE DATABASE \"$database\""
	for file in /docker-entrypoint-initdb.d/*.sql; do
		[ ! -e "$file" ] || run "$database" --file="$file"
	done
	pg_ctl --wait --mode=fast stop
fi
exec "$@" -c listen_addresses='*'
