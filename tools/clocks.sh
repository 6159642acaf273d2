#!/usr/bin/env bash
# Moves the wall clocks of a minority of real nodes, the leader's among them, for seconds and back, while a client
# queries through each node: by ±2 s, ±1 h, ±1 day and ±1 year, with a change and a revocation meanwhile and afterwards.
# Nothing may expire, nothing may be refused for time, and the nodes whose clocks are right never lose their sessions.
# It starts a throw-away PostgreSQL and a cluster by armord dev in a temporary folder, and ends both. NODES is 3 or more.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/armor-clocks.XXXXXX")
nodes=${NODES:-3}
dev_pid='' pg_pid='' clients=() broken=0

say() { printf '%s %s\n' "$(date +%T)" "$*"; }
bad() { broken=$((broken + 1)); say "BROKEN: $*"; }
cleanup() {
	status=$?
	trap - EXIT
	touch "$work/over" # the clients end by themselves, once the nodes have sent them away
	for pid in "$dev_pid" "$pg_pid"; do [ -z "$pid" ] || { kill -INT "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; } || true; done
	[ ${#clients[@]} = 0 ] || wait "${clients[@]}" 2>/dev/null || true
	if [ -n "${KEEP:-}" ]; then say "kept: $work"; else rm -rf "$work"; fi
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

"$root/tools/needs.sh" demo
bin=${MOVABLE:-$work/bin}
[ -x "$bin/armord" ] || "$root/tools/movable-clock.sh" "$bin"
export PATH="$bin:$PATH"

# --- a throw-away PostgreSQL ----------------------------------------------------
pg=$(dirname "$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)")
chmod 755 "$work"
mkdir "$work/pg" "$work/clocks"
as=()
[ "$(id -u)" -ne 0 ] || { chown postgres "$work/pg" && as=(setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups); }
printf 'not-a-secret' >"$work/pw" && chmod 644 "$work/pw"
(cd "$work/pg" && "${as[@]}" "$pg/initdb" -D data -U app --pwfile="$work/pw" --auth=scram-sha-256 -N >"$work/initdb.log" 2>&1)
port=$((20000 + RANDOM % 12000))
(cd "$work/pg" && exec "${as[@]}" "$pg/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off) \
	>"$work/pg.log" 2>&1 &
pg_pid=$!
for _ in $(seq 100); do "$pg/pg_isready" -q -h 127.0.0.1 -p "$port" && break; sleep 0.1; done
PGSSLMODE=disable PGPASSWORD=not-a-secret psql -qX -h 127.0.0.1 -p "$port" -U app -d postgres -c 'CREATE DATABASE app'

# --- a cluster whose clocks can be moved ----------------------------------------
ARMOR_CLOCK_DIR=$work/clocks armord dev --nodes "$nodes" --dir "$work/cluster" --port 0 \
	--postgres "postgres://app:not-a-secret@127.0.0.1:$port/app?sslmode=disable" >"$work/dev.log" 2>&1 &
dev_pid=$!
for _ in $(seq 900); do [ -e "$work/cluster/ready" ] && break; sleep 0.1; done
# shellcheck disable=SC1091
. "$work/cluster/env"
unset ARMOR_CLOCK_DIR

pid_of() { pgrep -P "$dev_pid" -f -- "/$1/" | head -n 1; }
# move NODE SECONDS: the file holds an int64 in the machine's byte order.
move() { python3 -c 'import struct, sys; open(sys.argv[1], "r+b").write(struct.pack("=q", int(sys.argv[2])))' "$work/clocks/$(pid_of "$1")" "$2"; }
leader() { armorctl status -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["leader"])'; }
ask() { armorctl node list -o json | python3 -c "import json, sys; [print($1) for n in json.load(sys.stdin)]"; }
client_port() { ask 'n["node"], n["clientAddress"]' | awk -v n="$1" '$1 == n { sub(/.*:/, "", $2); print $2 }'; }

# client NODE: one session through a node that asks again and again; it is made anew when it ends, and that is written down.
client() {
	local node=$1 to
	to=$(client_port "$node")
	while [ ! -e "$work/over" ]; do
		PGPORT=$to psql -qXAt -c "SELECT 1" -c "SELECT 'in'" >/dev/null 2>>"$work/lost.$node" || echo "refused" >>"$work/lost.$node"
		yes 'SELECT 1; SELECT pg_sleep(0.05);' | PGPORT=$to psql -qXAt >/dev/null 2>>"$work/lost.$node" || true
		echo "$(date +%T.%N) the session ended" >>"$work/lost.$node"
		sleep 0.2
	done
}
lost() { wc -l 2>/dev/null <"$work/lost.$1" || echo 0; }

tries() { # WORDS COMMAND...: within 15 s
	local what=$1 said
	shift
	for _ in $(seq 15); do
		if said=$("$@" 2>&1); then return 0; fi
		sleep 1
	done
	bad "$what: $said"
}
revocation() { tries "revoke $1" armorctl revoke --identity "spiffe://dev.armor-dev.internal/app/gone-$RANDOM$RANDOM" --reason superseded --yes; }
change() { tries "a change $1" armorctl join-token create "x$RANDOM$RANDOM"; }

everyone=$(ask 'n["node"]')
for n in $everyone; do
	: >"$work/lost.$n"
	client "$n" &
	clients+=($!)
done
sleep 2
say "$nodes nodes: $(ask 'n["node"], n["role"], n["clockSkewMs"]' | paste -sd' ')"

# --- the clocks -----------------------------------------------------------------
for off in ${OFFSETS:-2 -2 3600 -3600 86400 -86400 31536000 -31536000}; do
	for meanwhile in no yes; do
		first=$(leader)
		wrong=$first
		for n in $everyone; do [ "$n" = "$first" ] || [ "$(wc -w <<<"$wrong")" -ge $(((nodes - 1) / 2)) ] || wrong+=" $n"; done
		for n in $everyone; do eval "before_$n=$(lost "$n")"; done
		for n in $wrong; do move "$n" "$off"; done
		sleep 2
		if [ $meanwhile = yes ]; then revocation "while $wrong is $off s off" && change "while $wrong is $off s off"; fi
		sleep 1
		during=$(leader)
		for n in $wrong; do move "$n" 0; done
		sleep 3
		revocation "after $wrong was $off s off" && change "after $wrong was $off s off"
		for n in $everyone; do
			ended=$(($(lost "$n") - $(eval "echo \$before_$n")))
			case " $wrong " in *" $n "*) continue ;; esac
			[ "$ended" = 0 ] || bad "$n, whose clock is right, lost sessions while $wrong was $off s off: $(tail -n 2 "$work/lost.$n")"
		done
		for n in $everyone; do
			PGPORT=$(client_port "$n") psql -qXAtc 'SELECT 1' >/dev/null 2>"$work/said" || bad "$n lets nobody in: $(cat "$work/said")"
		done
		say "$wrong $off s off (a change meanwhile: $meanwhile): led by $first, then ${during:-nobody}"
	done
done
armorctl status -o json | python3 -c 'import json, sys; s = json.load(sys.stdin); sys.exit(s["logTimeAhead"])' || bad "log time is in the future"
say "$broken broken"
[ "$broken" = 0 ]
