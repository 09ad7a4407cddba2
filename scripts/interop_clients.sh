#!/bin/sh
# Installs what `tests/interop` drives: the BullMQ clients, from npm and for Python, and schemathesis,
# which asks the HTTP API; in the versions that the lock files name, below the build directory.
#
# Needs Node with npm, and Python with venv: `sh scripts/setup.sh tests` installs them. Safe to
# repeat; ends at once when the lock files are those of the last installation.
set -eu

cd "$(dirname "$0")/.."
clients=${CARGO_TARGET_DIR:-target}/interop
mkdir -p "$clients"

# The copy of a lock is made last: an installation that was cut short is made again.
is_installed() { cmp -s "$1" "$clients/$2"; }

lock=tests/interop/node/package-lock.json
if ! is_installed "$lock" node.installed; then
  echo "clients: installing the npm packages" >&2
  rm -rf "$clients/node"
  mkdir "$clients/node"
  cp tests/interop/node/package.json tests/interop/node/.npmrc "$lock" "$clients/node/"
  # No package of these needs a script of its own to run.
  (cd "$clients/node" && npm ci --ignore-scripts --no-progress --loglevel=error >&2)
  cp "$lock" "$clients/node.installed"
fi

# Each in an environment of its own, so that neither rules the versions of the other.
for name in python schemathesis; do
  lock=tests/interop/$name/requirements.txt
  if ! is_installed "$lock" "$name.installed"; then
    echo "clients: installing the Python packages of $name" >&2
    rm -rf "${clients:?}/$name"
    python3 -m venv "$clients/$name"
    "$clients/$name/bin/python" -m pip install --quiet --disable-pip-version-check \
      -r "$lock" >&2
    cp "$lock" "$clients/$name.installed"
  fi
done
