# What there is to do, each by one command. `make` alone lists it.
CARGO ?= cargo
CRD := crds/tiktokshopintegrations.tiktokshop.dev.yaml
REFERENCE := docs/src/reference
CHART := charts/tiktok-shop-operator
HELM = $$(tests/tools/tool.sh helm)
# What the chart grants, as a manifest.
RIGHTS = ( echo "\# Rendered from the chart by 'make generate'; do not edit."; \
	printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: tiktok-shop-operator}\n'; \
	"$(HELM)" template tiktok-shop-operator $(CHART) -n tiktok-shop-operator \
	--show-only templates/serviceaccount.yaml --show-only templates/rbac.yaml )

.DEFAULT_GOAL := help
.PHONY: help assets tools build book image image-test demo test bench bench-quick chart-helm3 faults faults-selftest fuzz lint generate check-generated contract-table clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-16s %s\n", $$1, $$2}'

assets: ## Have etcd, kube-apiserver and kubectl (built once, 5 minutes; K8S=1.33); prints their folder last
	@tests/control-plane/assets.sh

# Helm 3 is tried on request alone.
TOOLS := $(filter-out helm3,$(notdir $(patsubst %/go.mod,%,$(wildcard tests/tools/*/go.mod))))
tools: ## Have the tools of the tests, each pinned in tests/tools (built once, some minutes)
	@for name in $(TOOLS); do tests/tools/tool.sh "$$name" >/dev/null || exit 1; done

build: ## Build the operator, optimized
	$(CARGO) build --release

image: ## Build the image with buildah into target/image (10 minutes the first time; Debian, root; BUILDER=base)
	@image/build.sh

image-test: image assets ## Build the image and run what is in it: names from DNS, TLS, read-only root, user 65532
	@$(CARGO) build --quiet --example tiktok-shop-simulator
	$(CARGO) test --test image -- --ignored

book: ## Build the documentation into target/book (cargo install mdbook --locked)
	@mdbook build docs

demo: assets ## See the operator at work on a real API server, from nothing
	@$(CARGO) build --release --bin tiktok-shop-operator --example tiktok-shop-simulator --example demo
	@$(CARGO) run --release --quiet --example demo

# More threads than cores: the tests of the operator mostly wait for it.
test: export RUST_TEST_THREADS ?= 4
test: assets tools ## Run all tests: units, documentation, test kit, and the operator against a real API server (K8S=1.33)
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

chart-helm3: assets ## Try the chart with Helm 3, too (builds it the first time)
	$(CARGO) test --test chart -- --ignored helm_3

# What is found goes to fuzz/found/, and not into the corpus in the tree.
FUZZ_RUNS ?= 1000000
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz: ## Look for inputs that break a promise, FUZZ_RUNS=1000000 for each target, one after another
	@for target in $(FUZZ_TARGETS); do \
	mkdir -p fuzz/found/$$target && \
	$(CARGO) fuzz run --sanitizer none $$target fuzz/found/$$target fuzz/corpus/$$target -- -runs=$(FUZZ_RUNS) || exit 1; \
	done

faults: assets ## Inject a thousand faults: no token is lost, none spent twice (6 minutes; FAULTS="--seed 7")
	@$(CARGO) build --quiet --example tiktok-shop-simulator
	$(CARGO) test --test faults -- --full $(FAULTS)

faults-selftest: assets ## Show that the fault suite catches each of the defects in tests/faults/defects (30 minutes)
	@tests/faults/selftest.sh

lint: ## Check format, lints, documentation, the chart, workflows and licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	@for patch in tests/faults/defects/*.patch; do \
	git apply --check "$$patch" || { echo "$$patch does not fit the code any more: seed its defect anew"; exit 1; }; done
	@actionlint=$$(tests/tools/tool.sh actionlint) && "$$actionlint" -shellcheck= -pyflakes=
	$(CARGO) test --quiet --test docs pages::
	@if command -v mdbook >/dev/null; then mdbook build docs; \
	else echo "mdbook is not installed: the book is not built (cargo install mdbook --locked)"; fi
	@"$(HELM)" lint --strict --quiet $(CHART)
	@"$$(tests/tools/tool.sh helm-unittest)" --strict $(CHART)
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check bans licenses sources; \
	else echo "cargo-deny is not installed: licences are not checked (cargo install cargo-deny --locked)"; fi

generate: ## Write anew what is made from other files: CRD, the book's reference, the chart's copies and table, docs/rbac.yaml
	@$(CARGO) run --quiet -- crd > $(CRD).new && mv $(CRD).new $(CRD) || { rm -f $(CRD).new; exit 1; }
	@$(CARGO) run --quiet --example reference $(REFERENCE)
	@cp $(CRD) $(CHART)/files/crd.yaml
	@charts/generate.py
	@$(RIGHTS) > docs/rbac.yaml

check-generated: ## Check that what is made from other files is up to date
	@$(CARGO) run --quiet -- crd | diff -u $(CRD) - || { echo "crds/ is out of date: run 'make generate'"; exit 1; }
	@pages=$$(mktemp -d) && trap 'rm -rf "$$pages"' EXIT && \
	$(CARGO) run --quiet --example reference "$$pages" && diff -ru $(REFERENCE) "$$pages" || \
	{ echo "$(REFERENCE) is out of date: run 'make generate'"; exit 1; }
	@diff -u $(CHART)/files/crd.yaml $(CRD) || { echo "the chart's CRD is out of date: run 'make generate'"; exit 1; }
	@charts/generate.py --check
	@$(RIGHTS) | diff -u docs/rbac.yaml - || { echo "docs/rbac.yaml is out of date: run 'make generate'"; exit 1; }

contract-table: ## Print which test asserts which item of the contract; fails on an empty cell
	@$(CARGO) run --quiet --example contract-table

clean: ## Remove what was built in the tree
	$(CARGO) clean
