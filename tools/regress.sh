#!/usr/bin/env bash
# Plays PostgreSQL's own regression suite (src/test/regress of the installed version's source package) through Armor,
# one client at a time: once directly, then through a node for each way of lending. What fails through Armor and not
# directly is a difference, and its diff is kept.
#
#   tools/regress.sh [FOLDER [WAY...]]     FOLDER is bin/regress if not given; WAY is session, keep, busy, reset or pin
#
# busy is keep with other clients that take the server connections in between, each with a setting of its own: alone, a
# client meets mostly its own connection again.
#
# It exits with 1 when keep passes fewer files than it should, and needs `make build`. PostgreSQL refuses to run as
# root, so root prepares, and then the user postgres goes on: FOLDER has to be where that can come.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(realpath -m "${1:-$root/bin/regress}")
ways=("${@:2}")
[ "${#ways[@]}" -gt 0 ] || ways=(session keep busy reset)
enough=205 # of 217

fail() { echo "tools/regress.sh: $*" >&2; exit 1; }

initdb=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
[ -n "$initdb" ] || fail "there is no PostgreSQL of Debian's; tools/needs.sh regress"
bin=$(dirname "$initdb")
major=$(basename "$(dirname "$bin")")
version=$(dpkg-query -W -f '${Version}' "postgresql-$major")
suite=$dir/suite-$version

# fetch downloads the source of exactly what is installed, from where this machine has its packages.
fetch() {
	local apt=(-qq -o APT::Sandbox::User= -o Dir::State::Lists="$1/lists" -o Dir::Cache="$1/cache"
		-o Dir::Etc::SourceList="$1/sources.list" -o Dir::Etc::SourceParts=/dev/null)
	mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
	# shellcheck disable=SC1091,SC2016
	apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v release="$(. /etc/os-release && echo "$VERSION_CODENAME")" 'index($3, release) == 1 && $4 == "main"' |
		sort -u >"$1/sources.list"
	[ -s "$1/sources.list" ] || fail "apt has no source of this Debian's main packages"
	apt-get "${apt[@]}" update
	(cd "$1" && apt-get "${apt[@]}" source --download-only "postgresql-$major=$version")
}

# prepare leaves the suite and its library in $suite.
prepare() {
	[ ! -e "$suite/regress.so" ] || return 0
	local work=$dir/source
	rm -rf "$work" && mkdir -p "$work" "$suite"
	echo "fetching and compiling what PostgreSQL $version's suite needs (some minutes, once)"
	fetch "$work"
	tar -xf "$work"/postgresql-*.orig.tar.* --strip-components=1 -C "$work"
	(cd "$work" && ./configure --without-readline --without-zlib --without-icu && make -C src/backend generated-headers &&
		make -C src/test/regress regress.so) >"$dir/compile.log" 2>&1 || { tail "$dir/compile.log" >&2; fail "see $dir/compile.log"; }
	cp -r "$work"/src/test/regress/{sql,expected,data,parallel_schedule,resultmap} "$suite"
	cp "$bin/../lib/"{autoinc,refint}.so "$suite" # they are looked for beside it
	cp "$work/src/test/regress/regress.so" "$suite"
	rm -rf "$work"
}

# ended PID SIGNAL: ends a process that is a child of ours, and waits for it.
ended() {
	[ -n "$1" ] || return 0
	kill "-$2" "$1" 2>/dev/null || true
	wait "$1" || true
}

postgres='' armor='' neighbours=()
cleanup() {
	part
	ended "$armor" TERM
	ended "$postgres" QUIT
	rm -rf "$sockets" "$dir/run"
}

# ready SECONDS COMMAND...: until it succeeds.
ready() {
	local end=$((SECONDS + $1))
	until "${@:2}" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.2
	done
}

# start_postgres starts a fresh cluster, with a database as pg_regress makes one.
start_postgres() {
	local setting
	rm -rf "$dir/run" && mkdir -m 700 "$dir/run"
	"$bin/initdb" -D "$dir/run/data" -U postgres --auth=trust -E UTF8 --no-locale -N >"$dir/run/initdb.log"
	"$bin/postgres" -D "$dir/run/data" -k "$sockets" -c listen_addresses= -c fsync=off -c max_prepared_transactions=2 \
		>"$dir/postgres.log" 2>&1 &
	postgres=$!
	ready 60 "$bin/pg_isready" -h "$sockets" || fail "PostgreSQL does not start; see $dir/postgres.log"
	{
		echo "CREATE DATABASE regression TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';"
		for setting in lc_messages=C lc_monetary=C lc_numeric=C lc_time=C bytea_output=hex timezone_abbreviations=Default; do
			echo "ALTER DATABASE regression SET ${setting%=*} TO '${setting#*=}';"
		done
	} | "$bin/psql" -Xq -h "$sockets" -U postgres -v ON_ERROR_STOP=1 postgres
}

