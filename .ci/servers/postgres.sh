#!/usr/bin/env bash
# Makes sure that the server programs of PostgreSQL are on this machine, for tests
# that issue and revoke its roles. Prints the folder that holds initdb, postgres and
# psql. Unlike the other servers it is not below build/: the distribution compiles
# it for its own paths, so its version is the distribution's.
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)

# Debian keeps the server programs off the path, one folder a version.
find_bin() {
	local bin
	for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) $(dirname "$(command -v postgres || echo /)"); do
		if [ -x "$bin/postgres" ] && [ -x "$bin/initdb" ] && [ -x "$bin/psql" ]; then
			echo "$bin"
			return
		fi
	done
	return 1
}

if ! find_bin; then
	mkdir -p "$root/build"
	# One installer at a time: parallel test binaries may all find it missing.
	exec 9>"$root/build/.postgres.lock"
	flock 9
	if ! find_bin >/dev/null; then
		# The package would start a cluster of its own; tests start theirs.
		quiet=/etc/postgresql-common/createcluster.d/sallyport-tests.conf
		if [ "$(id -u)" -eq 0 ]; then
			trap 'rm -f "$quiet"' EXIT
			mkdir -p "${quiet%/*}"
			echo 'create_main_cluster = false' >"$quiet"
		fi
		"$root/.ci/need" postgres
	fi
	find_bin
fi
