# What there is to do, each by one command. `make` alone lists it.
CARGO ?= cargo
CRD := crds/tiktokshopintegrations.tiktokshop.dev.yaml

.DEFAULT_GOAL := help
.PHONY: help assets build demo test bench bench-quick faults faults-selftest fuzz lint generate check-generated contract-table clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-16s %s\n", $$1, $$2}'

assets: ## Have etcd, kube-apiserver and kubectl (built once, 5 minutes); prints their folder last
	@tests/control-plane/assets.sh

build: ## Build the operator, optimized
	$(CARGO) build --release

demo: assets ## See the operator at work on a real API server, from nothing
	@$(CARGO) build --release --bin tiktok-shop-operator --example tiktok-shop-simulator --example demo
	@$(CARGO) run --release --quiet --example demo

# More threads than cores: the tests of the operator mostly wait for it.
test: export RUST_TEST_THREADS ?= 4
test: assets ## Run all tests: units, documentation, test kit, and the operator against a real API server
	$(CARGO) test --workspace --no-fail-fast

# The operator is built by itself: together with the example it would get features that only tests want.
BENCH_BUILD = $(CARGO) build --release --bin tiktok-shop-operator && \
	$(CARGO) build --release --example scale --example tiktok-shop-simulator

bench: assets ## Measure the operator at scale, beside the raw limit (2 hours; BENCH="--only memory --json FILE")
	@$(BENCH_BUILD)
	@target/release/examples/scale $(BENCH)

bench-quick: assets ## A small slice of the benchmark (3 minutes)
	@$(BENCH_BUILD)
	@target/release/examples/scale --quick $(BENCH)

# What is found goes to fuzz/found/, and not into the corpus in the tree.
FUZZ_RUNS ?= 1000000
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz: ## Look for inputs that break a promise, FUZZ_RUNS=1000000 for each target, one after another
	@for target in $(FUZZ_TARGETS); do \
	mkdir -p fuzz/found/$$target && \
	$(CARGO) fuzz run --sanitizer none $$target fuzz/found/$$target fuzz/corpus/$$target -- -runs=$(FUZZ_RUNS) || exit 1; \
	done

faults: assets ## Inject a thousand faults: no token is lost, none spent twice (6 minutes; FAULTS="--seed 7")
	$(CARGO) test --test faults -- --full $(FAULTS)

faults-selftest: assets ## Show that the fault suite catches each of the defects in tests/faults/defects (30 minutes)
	@tests/faults/selftest.sh

lint: ## Check format, lints, documentation and licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	@for patch in tests/faults/defects/*.patch; do \
	git apply --check "$$patch" || { echo "$$patch does not fit the code any more: seed its defect anew"; exit 1; }; done
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check bans licenses sources; \
	else echo "cargo-deny is not installed: licences are not checked (cargo install cargo-deny --locked)"; fi

generate: ## Write the CRD anew
	@$(CARGO) run --quiet -- crd > $(CRD).new && mv $(CRD).new $(CRD) || { rm -f $(CRD).new; exit 1; }

check-generated: ## Check that the CRD in the tree is the one that the code prints
	@$(CARGO) run --quiet -- crd | diff -u $(CRD) - || { echo "crds/ is out of date: run 'make generate'"; exit 1; }

contract-table: ## Print which test asserts which item of the contract; fails on an empty cell
	@$(CARGO) run --quiet --example contract-table

clean: ## Remove what was built in the tree
	$(CARGO) clean
