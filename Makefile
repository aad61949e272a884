# The commands of this repository. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help run build-tests test test-versions soak kills outages bounded flood schedules bench compose-test fuzz sbom lint clean-data

TARGET := $(or $(CARGO_TARGET_DIR),target)/release

# Settings may be given either way: `PORT=8081 make run` or `make run PORT=8081`.
export LISTEN PORT DATA_DIR SEED_ROWS WORKERS ALLOWED_HOSTS PG

help:
	@echo 'make run         start everything on this machine and export the sample table once; Ctrl-C stops it all'
	@echo '                 PORT=8080 DATA_DIR=.data SEED_ROWS=1000000 WORKERS=1'
	@echo '                 LISTEN=127.0.0.1: 0.0.0.0 or an address of this machine, for others to reach it'
	@echo '                 ALLOWED_HOSTS: names under which they do'
	@echo '                 DATABASE_URL, AMQP_URL, S3_ENDPOINT: use a server of yours for that part'
	@echo 'make test        every test, with servers of its own in throw-away folders'
	@echo '                 PG=18: on that major version of PostgreSQL, from 13 to 18, which is fetched into .tools'
	@echo 'make test-versions  the system tests on PostgreSQL PGS="13 14 15 16 17 18", one after the other'
	@echo 'make build-tests  what make test builds, without running it'
	@echo 'make soak        500 exports on three workers, with a fault a second for three minutes (make test has a shorter one)'
	@echo '                 SOAK_EXPORTS=500 SOAK_SECONDS=180; SOAK_SEED repeats an earlier plan'
	@echo 'make outages     the steps of an export while a server is away for two minutes'
	@echo 'make kills       an export of KILL_ROWS=10000000 while a worker is killed every two seconds (make test has a shorter one)'
	@echo 'make bounded     200 sharded exports at once and 1,000 that are cancelled, while workers are killed: connections on the source,'
	@echo '                 and small exports beside them (make test has a shorter one); BOUNDED_WORKERS=3 BOUNDED_KILL_SECONDS=10'
	@echo 'make flood       FLOOD_RATE=10000 requests a second of one tenant for FLOOD_SECONDS=10, and another tenant beside it (make test'
	@echo '                 has a shorter one)'
	@echo 'make schedules   SEEDS=20000 drawn orders of the calls of the ledger, every invariant checked after each (make test has'
	@echo '                 1000); SEED=7 repeats one'
	@echo 'make bench       time, size and memory of each format at ROWS=10000000 by 1, 2 and 4 workers, and more; as root'
	@echo 'make compose-test  the images and docker-compose.yml on a Docker engine of its own, as root, without pulling an image;'
	@echo '                 ROWS=2000000 WORKERS=3 STORES="localstack minio"; PULL=1: the engine at hand and the real images'
	@echo '                 KEEP=1: engine and images stay in target/compose-test for a next run'
	@echo 'make fuzz        each parser under libFuzzer for SECONDS=60; needs a C++ compiler; FUZZ_TARGETS="token datasets"'
	@echo 'make sbom        what the api and the worker are made of, as CycloneDX, in target/sbom/'
	@echo 'make lint        formatting and clippy'
	@echo 'make clean-data  remove what make run keeps in DATA_DIR'

# `exec`: signals reach the devstack itself, and no shell stands in between.
run:
	@devstack/install
	cargo build --release --package polyglot-api --package polyglot-worker --package polyglot-devstack
	@exec $(TARGET)/devstack run

# Release, so that `make run` and `make test` share one build. The measurements have no tests, and take minutes to build;
# clippy compiles them.
build-tests:
	cargo build --release --workspace --exclude polyglot-bench
	cargo test --release --workspace --exclude polyglot-bench --no-run

test: build-tests
	@devstack/install --tests
	@exec $(TARGET)/devstack with-servers -- cargo test --release --workspace --exclude polyglot-bench --no-fail-fast

