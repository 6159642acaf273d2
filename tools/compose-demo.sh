#!/usr/bin/env bash
# Does what README.md says under "With Docker", word for word, with a look at things that
# it does not say: that the same again changes nothing, that a node may be lost, that who
# was revoked stays out, and that nothing is left at the end. Non-zero when any step fails.
#
#   make compose-demo
set -euo pipefail
cd "$(dirname "$0")/.."
# A project of its own, and a free port: whoever has one running keeps it.
export COMPOSE_PROJECT_NAME=armor-demo-$$ ARMOR_PORT=
if ! command -v docker-compose >/dev/null; then
	docker-compose() { docker compose "$@"; }
	export -f docker-compose
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/armor-compose.XXXXXX")
log=$work/log out=$work/out
begun=$SECONDS

fail() { echo "compose-demo: FAILED: $*" >&2; exit 1; }
cleanup() {
	local status=$?
	trap - EXIT
	if [ "$status" -ne 0 ]; then
		tail -n 30 "$out" "$log" >&2
		docker-compose logs --tail 15 >&2 || true
	fi
	docker-compose down --volumes --timeout 40 >/dev/null 2>&1 || true
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# step COMMAND: as somebody types it. The engine's own talk is shown when it fails.
step() {
	local since=$SECONDS
	echo "\$ $1"
	bash -euo pipefail -c "$1" </dev/null >"$out" 2>"$log" || fail "$1"
	grep -vE '^(make|Step | ---> |Removing |Success|Sending |CGO_|docker build|  --build-arg|tools/)' "$out" || true
	echo "  ($((SECONDS - since)) s)"
}
app() { docker-compose run --rm psql -XAt "$@" </dev/null 2>"$log"; }

# look sees what the README leaves out, while the app is still let in.
look() {
	docker-compose up -d >"$log" 2>&1 || fail "the same again"
	docker-compose stop --timeout 40 n2 >"$log" 2>&1
	for _ in 1 2 3; do
		[ "$(app -c 'select 6 * 7')" = 42 ] || fail "with one node stopped a client is not served"
	done
	docker-compose start n2 >"$log" 2>&1
	docker-compose run --rm armorctl node list -o json 2>"$log" | grep -q '"node": *"n2"' || fail "n2 is no node any more"
	echo "  (up again: nothing changed; with n2 stopped: served)"
}
revoked() {
	if app -c 'select 1' >/dev/null; then fail "a revoked certificate is let in"; fi
	grep -q 'is revoked' "$log" || fail "refused, but not as revoked"
	echo "  (and it is refused now: $(grep -o 'FATAL.*' "$log"))"
}

docker volume ls --quiet | sort >"$work/volumes"
mapfile -t steps < <(sed -n '/^## With Docker/,/^## /p' README.md | sed -n '/^```console/,/^```$/s/^\$ //p')
[ "${#steps[@]}" -gt 3 ] || fail "README.md has no block under 'With Docker'"
for command in "${steps[@]}"; do
	case $command in
	*' revoke '*) look ;;
	*' down '*) revoked ;;
	esac
	step "$command"
done

left=$(
	of_ours=(--filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")
	docker container ls --quiet --all "${of_ours[@]}"
	docker network ls --quiet "${of_ours[@]}"
	docker volume ls --quiet | sort | comm -13 "$work/volumes" - # those without a name have no label
)
[ -z "$left" ] || fail "there is something left: $left"
echo "compose-demo: all steps passed in $((SECONDS - begun)) s, and nothing is left"
