# One door to every chore. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test test-long check bench deps

CARGO ?= cargo
DATA ?= ./data

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/' | expand -t 14

run: ## build and serve the embedded archive, ready to receive (data in ./data)
	@tools/install-deps build
	$(CARGO) build --release --locked -p cairn
	exec target/release/cairn serve --data $(DATA)

test: deps ## install what is needed, then every test, with the minutes of each layer
	tools/test

test-long: deps ## many rounds of each fault, more seeds
	tools/test --long

check: ## formatting, lints, layers, schema guard: under a minute when warm
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	tools/layer-check
	$(CARGO) test --locked --quiet -p cairn-archive --test schemas

deps: ## packages and Python modules that the tests use
	@tools/install-deps test

bench: ## benchmarks of this archive (figures go to RESULTS.md)
	$(CARGO) bench --locked -p cairn-benches
