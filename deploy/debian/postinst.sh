#!/bin/sh
# The user and his folders are made. The node is not started: it first needs a name, a
# certificate and a cluster. After an upgrade it runs on until somebody restarts it,
# since all nodes of a cluster must not go down together.
set -e
[ "$1" = configure ] || exit 0
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers armor.conf
elif ! getent passwd armor >/dev/null; then
	useradd --system --user-group --home-dir /var/lib/armor --no-create-home --shell /usr/sbin/nologin armor
fi
if [ -d /run/systemd/system ]; then
	systemd-tmpfiles --create armor.conf
	systemctl daemon-reload
else
	install -d -m 0750 -o root -g armor /etc/armor
	install -d -m 0700 -o armor -g armor /var/lib/armor
fi
if [ -z "$2" ]; then
	echo "armor: edit /etc/armor/armord.yaml, then: systemctl enable --now armord"
elif [ -d /run/systemd/system ] && systemctl --quiet is-active armord; then
	echo "armor: armord runs on as it was; when it is this node's turn: systemctl restart armord"
fi
