#!/usr/bin/env bash
# Succeeds when images can be built and run here, and else says in one line why not.
#
#   tools/docker-here.sh [COMMAND...]      which also have to be in PATH
set -euo pipefail
for command in docker "$@"; do
	command -v "$command" >/dev/null || { echo "no $command here" >&2; exit 1; }
done
timeout 20 docker info >/dev/null 2>&1 || { echo "docker is here, and its engine does not answer (docker info)" >&2; exit 1; }

# An engine that answers need not be able to run anything, as inside of another container.
program=$(dirname "$0")/../bin/armord
[ -x "$program" ] || exit 0
probe=$(mktemp -d "${TMPDIR:-/tmp}/armor-probe.XXXXXX")
image=armor-probe:$$
trap 'docker image rm --force "$image" >/dev/null 2>&1 || true; rm -rf "$probe"' EXIT
cp "$program" "$probe/armord"
printf 'FROM scratch\nCOPY armord /armord\nENTRYPOINT ["/armord"]\n' >"$probe/Dockerfile"
if ! said=$(timeout 120 docker build --quiet --tag "$image" "$probe" 2>&1) ||
	! said=$(timeout 60 docker run --rm --publish 127.0.0.1::6432 "$image" version 2>&1); then
	echo "docker is here, and cannot run a container: $(tail -1 <<<"$said")" >&2
	exit 1
fi