# The tests that depend on what PostgreSQL does; the others never speak to one. A version that fails keeps none from the next.
test-versions: PGS ?= 13 14 15 16 17 18
test-versions: build-tests
	@failed=; for version in $(PGS); do echo "== PostgreSQL $$version"; \
		PG=$$version devstack/install --tests && PG=$$version $(TARGET)/devstack with-servers -- \
			cargo test --release --workspace --exclude polyglot-bench --no-fail-fast --test system || failed="$$failed $$version"; \
	done; if [ -n "$$failed" ]; then echo "failed on PostgreSQL$$failed" >&2; exit 1; fi

# `export`: make's own assignment would not reach the test.
soak: export SOAK_EXPORTS ?= 500
soak: export SOAK_SECONDS ?= 180
soak: LONG_TEST = crash -- --nocapture soak

kills: export KILL_ROWS ?= 10000000
kills: LONG_TEST = crash -- --nocapture killed

bounded: export BOUNDED_LARGE ?= 200
bounded: export BOUNDED_CANCELLED ?= 1000
bounded: export BOUNDED_WORKERS ?= 3
bounded: export BOUNDED_KILL_SECONDS ?= 10
bounded: export BOUNDED_SMALL_SECONDS ?= 2
bounded: export BOUNDED_LIMIT_SECONDS ?= 3600
bounded: LONG_TEST = system -- --nocapture bounded

flood: export FLOOD_RATE ?= 10000
flood: export FLOOD_SECONDS ?= 10
flood: export FLOOD_P99_MILLISECONDS ?= 100
flood: LONG_TEST = system -- --nocapture flood

schedules: export SEEDS ?= 20000
schedules: export SEED ?=
schedules: LONG_TEST = system -- --nocapture schedules

outages: export CRASH_LONG = 1
outages: export CRASH_CELLS = 120 s/
outages: LONG_TEST = crash -- --nocapture crash_matrix

soak kills outages bounded flood schedules: build-tests
	@devstack/install --tests
	@exec $(TARGET)/devstack with-servers -- cargo test --release --workspace --exclude polyglot-bench --test $(LONG_TEST)

# Not part of the tests: on a shared machine only ratios within one run mean something.
bench:
	@devstack/install --tests
	cargo build --release --workspace
	$(TARGET)/polyglot-bench
	@$(TARGET)/devstack with-servers -- bench/exports
	@$(TARGET)/devstack with-servers -- bench/scale
	@$(TARGET)/devstack with-servers -- bench/ledger
	@$(TARGET)/devstack with-servers -- bench/small
	@$(TARGET)/devstack with-servers -- bench/compare
	cargo bench --workspace --bench rows

compose-test:
	@devstack/compose-test

# The wrapper adds coverage to our own crates alone; everything else is the ordinary build.
SECONDS := 60
FUZZ_TARGETS := decode submission cursor token key-set datasets
fuzz:
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/with-coverage cargo build --release --workspace --exclude polyglot-bench --features polyglot-fuzz/libfuzzer --bin fuzz
	@for target in $(FUZZ_TARGETS); do mkdir -p target/fuzz-corpus/$$target; echo "== $$target"; \
		FUZZ_TARGET=$$target $(TARGET)/fuzz -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 \
			-artifact_prefix=target/fuzz-corpus/$$target- target/fuzz-corpus/$$target $$(find fuzz/seeds -name $$target) || exit 1; done

# The tool writes a file beside the manifest of each crate of the workspace; those of the two that are shipped are kept.
CYCLONEDX := .tools/cyclonedx/bin/cargo-cyclonedx
sbom:
	@test -x $(CYCLONEDX) || cargo install --quiet --locked --root .tools/cyclonedx cargo-cyclonedx@0.5.9
	$(CYCLONEDX) cyclonedx --format json --spec-version 1.5 --override-filename sbom.cdx
	@mkdir -p target/sbom
	@for name in api worker; do mv $$name/sbom.cdx.json target/sbom/polyglot-$$name.cdx.json; done
	@find . -path ./target -prune -o -name sbom.cdx.json -exec rm {} +
	@ls -l target/sbom

lint:
	cargo fmt --check
	cargo clippy --workspace --all-targets --release -- -D warnings

clean-data:
	cargo build --release --package polyglot-devstack
	@exec $(TARGET)/devstack clean
