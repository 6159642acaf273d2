#!/usr/bin/env bash
# Installs the Debian package in a chroot of the few programs that it may count on, and
# goes the way of docs/install.md there: the daemon runs as its user, says READY, becomes
# a cluster of one and serves, ends when asked; an edited configuration survives an
# upgrade, the data survives a purge. The unit is checked where systemd is. All of it
# lives in namespaces of its own, and so ends with this script.
#
#   make deb-test      as root
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

if [ -z "${ARMOR_DEB_TEST:-}" ]; then
	[ "$(id -u)" -eq 0 ] || { echo "the package is installed in a chroot: this has to be root" >&2; exit 1; }
	for command in unshare ip openssl python3; do
		command -v "$command" >/dev/null || { echo "missing: $command" >&2; exit 1; }
	done
	work=$(mktemp -d "${TMPDIR:-/tmp}/armor-deb.XXXXXX")
	trap 'rm -rf --one-file-system "$work"' EXIT
	trap 'exit 130' INT TERM
	ARMOR_DEB_TEST=$work unshare --mount --pid --net --fork --kill-child "$0" "$@"
	exit
fi

deb=$1 work=$ARMOR_DEB_TEST
chroot=$work/root
fail() {
	echo "deb: FAILED: $*" >&2
	tail -n 20 "$work"/*.log >&2 2>/dev/null || true
	exit 1
}
inside() { chroot "$chroot" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root "$@"; }
# is WHAT GOT WANTED
is() { [ "$2" = "$3" ] || fail "$1: '$2', not '$3'"; }
await() {
	for _ in $(seq 300); do
		if "${@:2}" >"$work/await.log" 2>&1; then return; fi
		sleep 0.1
	done
	fail "$1"
}

# --- the unit -------------------------------------------------------------------------

if command -v systemd-analyze >/dev/null; then
	sed "s#/usr/bin/armord#$root/bin/armord#" "$root/deploy/debian/armord.service" >"$work/armord.service"
	said=$(systemd-analyze verify --man=no "$work/armord.service" 2>&1) || fail "systemd-analyze verify: $said"
	[ -z "$said" ] || fail "systemd-analyze verify: $said"
	for unit in service timer; do
		sed "s#/usr/bin/armorctl#$root/bin/armorctl#" "$root/deploy/debian/armor-renew@.$unit" >"$work/armor-renew@one.$unit"
	done
	said=$(systemd-analyze verify --man=no "$work/armor-renew@one.service" "$work/armor-renew@one.timer" 2>&1) || fail "systemd-analyze verify: $said"
	[ -z "$said" ] || fail "systemd-analyze verify: $said"
	systemd-analyze security --offline=yes --threshold=20 "$work/armord.service" >"$work/security.log" ||
		fail "the unit is exposed more than 2.0"
	tail -n 1 "$work/security.log"
fi

# --- installed ------------------------------------------------------------------------

"$root/tools/debian-root.sh" "$work/root.tar" bash dash coreutils dpkg diffutils findutils grep login passwd sed tar util-linux libc-bin
mkdir -m 755 "$chroot"
tar --extract --file="$work/root.tar" --directory="$chroot"
mkdir -p "$chroot/proc" "$chroot/dev" "$chroot/root" "$chroot/run"
mount -t proc proc "$chroot/proc"
mount --bind /dev "$chroot/dev"
ip link set lo up
echo 'root:x:0:0:root:/root:/bin/bash' >"$chroot/etc/passwd"
echo 'root:x:0:' >"$chroot/etc/group"
echo '127.0.0.1 localhost n1' >"$chroot/etc/hosts"
cp "$deb" "$chroot/armor.deb"
inside dpkg --install /armor.deb >"$work/install.log" 2>&1 || fail "dpkg --install"
grep -q 'systemctl enable --now armord' "$work/install.log" || fail "the installation does not say how to go on"

owner() { inside stat --format '%U:%G %a' "$1"; }
is /etc/armor "$(owner /etc/armor)" 'root:armor 750'
is /var/lib/armor "$(owner /var/lib/armor)" 'armor:armor 700'
is armord "$(owner /usr/bin/armord)" 'root:root 755'
for program in armord armorctl; do
	inside "$program" version >/dev/null || fail "$program does not run"
	inside bash -n "/usr/share/bash-completion/completions/$program" || fail "the completion of $program"
done
for page in man1/armorctl-cert-issue.1 man1/armorctl-cert-renew.1 man8/armord-run.8; do
	gzip --test "$chroot/usr/share/man/$page.gz" || fail "the manual page $page"
done
inside armord config validate || fail "the configuration that is shipped"

# --- started, as systemd would ---------------------------------------------------------

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=n1 -addext subjectAltName=DNS:n1,DNS:localhost \
	-keyout "$chroot/etc/armor/server.key" -out "$chroot/etc/armor/server.crt" 2>"$work/openssl.log" || fail openssl
inside chown root:armor /etc/armor/server.key
inside chmod 640 /etc/armor/server.key
sed -i 's/^cluster: armor$/cluster: acme/' "$chroot/etc/armor/armord.yaml"
sed -i 's/^#  advertise: .*/  advertise: "n1:6433"/' "$chroot/etc/armor/armord.yaml"

python3 -c '
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
with open(sys.argv[2], "w") as log:
    while True:
        print(s.recv(4096).decode(), file=log, flush=True)
' "$chroot/run/notify" "$work/notify.log" &
await "nobody listens for the notification" test -S "$chroot/run/notify"
start() {
	chroot "$chroot" env -i PATH=/usr/bin:/bin NOTIFY_SOCKET=/run/notify HOME=/var/lib/armor \
		setpriv --reuid=armor --regid=armor --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
		armord run >>"$work/armord.log" 2>&1 &
	daemon=$!
}
stop() {
	kill -TERM "$daemon"
	local code=0
	wait "$daemon" || code=$?
	is "its exit code" "$code" 0
	grep -q '^STOPPING=1' "$work/notify.log" || fail "it did not tell systemd that it ends"
}
start
await "it does not live" inside armord health
await "it did not say READY" grep -q '^READY=1' "$work/notify.log"
inside armorctl init --socket /var/lib/armor/admin.sock --peer-ca /root/peer-ca --operator ann --unencrypted >"$work/init.log" 2>&1 ||
	fail "armorctl init, as root"
await "it is not ready, as a cluster of one" inside armord health --ready
inside armorctl status >"$work/status.log" 2>&1 || fail "armorctl status"
is "its key" "$(owner /var/lib/armor/peer/node.key)" 'armor:armor 600'
stop

# --- upgraded, removed, purged ----------------------------------------------------------

inside dpkg --install /armor.deb >"$work/upgrade.log" 2>&1 || fail "the same again"
grep -q '^cluster: acme$' "$chroot/etc/armor/armord.yaml" || fail "an upgrade has replaced an edited configuration"
is "/etc/armor after an upgrade" "$(owner /etc/armor)" 'root:armor 750'
start
await "it is not ready after an upgrade" inside armord health --ready
stop
inside dpkg --remove armor >"$work/remove.log" 2>&1 || fail "dpkg --remove"
[ -e "$chroot/etc/armor/armord.yaml" ] || fail "a removal took the configuration"
inside dpkg --purge armor >"$work/purge.log" 2>&1 || fail "dpkg --purge"
[ ! -e "$chroot/etc/armor/armord.yaml" ] || fail "a purge left the configuration"
[ -e "$chroot/var/lib/armor/peer/node.key" ] || fail "a purge took the node's key"
echo "deb: $(basename "$deb") installs, starts as its user, serves, is upgraded and goes"
