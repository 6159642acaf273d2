#!/usr/bin/env bash
# Succeeds when images can be built and run here, and else says in one line why not.
#
#   tools/docker-here.sh [COMMAND...]      which also have to be in PATH
set -euo pipefail
for command in docker "$@"; do
	command -v "$command" >/dev/null || { echo "no $command here" >&2; exit 1; }
done
timeout 20 docker info >/dev/null 2>&1 || { echo "docker is here, and its engine does not answer (docker info)" >&2; exit 1; }
