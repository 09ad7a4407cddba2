# Two commands are enough: `make run` and `make test`. `make help` lists the rest.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run test clients lint format clippy rustdoc features unit bench build

# Where rustup puts cargo; a shell that was opened before its installation lacks it.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Tests wait for servers most of their time: several per core.
export RUST_TEST_THREADS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$(( n > 4 ? n : 4 )))

# Handed to the program: make run ARGS="--http-addr 127.0.0.1:9000"
ARGS ?=

BIN := $(or $(CARGO_TARGET_DIR),target)/release/bullwark

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup build ## Install what is missing, build, and start everything on this machine
	@exec $(BIN) dev $(ARGS)

test: clients format clippy unit ## Install what is missing, then check and test everything
	@echo "make test: everything passed"

lint: format clippy rustdoc features ## Check formatting, lints, documentation and feature sets

bench: setup build ## Measure jobs per second on private servers
	@exec $(BIN) bench $(ARGS)

setup: ## Install Redis, PostgreSQL and a C compiler where they are missing
	@sh scripts/setup.sh

clients: ## Install Node, Python, and the clients that the tests drive
	@sh scripts/setup.sh tests
	@sh scripts/interop_clients.sh

build:
	cargo build --release --locked

format:
	cargo fmt --check

clippy:
	cargo clippy --locked --all-targets -- -D warnings

rustdoc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# The library alone must build too: others depend on it without the server.
features:
	cargo check --locked --no-default-features

unit:
	cargo test --locked
