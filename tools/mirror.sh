#!/bin/sh
# Prints the mirror that this machine's own apt takes its system from.
#
#   tools/mirror.sh
set -eu
. /etc/os-release
apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
	awk -v release="$VERSION_CODENAME" '
		$1 == release && $2 == "main" && !first { first = $3 }
		$1 == release "-updates" && !own { own = $3 } # only the system itself has updates
		END { if (!own) own = first; if (!own) exit 1; print own }' || {
	echo "apt has no source of $VERSION_CODENAME's main packages" >&2
	exit 1
}
