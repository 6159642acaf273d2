#!/usr/bin/env bash
# Sees that the images which docker-compose.yml takes from Docker Hub are here. What is
# here stays; else it is pulled; and where there is no Docker Hub it is made, under the
# same name, of this machine's Debian packages: small stand-ins that heed what the file
# uses of the real ones. They carry the label standin=armor.
#
#   tools/images.sh            make images
#   tools/images.sh remove     removes the stand-ins
set -euo pipefail
cd "$(dirname "$0")/.."
out=bin/images

# What each stand-in is made of, beside what deploy/images/NAME has.
base='bash dash coreutils findutils grep sed util-linux libc-bin'
declare -A packages=(
	[postgres]="$base hostname openssl tzdata postgresql-15 postgresql-client-15"
	[haproxy]="$base haproxy"
)

if [ "${1:-}" = remove ]; then
	docker image rm --force armor-compose:latest >/dev/null 2>&1 || true # it is made of one of them
	docker image ls --quiet --filter label=standin=armor | sort -u | xargs -r docker image rm --force >/dev/null
	exit
fi

make_standin() {
	local name=${1%%:*}
	echo "$1 cannot be pulled: making it from Debian's packages"
	tools/needs.sh images
	mkdir -p "$out/$name"
	# shellcheck disable=SC2086
	tools/debian-root.sh "$out/$name/root.tar" ${packages[$name]}
	cp "deploy/images/$name/"* "$out/$name/"
	docker build --quiet --label standin=armor --tag "$1" "$out/$name" >/dev/null
	rm -rf "${out:?}/$name"
}

for image in $(sed -nE 's/^ +image: ((postgres|haproxy):[^ ]+)$/\1/p' docker-compose.yml); do
	if docker image inspect "$image" >/dev/null 2>&1; then
		echo "$image is here"
	elif ! timeout 600 docker pull --quiet "$image" 2>/dev/null; then
		make_standin "$image"
	fi
done
