#!/bin/sh
# Makes this machine able to build, run and test Bullwark.
#
#   sh scripts/setup.sh [tests]
#
# Installs what is missing and nothing else: a C compiler and linker, Redis (or Valkey) 6.2 or
# newer, PostgreSQL 14 or newer; with `tests` also Node with npm and Python with venv, which the
# tests with other BullMQ clients run on, and libfaketime, for processes with a wrong clock. Only the programs are needed. Bullwark starts servers of
# its own, on private ports and directories, and never talks to those that a package may have
# started.
#
# Safe to repeat; looks at a few files and ends at once when nothing is missing.
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }
stop() {
  say "$@"
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

with_tests=${1:-}

has_redis() { has redis-server || has valkey-server; }

# The same places where `src/stores/programs.rs` looks.
has_postgres() {
  if has initdb && has postgres; then return 0; fi
  for bin in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin /home/linuxbrew/.linuxbrew/opt/postgresql*/bin \
    /Applications/Postgres.app/Contents/Versions/*/bin; do
    if [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ]; then return 0; fi
  done
  return 1
}

has_node() { has node && has npm; }

# Debian splits venv from Python itself.
has_python() {
  has python3 && python3 -c 'import ensurepip, sys, venv
sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# The same places where `tests/interop/clocks.rs` looks.
has_faketime() {
  for lib in /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1 \
    /usr/lib64/faketime/libfaketime.so.1 /opt/homebrew/lib/faketime/libfaketime.1.dylib \
    /usr/local/lib/faketime/libfaketime.1.dylib; do
    if [ -e "$lib" ]; then return 0; fi
  done
  return 1
}

# One word for each thing that is missing.
missing() {
  has cc || echo compiler
  has_redis || echo redis
  has_postgres || echo postgres
  [ "$with_tests" = tests ] || return 0
  has_node || echo node
  has_python || echo python
  has_faketime || echo faketime
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    stop "run this as root, or install sudo: $*"
  fi
}

install_with_apt() {
  packages=
  for thing in $1; do
    case $thing in
      compiler) packages="$packages build-essential" ;;
      redis) packages="$packages redis-server" ;;
      postgres) packages="$packages postgresql" ;;
      node)
        has node || packages="$packages nodejs"
        has npm || packages="$packages npm"
        ;;
      python) packages="$packages python3 python3-venv" ;;
      faketime) packages="$packages libfaketime" ;;
    esac
  done
  say "installing$packages"
  as_root apt-get update -q
  # One word per package is what is wanted here.
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends $packages
}

install_with_brew() {
  for thing in $1; do
    case $thing in
      compiler) stop "a C compiler is missing; run: xcode-select --install" ;;
      redis) brew install redis ;;
      postgres) brew install postgresql@17 ;;
      node) brew install node ;;
      python) brew install python ;;
      faketime) brew install libfaketime ;;
    esac
  done
}

# make adds this directory, too: a shell opened before rustup ran does not have it.
PATH="$PATH:${HOME:-/nonexistent}/.cargo/bin"
if ! has cargo; then
  say "the Rust toolchain is missing; install it and run make again:"
  stop "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
fi

lacking=$(missing)
[ -n "$lacking" ] || exit 0

if has apt-get; then
  install_with_apt "$lacking"
elif has brew; then
  install_with_brew "$lacking"
else
  say "missing: $(echo "$lacking" | tr '\n' ' ')"
  say "install with your package manager: a C compiler, Redis (or Valkey) 6.2+, PostgreSQL 14+,"
  stop "and for the tests Node 18+ with npm, Python 3.11+ with venv, and libfaketime"
fi

lacking=$(missing)
[ -z "$lacking" ] || stop "still missing after the installation: $(echo "$lacking" | tr '\n' ' ')"
say "everything needed is there"
