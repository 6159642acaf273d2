#!/usr/bin/env bash
# The demo: a throw-away PostgreSQL, a three-node cluster in front of it, a query
# through it, two refusals, and a live session that one revocation ends. Everything
# lies in a temporary folder and is gone at the end. Exits non-zero when any step
# does not do what it says. BIN is the folder of armord and armorctl.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${BIN:-$root/bin}
work=$(mktemp -d "${TMPDIR:-/tmp}/armor-demo.XXXXXX")
dev_pid='' pg_pid='' client_pid=''
begun=$SECONDS

say()  { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
fail() { printf 'demo: FAILED: %s\n' "$*" >&2; exit 1; }

# end_process PID SIGNAL SECONDS: asks, waits, then kills. Only what we started.
end_process() {
	[ -n "$1" ] || return 0
	kill "-$2" "$1" 2>/dev/null || return 0
	for _ in $(seq "$(($3 * 10))"); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.1
	done
	kill -KILL "$1" 2>/dev/null || true
}

cleanup() {
	status=$?
	trap - EXIT
	end_process "$client_pid" TERM 2
	end_process "$dev_pid" INT 40
	end_process "$pg_pid" INT 10
	if [ "$status" -ne 0 ]; then
		printf '\ndemo: what the cluster and PostgreSQL said last:\n' >&2
		tail -n 15 "$work"/dev.log "$work"/cluster/n*/armord.log "$work"/pg/log >&2 2>/dev/null || true
	fi
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- what is needed -----------------------------------------------------------

pg_bin() {
	local candidate
	if candidate=$(command -v initdb) && command -v postgres >/dev/null; then
		dirname "$(readlink -f "$candidate")"
		return
	fi
	candidate=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
	[ -n "$candidate" ] && dirname "$candidate"
}

"$root/tools/needs.sh" demo
pg=$(pg_bin) || fail "PostgreSQL's initdb was not found"
if [ ! -x "$bin/armord" ] || [ ! -x "$bin/armorctl" ]; then
	command -v go >/dev/null || fail "there is no $bin/armord, and no go to build it with (https://go.dev/dl)"
	say "building"
	mkdir -p "$bin"
	(cd "$root" && CGO_ENABLED=0 go build -o "$bin/" ./cmd/armord ./cmd/armorctl)
fi

# --- a throw-away PostgreSQL, which does not run as root -----------------------

say "starting a throw-away PostgreSQL ($("$pg/postgres" --version))"
chmod 755 "$work"
mkdir "$work/pg"
as_postgres=()
if [ "$(id -u)" -eq 0 ]; then
	id postgres >/dev/null 2>&1 || fail "there is no user postgres to run PostgreSQL as"
	chown postgres "$work/pg"
	as_postgres=(setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups)
fi
printf 'not-a-secret' >"$work/pw"
chmod 644 "$work/pw"
(cd "$work/pg" && "${as_postgres[@]}" "$pg/initdb" -D data -U app --pwfile="$work/pw" \
	--auth=scram-sha-256 -N >"$work/initdb.log" 2>&1) || fail "initdb: $(cat "$work/initdb.log")"
free_port() {
	local port
	for _ in $(seq 50); do
		port=$((20000 + RANDOM % 12000))
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			echo "$port"
			return
		fi
	done
	fail "no free port"
}
pg_port=$(free_port)
(cd "$work/pg" && exec "${as_postgres[@]}" "$pg/postgres" -D data -p "$pg_port" \
	-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off) >"$work/pg.log" 2>&1 &
pg_pid=$!
ready=''
for _ in $(seq 300); do
	if "$pg/pg_isready" -q -h 127.0.0.1 -p "$pg_port"; then ready=yes; break; fi
	kill -0 "$pg_pid" 2>/dev/null || fail "PostgreSQL ended: $(cat "$work/pg.log")"
	sleep 0.1
done
[ -n "$ready" ] || fail "PostgreSQL did not start within 30 s"
direct() { PGSSLMODE=disable PGPASSWORD=not-a-secret psql -X -h 127.0.0.1 -p "$pg_port" -U app -d postgres -v ON_ERROR_STOP=1 "$@"; }
direct -qc 'CREATE DATABASE app'

# --- the cluster ----------------------------------------------------------------

say "armord dev: three nodes and a load balancer in front of it"
"$bin/armord" dev --postgres "postgres://app:not-a-secret@127.0.0.1:$pg_port/app?sslmode=disable" \
	--dir "$work/cluster" --port 0 >"$work/dev.log" 2>&1 &
dev_pid=$!
for _ in $(seq 900); do
	[ -e "$work/cluster/ready" ] && break
	kill -0 "$dev_pid" 2>/dev/null || fail "armord dev ended: $(cat "$work/dev.log")"
	sleep 0.1
done
[ -e "$work/cluster/ready" ] || fail "the cluster was not ready within 90 s"
# shellcheck disable=SC1091
. "$work/cluster/env"
export PATH="$bin:$PATH"
show armorctl node list

say "a client with a certificate, through the load balancer"
show psql -X -c "select current_user, current_database(), version() like 'PostgreSQL%' as real"
answer=$(psql -XAtc 'select 6 * 7')
[ "$answer" = 42 ] || fail "psql answered '$answer'"

# --- refusals ---------------------------------------------------------------------

# refused WORDS COMMAND...: the command must fail and say so in these words, which are
# then in said.
refused() {
	local words=$1
	shift
	if said=$("$@" 2>&1); then fail "was not refused: $*"; fi
	printf '%s\n' "$said"
	grep -qi -- "$words" <<<"$said" || fail "refused, but not with '$words': $said"
}

say "no certificate: refused"
refused 'certificate' env PGSSLCERT="$work/none" PGSSLKEY="$work/none" psql -Xc 'select 1'

say "a role that was not granted: refused, with an id for the operator"
refused 'may not use role' psql -X -U postgres -c 'select 1'
id=$(sed -n 's/.*armorctl explain \([^ ]*\).*/\1/p' <<<"$said")
[ -n "$id" ] || fail "the refusal carried no denial id"
show armorctl explain "$id"

# --- a revocation -------------------------------------------------------------------

say "a live session on node 2, in the middle of a query"
PGPORT=$NODE2_PORT psql -X -c 'select pg_sleep(120)' >"$work/client.log" 2>&1 &
client_pid=$!
running="select count(*) from pg_stat_activity where query = 'select pg_sleep(120)'"
for _ in $(seq 100); do
	[ "$(direct -Atc "$running")" = 1 ] && break
	sleep 0.1
done
[ "$(direct -Atc "$running")" = 1 ] || fail "the session's query does not run: $(cat "$work/client.log")"
show armorctl session list

say "its certificate is revoked"
show armorctl revoke --file "$PGSSLCERT" --reason key-compromise --yes
returned=$(date +%s%N)
for _ in $(seq 100); do
	kill -0 "$client_pid" 2>/dev/null || break
	sleep 0.1
done
if kill -0 "$client_pid" 2>/dev/null; then fail "the revoked session is still there"; fi
if wait "$client_pid"; then fail "the revoked session ended without an error"; fi
client_pid=''
cat "$work/client.log"
grep -q 'revoked' "$work/client.log" || fail "the session was not told that its certificate is revoked"
for _ in $(seq 50); do
	[ "$(direct -Atc "$running")" = 0 ] && break
	sleep 0.1
done
[ "$(direct -Atc "$running")" = 0 ] || fail "PostgreSQL still runs the revoked session's query"
printf 'the client was told, and PostgreSQL runs nothing for it any more, %d ms after the command returned\n' \
	"$((($(date +%s%N) - returned) / 1000000))"

say "and it does not come back, on any node"
for port in "$NODE1_PORT" "$NODE2_PORT" "$NODE3_PORT"; do
	refused 'revoked' env PGPORT="$port" psql -Xc 'select 1'
done

say "stopping everything"
kill -INT "$dev_pid"
wait "$dev_pid" || fail "armord dev did not end well: $(tail -n 5 "$work/dev.log")"
dev_pid=''
printf 'demo: all steps passed in %d s\n' "$((SECONDS - begun))"
