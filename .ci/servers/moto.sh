#!/bin/sh
# Installs moto, which speaks the AWS KMS protocol over HTTP, into
# build/moto-<version>, for the tests of keys/kms/awskms. Prints the path of
# its server. Does nothing if it is already there. Needs python3 with venv.
set -eu

version=5.2.5
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
target=$root/build/moto-$version
server=$target/bin/moto_server

if [ ! -x "$target/.complete" ]; then
    mkdir -p "$root/build"
    # One installer at a time: parallel test binaries may all find it missing.
    exec 9>"$root/build/.moto.lock"
    flock 9
    if [ ! -x "$target/.complete" ]; then
        rm -rf "$target"
        python3 -m venv "$target"
        "$target/bin/pip" install --quiet --disable-pip-version-check \
            --requirement "$root/.ci/servers/moto.txt" >&2
        install -m 0755 /dev/null "$target/.complete"
    fi
fi
echo "$server"
