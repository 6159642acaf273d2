#!/bin/sh
# A node that is removed ends in an orderly way; one that is upgraded goes on.
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl --quiet disable --now armord
fi
