#!/usr/bin/env bash
# Packs programs of this machine's Debian into a tar file, with the libraries they need:
# the root of a container image or a chroot, made without a download. Its dpkg knows what
# is in it.
#
#   tools/debian-root.sh TAR PACKAGE...      all files of these packages, less documentation
set -euo pipefail
out=$1
shift
command -v dpkg >/dev/null || { echo "this is no Debian: there are no packages to take programs from" >&2; exit 1; }
missing=()
for package in "$@"; do
	dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ "${#missing[@]}" -eq 0 ] || { echo "missing: ${missing[*]}; as root: apt-get install --no-install-recommends ${missing[*]}" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/armor-root.XXXXXX")
trap 'rm -rf "$work"' EXIT

# listed: what the packages have, by the one path of a merged /usr. PostgreSQL goes
# without its just-in-time compiler, whose LLVM is larger than all the rest.
listed() {
	dpkg --listfiles "$@" | sed -E 's#^/(bin|sbin|lib|lib64)/#/usr/\1/#' | sort -u |
		grep -vE '^/(usr/share/(doc|man|info|locale|lintian|bash-completion)|usr/lib/postgresql/[0-9]+/lib/(bitcode|llvmjit))(/|$|_|\.)' |
		while read -r path; do
			if [ -L "$path" ] || [ -f "$path" ]; then echo "$path"; fi
		done
}

# libraries: what the programs among them load, and what those paths lead to.
libraries() {
	grep -E '/(s?bin|lib|libexec)/' "$work/files" | while read -r path; do
		if [ -f "$path" ] && [ ! -L "$path" ] && [ "$(head -c 4 "$path" | tr -d '\0')" = $'\x7fELF' ]; then echo "$path"; fi
	done >"$work/programs"
	xargs -r ldd <"$work/programs" 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' | grep -v ':$' | sort -u | while read -r path; do
		path=$(sed -E 's#^/(lib|lib64)/#/usr/\1/#' <<<"$path")
		echo "$path"
		readlink --canonicalize "$path"
	done
}
listed "$@" >"$work/files"
libraries >"$work/libraries"
mkdir -p "$work/root/usr/bin" "$work/root/usr/sbin" "$work/root/usr/lib" "$work/root/usr/lib64"
for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$work/root/$dir"; done
mkdir -m 1777 "$work/root/tmp"
mkdir -p "$work/root/var/lib/dpkg/info" "$work/root/var/lib/dpkg/updates"
dpkg-query --status "$@" >"$work/root/var/lib/dpkg/status"
sort -u "$work/files" "$work/libraries" | sed 's#^/##' |
	tar --create --directory=/ --no-recursion --files-from=- --file=- | tar --extract --directory="$work/root"
tar --create --sort=name --numeric-owner --owner=0 --group=0 --file="$out" --directory="$work/root" .
