#!/usr/bin/env bash
# Debian's node-postgres, where apt would not install it because nodejs is somebody
# else's: its packages are unpacked into /usr/local/share/nodejs, where the tests look,
# too. As root.
set -euo pipefail
target=/usr/local/share/nodejs
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
apt-get -o APT::Sandbox::User=root download -qq node-pg node-split2 node-xtend node-readable-stream >/dev/null
for package in *.deb; do
	dpkg-deb -x "$package" unpacked
done
mkdir -p "$target"
cp -R unpacked/usr/share/nodejs/. "$target"
