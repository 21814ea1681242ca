# Each target does all of its own set-up. CARGO_TARGET_DIR is respected when set.
.DEFAULT_GOAL := help
.PHONY: help demo test bench setup

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
RESULTS := $(abspath target/bench/results.jsonl)

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## prepare the machine: packages, system user, checks (infra/setup)
	@infra/setup

# The demo runs the binaries of the test profile, so that nothing is compiled twice.
demo: setup ## start everything, tell the story on real data, stay up (DEMO=once: exit at the end)
	$(CARGO) build --locked --workspace --bins
	@exec $(TARGET)/debug/sekisho-demo

# End-to-end tests start the programs of other rooms, which a test run alone would not build. Built
# together with the tests they share their dependencies' features, so that nothing is compiled twice.
test: setup ## every check and every test
	$(CARGO) build --locked --workspace --bins --tests
	$(CARGO) xtask ci

bench: ## measure, print a table, write target/bench/results.jsonl
	@infra/setup --bench
	@mkdir -p $(dir $(RESULTS)) && rm -f $(RESULTS)
	$(CARGO) build --locked --release --workspace --bins --benches
	SEKISHO_BENCH_OUT=$(RESULTS) $(CARGO) bench --locked --workspace --bench '*'
	@infra/bench-table $(RESULTS)