# start_armor MODE ON_STATE: a node in front of it.
start_armor() {
	cat >"$dir/run/pool.yaml" <<-YAML
	apiVersion: armor/v1
	kind: Pool
	metadata: {name: regression, environment: dev}
	spec: {database: regression, mode: $1, budget: 10, onState: $2, maxPinned: 10}
	YAML
	"$root/bin/armord" dev --nodes 1 --port 0 --dir "$dir/run/armor" --apply "$dir/run/pool.yaml" \
		--postgres "postgres://postgres@/regression?host=$sockets&sslmode=disable" >"$dir/armor.log" 2>&1 &
	armor=$!
	ready 60 test -e "$dir/run/armor/ready" || fail "the node does not start; see $dir/armor.log"
}

# meet starts clients that take server connections in between. They have no snapshot, and leave nothing in PostgreSQL.
meet() {
	local setting
	rm -f "$dir/neighbours.log"
	for setting in 'enable_seqscan = off' "work_mem = '64kB'" "datestyle = 'German'" 'search_path = pg_catalog' 'timezone = UTC'; do
		while echo 'BEGIN;'; do
			read -rt 0.01 -u 3 || true
			echo 'COMMIT;'
		done 3<> <(:) 2>/dev/null |
			(. "$dir/run/armor/env" && PGOPTIONS='' exec "$bin/psql" -Xq -c "SET $setting" -f -) >>"$dir/neighbours.log" 2>&1 &
		neighbours+=($!)
	done
}

part() {
	local pid
	for pid in "${neighbours[@]}"; do
		ended "$pid" TERM
	done
	neighbours=()
}

# play WAY: runs the suite as the environment says, and leaves the names of what passes and fails in FOLDER/WAY.
play() {
	local out=$dir/$1
	rm -rf "$out" && mkdir -p "$out"
	"$bin/../lib/pgxs/src/test/regress/pg_regress" --use-existing --dbname=regression --bindir="$bin" --inputdir="$suite" --outputdir="$out" \
		--dlpath="$suite" --schedule="$suite/parallel_schedule" --max-connections=1 >"$out/log" 2>&1 || true
	awk '/ \.\.\. +(ok|FAILED|failed)/ { print ($1 == "test" ? $2 : $1), (/ \.\.\. +ok/ ? "ok" : "failed") }' "$out/log" | sort >"$out/files"
	[ ! -e "$out/regression.diffs" ] || awk -v out="$out" '
		/^diff -U3 / { file = $NF; sub(/.*\//, "", file); sub(/\.out$/, "", file) } { print >(out "/" file ".diff") }' "$out/regression.diffs"
}

# passed WAY: how many files did.
passed() { grep -c ' ok$' "$dir/$1/files" || true; }

# through WAY: plays the suite through Armor.
through() {
	start_postgres
	case $1 in
	session) start_armor session keep ;;
	busy)
		start_armor transaction keep
		meet
		;;
	*) start_armor transaction "$1" ;;
	esac
	# shellcheck disable=SC1091
	(. "$dir/run/armor/env" && play "$1")
	part
	ended "$armor" TERM
	cp "$dir/run/armor/n1/armord.log" "$dir/$1/armord.log"
	ended "$postgres" QUIT
	armor='' postgres=''
}

directly() {
	start_postgres
	PGHOST=$sockets PGUSER=postgres play direct
	ended "$postgres" QUIT
	postgres=''
}

report() {
	local way
	printf '\n%-10s %s\n' mode 'files that pass'
	for way in direct "${ways[@]}"; do
		printf '%-10s %s of %s\n' "$way" "$(passed "$way")" "$(wc -l <"$dir/$way/files")"
	done
	for way in "${ways[@]}"; do
		printf '\nfails in %s and not directly (%s):\n' "$way" "$dir/$way/NAME.diff"
		comm -13 <(grep ' failed$' "$dir/direct/files") <(grep ' failed$' "$dir/$way/files") | sed 's/ failed//' | fmt -w 120
	done
}

for program in armord armorctl; do
	[ -x "$root/bin/$program" ] || fail "there is no $root/bin/$program: make build"
done
mkdir -p "$dir"
prepare
if [ "$(id -u)" -eq 0 ]; then
	chown -R postgres "$dir"
	as=(setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups)
	"${as[@]}" test -w "$dir" -a -x "$root/bin/armord" ||
		fail "postgres cannot come to $dir or $root/bin: give another folder, or clone to another"
	exec "${as[@]}" "$root/tools/regress.sh" "$dir" "${ways[@]}"
fi
[ -w "$dir" ] || fail "$(id -un) cannot write in $dir: give another folder"
while read -r name; do # what would lead a client elsewhere
	unset "$name"
done < <(compgen -e PG || true)
unset LANG LANGUAGE
export HOME=$dir LC_ALL=C
sockets=$(mktemp -d "${TMPDIR:-/tmp}/armor-regress.XXXXXX")
trap cleanup EXIT
trap 'exit 130' INT TERM
directly
for way in "${ways[@]}"; do
	through "$way"
done
report
[[ " ${ways[*]} " != *" keep "* ]] || [ "$(passed keep)" -ge "$enough" ] || fail "keep passes $(passed keep) files, fewer than $enough"
