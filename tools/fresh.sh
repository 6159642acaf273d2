#!/usr/bin/env bash
# Tries README's two commands on a bare machine: a Debian of its own that has git, make,
# Go and nothing else, with a clone of what is committed here. Everything that it mounts
# and starts lives in namespaces of its own, and so ends with it, however it ends.
#
#   make fresh      as root, with debootstrap; the exit code is that of the commands
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

# run COMMAND...: inside, with the lines that tell how it goes, or all of the end when it fails.
run() {
	echo "\$ $*"
	if ! "$@" 2>&1 | tee /tmp/log | awk '/^(installing|missing|demo:|ok |FAIL|--- FAIL|panic:|.*== )/ { print; fflush() }'; then
		tail -n 100 /tmp/log >&2
		return 1
	fi
}

if [ "${1:-}" = inside ]; then
	cd /root/armor
	run make demo
	run make test
	exit
fi

[ "$(id -u)" -eq 0 ] || { echo "make fresh makes a chroot: it has to be root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "missing: debootstrap; apt-get install debootstrap" >&2; exit 1; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/armor-fresh.XXXXXX")
inner=''
cleanup() {
	[ -z "$inner" ] || kill -KILL "$inner" 2>/dev/null || true # and with it all that runs in the chroot
	rm -rf --one-file-system "$dir" 2>/dev/null || { sleep 2 && rm -rf --one-file-system "$dir"; }
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$dir"
# shellcheck disable=SC1091
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$("$root/tools/mirror.sh")
echo "making a bare $release from $mirror"
debootstrap --variant=minbase --include=ca-certificates,git,make "$release" "$dir" "$mirror" >"$dir.log" 2>&1 || { tail "$dir.log" >&2; exit 1; }
rm -f "$dir.log"
cp /etc/resolv.conf /etc/hosts "$dir/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/" # whom this machine trusts to bring modules
printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d" # the network is the machine's: no service is started
chmod +x "$dir/usr/sbin/policy-rc.d"
git clone -q "$root" "$dir/root/armor"
cp "$root/tools/fresh.sh" "$dir/root/fresh.sh"
(cd "$root" && go mod download) # once, and not again in the chroot
modules=$(go env GOMODCACHE)/cache/download
mkdir -p "$dir/usr/local/go" "$dir/modules" "$modules"

# What is here of Go and of modules is not fetched again; the rest comes from where it does here.
environment=(HOME=/root PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
	GOPROXY="file:///modules,$(go env GOPROXY)" GOSUMDB="$(go env GOSUMDB)" GOFLAGS="$(go env GOFLAGS)" GOTOOLCHAIN=local)
for name in http_proxy https_proxy no_proxy; do
	[ -z "${!name:-}" ] || environment+=("$name=${!name}")
done
# shellcheck disable=SC2016
unshare --mount --pid --fork --kill-child bash -euc '
	dir=$1 goroot=$2 modules=$3; shift 3
	mount -t proc proc "$dir/proc"
	mount --rbind /dev "$dir/dev"
	mount --bind -o ro "$goroot" "$dir/usr/local/go"
	mount --bind -o ro "$modules" "$dir/modules"
	chroot "$dir" env -i "$@" bash /root/fresh.sh inside
' fresh "$dir" "$(go env GOROOT)" "$modules" "${environment[@]}" &
inner=$!
status=0
wait "$inner" || status=$?
inner=''
[ "$status" -eq 0 ] || exit "$status"
echo "both commands pass on a bare $release"
