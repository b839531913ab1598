# One door to every chore. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test test-long check bench bench-peers deps deps-peers fuzz clean-data

CARGO ?= cargo
PY := target/py
DATA ?= ./data

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/' | expand -t 14

run: ## build and serve the embedded archive, ready to receive (data in ./data)
	@tools/install-deps build
	$(CARGO) build --release --locked -p cairn
	exec target/release/cairn serve --data $(DATA)

test: deps ## install what is needed, then every test, with the minutes of each layer
	tools/test

test-long: deps ## many rounds of each fault, more seeds, longer outages, fuzzing
	tools/test --long

check: ## formatting, lints, layers, schema guard: under a minute when warm
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	tools/layer-check
	$(CARGO) test --locked --quiet -p cairn-archive --test schemas

deps: ## packages and Python modules that the tests use
	@tools/install-deps test

deps-peers: deps ## Orthanc beside it, for bench-peers
	@tools/install-deps peers

bench: ## benchmarks of this archive (figures for RESULTS.md)
	$(CARGO) build --release --locked -p cairn -p cairn-benches
	target/release/cairn-benches

bench-peers: deps-peers ## the same with Orthanc in the same run
	$(CARGO) build --release --locked -p cairn -p cairn-benches
	target/release/cairn-benches --peers

fuzz: ## run every fuzz target for FUZZ_SECONDS (default 60) each
	tools/fuzz
