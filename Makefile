# One door to every chore. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run run-cluster demonstrate-rebuild demo-two-sites test test-long check bench bench-archive bench-cluster bench-peers deps fuzz engines engines-stop

CARGO ?= cargo
DATA ?= ./data
# What run-cluster takes besides: CLUSTER="--each 3 --directory DIR".
CLUSTER ?=

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/' | expand -t 14

run: ## build and serve the embedded archive, ready to receive (data in ./data)
	@tools/install-deps build
	$(CARGO) build --release --locked -p cairn
	exec target/release/cairn serve --data $(DATA)

run-cluster: deps ## engines and two processes of each role on loopback, with the ports of `make run` (data in ./cluster-data)
	$(CARGO) build --release --locked -p cairn --features cluster
	exec tools/run-cluster $(CLUSTER)

demonstrate-rebuild: deps ## a cluster whose index is rebuilt under load by two processes, with the certificate
	$(CARGO) build --release --locked -p cairn --features cluster
	tools/run-cluster --directory target/demonstration --demonstrate-rebuild

# What it takes besides: DEMO="--cut 60 --keep", --rate 50, --down 30.
DEMO ?=
demo-two-sites: deps ## two sites kept in step, a link cut, a site killed, a drill: RPO, RTO, digests, reports
	$(CARGO) build --release --locked -p cairn
	exec target/py/bin/python tools/demo-two-sites $(DEMO)

test: deps ## install what is needed, then every test, with the minutes of each layer
	tools/test

test-long: deps ## many rounds of each fault, more seeds
	tools/test --long

fuzz: ## every parser under coverage guidance, SECONDS=60 each
	tools/fuzz $(or $(SECONDS),60)

check: ## formatting, lints, layers, schema guard: under a minute when warm
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	tools/layer-check
	$(CARGO) test --locked --quiet -p cairn-archive --test schemas

deps: ## packages and Python modules that the tests use
	@tools/install-deps test

engines: deps ## a real Kafka, Cassandra and SeaweedFS on loopback (target/engines), ready when they answer
	tools/engines start

engines-stop: ## stop them; what they hold stays
	tools/engines stop

bench: ## benchmarks of this archive (figures go to RESULTS.md)
	$(CARGO) bench --locked -p cairn-benches

# What the runs below take besides: BENCH="--only c-store,queries", --quick, --studies 1000,1000000, --out FILE.
BENCH ?=
bench-archive: ## the whole archive as a process under load (an hour's quarter; 20 GB of disk for a while)
	$(CARGO) build --release --locked -p cairn -p cairn-benches --bin cairn --bin bench-archive
	target/release/bench-archive $(BENCH)

bench-cluster: deps ## the same with processes over real engines beside it, the engines' processor time apart
	$(CARGO) build --release --locked -p cairn -p cairn-benches --features cairn/cluster,cairn-benches/cluster --bin cairn --bin bench-archive
	export CAIRN_ENGINES_JIT=full CAIRN_ENGINES_DIR=$(CURDIR)/target/bench-engines; trap 'tools/engines wipe' EXIT; tools/engines start && \
	target/release/bench-archive --engines target/bench-engines $(or $(BENCH),--only c-store,stow,freshness,sizes,objects,sites)

bench-peers: ## the same with Orthanc beside it, in the same run
	@tools/install-deps bench
	$(CARGO) build --release --locked -p cairn -p cairn-benches --bin cairn --bin bench-archive
	target/release/bench-archive --peers $(BENCH)
