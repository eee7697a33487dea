# Every target works from a fresh clone. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help build test bench-operator bench-prefix demo images cluster-bin lint clean

help: ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

build: ## The release binaries: target/release/shoal and target/release/shoal-worker
	cargo build --release -p shoal-operator -p shoal-worker --bins

test: ## Everything: unit tests, worker fleets, a real control plane, a real node
	@tests/all.sh

bench-operator: ## The operator beside a dumb client and LeaderWorkerSet; an hour or less, on both cores
	cargo build --release -p shoal-operator --bins
	tests/benches/operator/lws/build.sh
	cargo test --workspace --bench operator -- --test-threads=1

bench-prefix: ## First tokens of prompts whose beginning is in the cache; a minute or two, on both cores
	cargo build --release -p shoal-worker --bins
	cargo test --workspace --bench prefix

demo: ## One manifest, two worker processes, one streamed answer on this machine
	@sh scripts/demo.sh

images: build ## Container images as docker-archive files in target/images (Debian's buildah, no network)
	@images/build.sh release

cluster-bin: ## The Kubernetes of the tests, from its Go modules, into target/cluster/bin
	@tests/cluster/build.sh

lint: ## Format, clippy, documentation and dependency rules
	@tests/lint.sh

clean: ## Remove everything built
	rm -rf target
