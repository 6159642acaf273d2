#!/bin/sh
# Regenerates *.pb.go with Debian's protoc and the plugins pinned in tools/go.mod.
# make generated runs it at the root of the repository.
set -eu
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
for name in protoc-gen-go protoc-gen-go-grpc; do
	printf '#!/bin/sh\nexec go tool -modfile=tools/go.mod %s "$@"\n' "$name" >"$plugins/$name"
	chmod +x "$plugins/$name"
done
PATH="$plugins:$PATH" protoc \
	--go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative \
	armor/wire/words.proto fsm/fsmpb/fsm.proto fsm/fsmpb/saved.proto rpc/armorpb/reports.proto rpc/armorpb/api.proto
