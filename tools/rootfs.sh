#!/usr/bin/env bash
# Writes what the container image holds, rootfs.tar, into a folder: the binaries of
# another, and the folders and names that they need. The same binaries make the same
# file, whoever runs this and whatever his umask is.
#
#   tools/rootfs.sh BIN FOLDER      BIN has armord and armorctl
set -euo pipefail
bin=$1 out=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/armor-rootfs.XXXXXX")
trap 'rm -rf "$work"' EXIT
umask 022
mkdir -p "$out"

mkdir -p "$work/root/etc/armor" "$work/root/usr/local/bin" "$work/own/var/lib/armor" "$work/own/home/armor"
chmod 700 "$work/own/var/lib/armor" "$work/own/home/armor"
install -m 755 "$bin/armord" "$bin/armorctl" "$work/root/usr/local/bin/"
echo 'root:x:0:0:root:/root:/sbin/nologin
armor:x:65532:65532:Armor:/home/armor:/sbin/nologin' >"$work/root/etc/passwd"
echo 'root:x:0:
armor:x:65532:' >"$work/root/etc/group"

pack() { tar --create --sort=name --mtime=@0 --numeric-owner --file="$work/rootfs.tar" "$@"; }
pack --owner=0 --group=0 --directory="$work/root" etc usr
tar --append --mtime=@0 --numeric-owner --owner=65532 --group=65532 --file="$work/rootfs.tar" --directory="$work/own" \
	var/lib/armor home/armor
mv "$work/rootfs.tar" "$out/rootfs.tar"
