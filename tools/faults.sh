#!/usr/bin/env bash
# Measures what one fault costs a cluster whose nodes live in network namespaces: the leader, and a follower, is killed, stopped
# (SIGSTOP), or cut off from the other nodes: its packets are lost (out), theirs to it are (in), or both. At the fault a certificate is
# revoked that has a session on each node. A line of the table says how long the session lived on each healthy node (cut), when armorctl
# answered, with which exit code, and whether that was true, and how long after its end the node served a new client again (back).
# It marks what is above 3 s and 2 s, and fails only when an answer was not true. It needs root. NODES is 3 or more.
set -euo pipefail

[ "$(id -u)" = 0 ] || { echo "network namespaces need root" >&2; exit 1; }
# All of it is in a network of its own: the machine's firewall, addresses and settings are neither met nor changed.
if [ -z "${ARMOR_FAULTS_INSIDE:-}" ]; then ARMOR_FAULTS_INSIDE=1 exec unshare --net -- "$0" "$@"; fi
ip link set lo up

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/armor-faults.XXXXXX")
nodes=${NODES:-3}
bin=${BIN:-$root/bin}
net=10.$((60 + RANDOM % 60)).$((RANDOM % 250))
tag=af$((RANDOM % 9000 + 1000)) # of the bridge and the namespaces
pg_pid='' pids=() clients=() untrue=0

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
now() { date +%s.%N; }
cleanup() {
	status=$?
	trap - EXIT
	for pid in "${clients[@]}" "${pids[@]}"; do [ -z "$pid" ] || { kill -CONT "$pid" && kill -KILL "$pid"; } 2>/dev/null || true; done
	[ -z "$pg_pid" ] || kill -INT "$pg_pid" 2>/dev/null || true
	for k in $(seq "$nodes"); do ip netns del "$tag-$k" 2>/dev/null || true; done
	ip link del "$tag" 2>/dev/null || true
	if [ -n "${KEEP:-}" ]; then say "kept: $work"; else rm -rf "$work"; fi
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- namespaces on one bridge, which is also where clients and PostgreSQL are ----
ip link add "$tag" type bridge && ip addr add "$net.254/24" dev "$tag" && ip link set "$tag" up
for k in $(seq "$nodes"); do
	ip netns add "$tag-$k"
	ip link add "$tag-$k" type veth peer name eth0 netns "$tag-$k"
	ip link set "$tag-$k" master "$tag" up
	ip -n "$tag-$k" addr add "$net.$k/24" dev eth0
	ip -n "$tag-$k" link set eth0 up && ip -n "$tag-$k" link set lo up
	ip netns exec "$tag-$k" nft 'add table inet f; add chain inet f in { type filter hook input priority 0; }'
done

# --- a throw-away PostgreSQL ----------------------------------------------------
pg=$(dirname "$(find /usr/lib/postgresql -path '*/bin/initdb' | sort -V | tail -n 1)")
chmod 755 "$work" && mkdir "$work/pg" && chown postgres "$work/pg"
as=(setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups)
printf 'not-a-secret' >"$work/pw" && chmod 644 "$work/pw"
(cd "$work/pg" && "${as[@]}" "$pg/initdb" -D data -U app --pwfile="$work/pw" --auth=scram-sha-256 -N >"$work/initdb.log" 2>&1)
echo "host all all $net.0/24 scram-sha-256" >>"$work/pg/data/pg_hba.conf"
(cd "$work/pg" && exec "${as[@]}" "$pg/postgres" -D data -p 5432 -c "listen_addresses=$net.254" -c unix_socket_directories= -c fsync=off) \
	>"$work/pg.log" 2>&1 &
pg_pid=$!
for _ in $(seq 100); do "$pg/pg_isready" -q -h "$net.254" && break; sleep 0.1; done
PGSSLMODE=disable PGPASSWORD=not-a-secret psql -qX -h "$net.254" -U app -d postgres -c 'CREATE DATABASE app'

# --- a cluster that armord dev has made moves into the namespaces ----------------
export PATH="$bin:$PATH"
home=$work/cluster
armord dev --nodes "$nodes" --dir "$home" --port 0 --postgres "postgres://app:not-a-secret@$net.254:5432/app?sslmode=disable" >"$work/dev.log" 2>&1 &
dev=$!
pids+=("$dev")
for _ in $(seq 900); do [ -e "$home/ready" ] && break; sleep 0.1; done
kill -INT "$dev" && wait "$dev" || true
# shellcheck disable=SC1091
. "$home/env"
moves=()
for k in $(seq "$nodes"); do
	for port in $(sed -n 's/^ *listen: 127.0.0.1:\([0-9]*\)$/\1/p' "$home/n$k/armord.yaml"); do moves+=(-e "s/127\.0\.0\.1:$port\b/$net.$k:$port/"); done
	port_of[k]=$(eval "echo \$NODE${k}_PORT")
done
sed -i "${moves[@]}" "$home"/n*/armord.yaml "$home"/n*/data/peer/membership.yaml "$ARMOR_CONFIG"

start() { ip netns exec "$tag-$1" armord run --config "$home/n$1/armord.yaml" >>"$home/n$1/log" 2>&1 & pids[$1]=$!; }
for k in $(seq "$nodes"); do start "$k"; done
export PGSSLMODE=verify-ca PGCONNECT_TIMEOUT=2
unset PGHOST PGPORT
at() { psql -qXAt -h "$net.$1" -p "${port_of[$1]}" "${@:2}"; }
serves() { at "$1" -c 'SELECT 1' >/dev/null 2>&1; }
leader() { timeout 5 armorctl status -o json 2>/dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["leader"][1:])' 2>/dev/null || true; }
settled() { # every node serves, and there is a leader
	for _ in $(seq 300); do
		local all=1
		for k in $(seq "$nodes"); do serves "$k" || all=0; done
		[ $all = 1 ] && [ -n "$(leader)" ] && return 0
		sleep 0.2
	done
	say "the cluster does not settle"
	return 1
}

drop() { ip netns exec "$tag-$1" nft add rule inet f in ip saddr "$net.$2" drop; }
others() { for j in $(seq "$nodes"); do [ "$j" = "$1" ] || echo "$j"; done; }
break_() {
	case $2 in
	kill) kill -KILL "${pids[$1]}" ;;
	stop) kill -STOP "${pids[$1]}" ;;
	esac
	case $2 in out | both) for j in $(others "$1"); do drop "$j" "$1"; done ;; esac
	case $2 in in | both) for j in $(others "$1"); do drop "$1" "$j"; done ;; esac
}
mend() {
	case $2 in
	kill) start "$1" ;;
	stop) kill -CONT "${pids[$1]}" ;;
	*) for k in $(seq "$nodes"); do ip netns exec "$tag-$k" nft flush chain inet f in; done ;;
	esac
}

