#!/usr/bin/env bash
# Makes the Debian package of bin/armord and bin/armorctl, in bin/deb, by nfpm (pinned in
# tools/go.mod). Its version is the tag's, or for what has none of its own the commit's,
# which is older than any release.
#
#   tools/deb.sh VERSION      git describe's, as the binaries say it
set -euo pipefail
cd "$(dirname "$0")/.."
described=$1
version=0~git$(TZ=UTC git show -s --date=format-local:%Y%m%d.%H%M%S --format=%cd HEAD).$1
if [[ "$described" =~ ^v?([0-9]+\.[0-9].*)$ ]]; then
	version=$(sed -E 's/-([0-9]+-g[0-9a-f]+)/+\1/; s/-(alpha|beta|rc)/~\1/; s/-/./g' <<<"${BASH_REMATCH[1]}")
fi
version=${version//-/.}
SOURCE_DATE_EPOCH=$(git show -s --format=%ct HEAD)
ARCH=$(go env GOARCH)
export VERSION=$version ARCH SOURCE_DATE_EPOCH
rm -rf bin/deb
mkdir -p bin/deb/man
for program in armord armorctl; do "bin/$program" completion bash >"bin/deb/$program.bash"; done
ARMOR_MAN=$PWD/bin/deb/man go test -count=1 -run 'HasAManPage$' ./cmd/armord ./cmd/armorctl >/dev/null
for section in 1 8; do
	mkdir "bin/deb/man$section"
	gzip --best --no-name bin/deb/man/*."$section"
	mv bin/deb/man/*."$section.gz" "bin/deb/man$section"
done
rmdir bin/deb/man
go tool -modfile=tools/go.mod nfpm package --config deploy/debian/nfpm.yaml --packager deb --target bin/deb
