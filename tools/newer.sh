#!/usr/bin/env bash
# Newer neighbours than Debian 12 has: PgBouncer, Odyssey and PostgreSQL of Debian
# unstable, unpacked into a folder of their own with the libraries that they need, for
#
#   BENCH_PGBOUNCER=DIR/usr/sbin/pgbouncer BENCH_ODYSSEY=DIR/usr/bin/odyssey make bench
#   ARMOR_TEST_POSTGRES=DIR/usr/lib/postgresql/18/bin go test ./pooler
#
# As root, with debootstrap and patchelf. Nothing outside of DIR is changed.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: tools/newer.sh DIR" >&2; exit 2; }
dir=$(realpath -m "$1")
debootstrap --variant=minbase --include=ca-certificates sid "$dir" "$("$(dirname "$0")/mirror.sh")" >/dev/null
printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d" # nothing is started
chmod +x "$dir/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$dir/etc/resolv.conf"
chroot "$dir" apt-get -o Acquire::Check-Valid-Until=false update -qq # a mirror may lag
# Most of what the packages do after they are unpacked is of no use here, and fails without /proc.
DEBIAN_FRONTEND=noninteractive chroot "$dir" apt-get install -y -qq --no-install-recommends pgbouncer odyssey postgresql-18 >/dev/null 2>&1 || true
libraries=$dir/lib/x86_64-linux-gnu:$dir/usr/lib/x86_64-linux-gnu
for program in "$dir"/usr/lib/postgresql/18/bin/* "$dir/usr/sbin/pgbouncer" "$dir/usr/bin/odyssey"; do
	patchelf --set-interpreter "$dir/lib64/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$libraries" "$program"
done
"$dir/usr/sbin/pgbouncer" --version | head -1
"$dir/usr/lib/postgresql/18/bin/postgres" --version
