#!/bin/sh
# The data stays, also when the package is purged: it is this node's key and its vote.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if [ "$1" = purge ] && [ -d /var/lib/armor ]; then
	echo "armor: /var/lib/armor and the user armor are still here; after armorctl node remove they may go"
fi