printf '| who | fault | cut on healthy nodes | answer | true | back |\n|---|---|---|---|---|---|\n'
for who in ${WHO:-leader follower}; do
	for fault in ${FAULTS:-kill stop out in both}; do
		settled
		first=$(leader)
		victim=$first
		[ "$who" = leader ] || victim=$(others "$first" | tail -n 1)
		id=$work/$who-$fault
		armorctl cert issue demo --environment dev --ca "$home/ca/dev-client" --owner faults --out "$id" >/dev/null
		clients=()
		for k in $(seq "$nodes"); do
			(yes 'SELECT extract(epoch FROM clock_timestamp()) FROM pg_sleep(0.02);' |
				PGSSLCERT=$id/client.crt PGSSLKEY=$id/client.key at "$k" >"$id/seen.$k" 2>"$id/err.$k") 2>/dev/null &
			clients+=($!)
		done
		sleep 1.5
		begun=$(now)
		break_ "$victim" "$fault"
		code=0
		timeout 40 armorctl revoke --file "$id/client.crt" --reason superseded --yes -o json >"$id/answer" 2>"$id/said" || code=$?
		answered=$(now)
		sleep 0.5
		healed=$(now)
		mend "$victim" "$fault"
		until serves "$victim"; do sleep 0.05; done
		back=$(now)
		python3 - "$id" "$begun" "$answered" "$healed" "$back" "$code" "$victim" "$nodes" "$who" "$fault" <<'P' || untrue=1
import sys
d, (begun, answered, healed, back), (code, victim, nodes), who, fault = sys.argv[1], map(float, sys.argv[2:6]), map(int, sys.argv[6:9]), *sys.argv[9:11]
def last(k):
    lines = [l for l in open(f"{d}/seen.{k}").read().split("\n")[:-1] if l]
    return float(lines[-1])
mark = lambda t, most: f"{t:.2f} s" + (f" (above {most})" if t > most else "")
cut = max(last(k) - begun for k in range(1, nodes + 1) if k != victim)
true = code != 0 or all(last(k) <= answered for k in range(1, nodes + 1))
print(f"| {who} | {fault} | {mark(cut, 3)} | {answered - begun:.2f} s, exit {code} | {'yes' if true else 'NO'} | {mark(back - healed, 2)} |", flush=True)
sys.exit(not true)
P
		for pid in "${clients[@]}"; do kill "$pid" 2>/dev/null || true; done
		clients=()
	done
done
exit $untrue
