#!/usr/bin/env bash
# Starts the image that `make image` has built, as strictly as a container can be run,
# and sees that it is what docs/install.md says: its user, paths and ports, alive, not
# ready before it has a cluster, the same node after a restart, and gone when asked.
# What it starts it removes.
#
#   tools/image-test.sh [IMAGE]
set -euo pipefail
image=${1:-armor:latest}
name=armor-image-test-$$
work=$(mktemp -d "${TMPDIR:-/tmp}/armor-image.XXXXXX")

fail() {
	echo "image: FAILED: $*" >&2
	docker logs --tail 20 "$name" >&2 2>/dev/null || true
	exit 1
}
cleanup() {
	docker rm --force --volumes "$name" >/dev/null 2>&1 || true
	docker volume rm "$name" >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# is WHAT FORMAT WANTED: the image says so of itself.
is() {
	local got
	got=$(docker image inspect --format "$2" "$image")
	[ "$got" = "$3" ] || fail "$1: '$got', not '$3'"
}
is user '{{.Config.User}}' 65532:65532
is volume '{{json .Config.Volumes}}' '{"/var/lib/armor":{}}'
is ports '{{range $port, $_ := .Config.ExposedPorts}}{{$port}} {{end}}' '6432/tcp 6433/tcp 6434/tcp 6434/udp 6435/tcp '
version=$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$image")
for program in armord armorctl; do
	said=$(docker run --rm --entrypoint "$program" "$image" version)
	[[ "$said" == "$program $version ("* ]] || fail "$program says '$said', and the label $version"
done

printf 'node: n1\ncluster: acme\ndataDir: /var/lib/armor\n' >"$work/armord.yaml"
chmod 755 "$work" && chmod 644 "$work/armord.yaml"
docker run --detach --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges --network none \
	--health-interval 1s --volume "$name:/var/lib/armor" --volume "$work/armord.yaml:/etc/armor/armord.yaml:ro" "$image" >/dev/null

# await_health: until the engine calls it healthy by the image's own check.
await_health() {
	local health=''
	for _ in $(seq 300); do
		health=$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$name")
		case $health in
		"running healthy") return ;;
		running*) sleep 0.1 ;;
		*) break ;;
		esac
	done
	fail "it is '$health' and not healthy"
}
await_health
docker exec "$name" /usr/local/bin/armord health >/dev/null || fail "armord health denies what the engine saw"
if docker exec "$name" /usr/local/bin/armord health --ready >"$work/ready" 2>&1; then fail "it is ready without a cluster"; fi
grep -q 'belongs to no cluster yet' "$work/ready" || fail "it is not ready for another reason: $(cat "$work/ready")"
key() { docker cp "$name:/var/lib/armor/peer/node.key" - | tar --extract --to-stdout | sha256sum; }
owner=$(docker cp "$name:/var/lib/armor/peer/node.key" - | tar --list --verbose --numeric-owner)
[[ "$owner" == "-rw------- 65532/65532 "* ]] || fail "the node's key is '$owner'"

before=$(key)
docker restart --time 40 "$name" >/dev/null
await_health
[ "$(key)" = "$before" ] || fail "after a restart it has another key"
docker stop --time 40 "$name" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "$name")
[ "$code" = 0 ] || fail "asked to end, it ended with $code"
echo "image: $image ($version) starts, is alive and ends when it is asked"
