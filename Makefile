# Gemel. `make` alone lists the targets.

CARGO ?= cargo
BIN ?= target/release
.DEFAULT_GOAL := help

.PHONY: help run build install test check fmt lint doc e2e conformance compliance pdu fuzz sim sim-bugs links bench bench-idle bench-scale bench-link soak-link compare compare-mirror ratchet setup

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build, start a mirrored pair on this machine, print the LUN's URL and live status (Ctrl-C ends it)
	@tests/scripts/run.sh

build: ## Build the programs for use: target/release/gemeld, gemel, gemel-perf
	$(CARGO) build --release -p daemon -p ctl -p perf

install: ## Put what was built (BIN=target/release), the systemd units and Pacemaker's agent under DESTDIR
	install -D -m 755 -t $(DESTDIR)/usr/bin $(BIN)/gemeld $(BIN)/gemel $(BIN)/gemel-perf
	install -D -m 644 -t $(DESTDIR)/usr/lib/systemd/system tools/systemd/gemeld.service tools/systemd/gemeld@.service
	install -D -m 755 tools/cluster/gemel $(DESTDIR)/usr/lib/ocf/resource.d/gemel/gemel

test: setup fmt lint doc ## Everything that CI runs
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace

check: ## Type-check everything
	$(CARGO) check --workspace --all-targets

fmt: ## Check the formatting
	$(CARGO) fmt --all -- --check

lint: ## Clippy, warnings are errors
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc: ## Build the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

sim: ## Two nodes on simulated clocks, disks and links: SEEDS=10000 seeds from SEED=1; SEED alone tells one run
	@if [ -n "$(SEED)" ] && [ -z "$(SEEDS)" ]; then $(CARGO) run --release -p tests --bin sim -- --first $(SEED) --tell; \
	else $(CARGO) run --release -p tests --bin sim -- --first $(or $(SEED),1) --seeds $(or $(SEEDS),10000); fi

sim-bugs: ## Break each rule of the mirror in turn, and count the simulator's seeds until it is seen (SEEDS=1000 at the most)
	$(CARGO) run -p tests --bin sim --features mutations -- --mutations --seeds $(or $(SEEDS),1000)

links: ## The parts on simulated links and disks: sessions, import and export, the mirror's pair
	$(CARGO) test -p iscsi --test pair
	$(CARGO) test -p gateway --test loop --test ways
	GEMEL_SEEDS=$${SEEDS:-200} GEMEL_SEED=$${SEED:-1} $(CARGO) test -p gateway --test smoltcp
	GEMEL_DEEP=1 $(CARGO) test -p mirror --test model
	GEMEL_SEEDS=$${SEEDS:-200} GEMEL_SEED=$${SEED:-1} $(CARGO) test -p mirror --test pair

conformance: setup ## libiscsi's suite against a LUN: make conformance URL=iscsi://... [URL2=...]
	@$(CARGO) run -q -p tests --bin conformance -- "$(URL)" "$(URL2)"

compliance: ## RFC 7143 and 7144: each requirement with the code that cites it and its tests
	@$(CARGO) run -q -p tests --bin compliance

pdu: ## The suite at PDU level against a LUN that may be overwritten: make pdu URL=iscsi://... [SUITE=chap or disorder] [CASE=part of a name]
	@$(CARGO) run -q -p tests --bin pdu -- "$(URL)" $(SUITE:%=--%) $(CASE)

fuzz: ## The fuzz targets under libFuzzer: TARGET=name or all, CPU=600 seconds each
	@tests/scripts/fuzz.sh $(or $(CPU),600) $(TARGET)

e2e: setup ## Tests with real processes and real initiators
	$(CARGO) build --workspace --bins
	$(CARGO) test -p tests --test e2e

bench: ## 4 KiB commands against a RAM disk, compared with the stored run as ratios, and what moved: ROUNDS=5 SECONDS_EACH=2, WRITE=1 stores this run
	$(CARGO) build --release -p daemon -p ctl -p perf
	@perf/compare/bench.py --rounds $(or $(ROUNDS),5) --seconds $(or $(SECONDS_EACH),2) $(if $(WRITE),--write)

bench-idle: ## What a node costs asleep, with more reactors than cores, and beside a hog: ROUNDS=3 SECONDS_EACH=2
	$(CARGO) build --release -p daemon -p ctl -p perf
	@perf/compare/idle.py --readme --rounds $(or $(ROUNDS),3) --seconds $(or $(SECONDS_EACH),2)

bench-scale: ## Memory and set-up time of up to 1,000 sessions, 256 LUNs and 64 arrays, and of a start
	$(CARGO) build --release -p daemon -p ctl -p perf
	@perf/compare/scale.py --readme

bench-link: ## Mirrored writes and resync over the dedicated NIC against kernel TCP, interleaved (root): ROUNDS=5 SECONDS_EACH=4
	$(CARGO) build --release -p daemon -p ctl -p perf
	@perf/replication.sh $(or $(ROUNDS),5) $(or $(SECONDS_EACH),4)

soak-link: setup ## Move SIZE=20G of verified data each way between the dedicated NIC's TCP and kernel sockets, with digests: tgt, libiscsi (root)
	$(CARGO) build --release -p daemon -p ctl -p perf
	@perf/soak-link.sh $(or $(SIZE),20G)

compare: setup ## This target against tgt and URLs (TARGETS="spdk=iscsi://..."), in turns, with raw bounds; writes perf/results/compare.json and README's table: ROUNDS=5 SECONDS_EACH=2
	$(CARGO) build --release -p daemon -p ctl -p perf
	@perf/compare/run.py --readme --rounds $(or $(ROUNDS),5) --seconds $(or $(SECONDS_EACH),2) $(TARGETS:%=--target %)

compare-mirror: ## What mirroring costs beside the machine's own bounds: writes, intent log, resync; writes perf/results/mirror.json and README's table: ROUNDS=5 SECONDS_EACH=2
	$(CARGO) build --release -p daemon -p ctl -p perf
	@perf/compare/mirror.py --readme --rounds $(or $(ROUNDS),5) --seconds $(or $(SECONDS_EACH),2)

ratchet: setup ## Count the instructions and allocations of a 4 KiB operation under valgrind, and write perf/ratchet.txt, which `make test` holds them against
	$(CARGO) build -p perf --bin gemel-ratchet
	$(CARGO) build --release -p perf --bin gemel-ratchet
	@target/debug/gemel-ratchet write perf/ratchet.txt
	@target/release/gemel-ratchet write perf/ratchet.txt

setup: ## Install what the tests need, or say what is missing
	@tests/scripts/setup.sh
