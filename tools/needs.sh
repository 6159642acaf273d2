#!/usr/bin/env bash
# What the demo and the tests need beside Go, git and make: one list, in one place.
#
#   tools/needs.sh demo|bench|test|check|regress|images
#
# Each of the first four also needs what stands before it, the others what demo does. As root what is missing is
# installed from Debian; anybody else is told the command. Whoever has a program from
# elsewhere keeps it: what counts is that it is here, not where it came from.
set -euo pipefail

# For what, Debian's package, and a command that succeeds when it is here.
needs='
demo  postgresql                     ls /usr/lib/postgresql/*/bin/initdb || command -v initdb
demo  postgresql-client              command -v psql
bench pgbouncer                      command -v pgbouncer
test  haproxy                        command -v haproxy
test  openssl                        command -v openssl
test  procps                         command -v ps
test  prometheus-pgbouncer-exporter  command -v prometheus-pgbouncer-exporter
test  check-postgres                 command -v check_postgres
test  python3-psycopg                /usr/bin/python3 -c "import psycopg"
test  python3-asyncpg                /usr/bin/python3 -c "import asyncpg"
test  openjdk-17-jdk-headless        command -v javac
test  libpostgresql-jdbc-java        test -e /usr/share/java/postgresql.jar
test  nodejs                         command -v node
test  node-pg                        node -e "require(\"pg\"); require(\"pg-cursor\")"
check protobuf-compiler              command -v protoc
check gcc                            command -v cc
check libc6-dev                      test -e /usr/include/stdio.h
regress gcc                          command -v cc
regress libc6-dev                    test -e /usr/include/stdio.h
regress bzip2                        command -v bzip2
images haproxy                       command -v haproxy
images openssl                       command -v openssl
images tzdata                        test -e /usr/share/zoneinfo/UTC
images hostname                      command -v hostname
'
export PATH=$PATH:/usr/sbin NODE_PATH=/usr/share/nodejs:/usr/local/share/nodejs

case ${1:-} in
demo) wanted='demo' ;;
bench) wanted='demo bench' ;;
test) wanted='demo bench test' ;;
check) wanted='demo bench test check' ;;
regress) wanted='demo regress' ;;
images) wanted='demo images' ;;
*)
	echo "usage: tools/needs.sh demo|bench|test|check|regress|images" >&2
	exit 2
	;;
esac

# missing prints the packages of which nothing is here.
missing() {
	while read -r what package check; do
		[[ " $wanted " == *" $what "* ]] || continue
		sh -c "$check" >/dev/null 2>&1 </dev/null || echo "$package"
	done < <(grep . <<<"$needs")
}

install() {
	apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

mapfile -t packages < <(missing)
[ "${#packages[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing: ${packages[*]}; as root: apt-get install --no-install-recommends ${packages[*]}" >&2
	exit 1
fi
echo "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
mapfile -t usual < <(printf '%s\n' "${packages[@]}" | grep -vx node-pg)
[ "${#usual[@]}" -eq 0 ] || install "${usual[@]}"
# Debian's node-pg does not go with a nodejs from elsewhere; its files do.
if [[ " ${packages[*]} " == *" node-pg "* ]]; then
	install node-pg 2>/dev/null || "$(dirname "$0")/node-pg.sh"
fi
mapfile -t packages < <(missing)
if [ "${#packages[@]}" -gt 0 ]; then
	echo "installed, and still not here: ${packages[*]}" >&2
	exit 1
fi
