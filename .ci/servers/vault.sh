#!/usr/bin/env bash
# Builds a real Vault, the program in .ci/servers/vault, into build/vault-<version>,
# for the tests of the broker. Prints the path of the server. Does nothing if it is
# already there; takes some minutes the first time. Needs go.
set -euo pipefail

version=1.21.1
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
source=$root/.ci/servers/vault
target=$root/build/vault-$version
server=$target/vault-server

grep -q "github.com/hashicorp/vault v$version\$" "$source/go.mod" ||
	{ echo "$0 says $version, $source/go.mod something else" >&2; exit 1; }

# The marker names what was built, so that a changed program is built again.
want=$(cd "$source" && cat go.mod go.sum *.go | sha256sum | cut -d' ' -f1)
complete() { [ -x "$server" ] && [ "$(cat "$target/.complete" 2>/dev/null)" = "$want" ]; }

if ! complete; then
	mkdir -p "$target"
	# One builder at a time: parallel test binaries may all find it missing.
	exec 9>"$root/build/.vault.lock"
	flock 9
	if ! complete; then
		echo "building Vault $version, once; this takes some minutes" >&2
		rm -f "$target/.complete"
		# Moved into place, so that a server which runs keeps its program.
		CGO_ENABLED=0 go -C "$source" build -trimpath -buildvcs=false -ldflags='-s -w' -o "$server.new" . >&2
		mv "$server.new" "$server"
		echo "$want" >"$target/.complete"
	fi
fi
echo "$server"
