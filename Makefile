# One command each; every one sets up what is missing first. `make help` lists them.

# Compiled dependencies (RocksDB among them) are kept outside the tree, so that every clone shares them.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/onceflow/target
# A login shell puts rustup's directory on the path; a bare one may not.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Texts for the demo, e.g. `make demo FILES="moby-dick.txt ulysses.txt"`.
FILES ?=
# What to measure; `restart` is there too, but takes minutes and 40 GiB of disk.
BENCH ?= word-count log commit latency state
# What `make bench-peers` measures: throughput, light, latency, clients, transactions, word_count; all these if empty. Or nexmark or restart, alone.
PEERS ?=
# Brokers of `make kafka-up`: 1 or 3.
BROKERS ?= 1
# How long `make differential` and `make fuzz` play.
SECONDS ?= 600

.PHONY: help setup demo test differential fuzz book bench check bench-peers kafka-up kafka-down

help:
	@echo "make demo    word count on real text, its process killed three times (FILES=\"a.txt b.txt\")"
	@echo "make test    every test"
	@echo "make differential   random requests to our broker and to Apache Kafka, for ten minutes (SECONDS=n for others)"
	@echo "make fuzz    mutated batches, requests, snapshots and journals, for ten minutes each (SECONDS=n for others)"
	@echo "make book    the documentation as a book, in target/book (mdbook)"
	@echo "make bench   every figure, with the baseline of the same run (BENCH=log for one)"
	@echo "make bench-peers   Kafka's perf tools against Apache Kafka and against us (benches/peers/README.md)"
	@echo "make check   format, lints, documentation, licences and sources of dependencies (cargo deny)"
	@echo "make kafka-up, kafka-down   an Apache Kafka on 127.0.0.1:9092 to try things on (BROKERS=3 for three)"
	@echo "make setup   install what is missing to build"

# The profile that a command compiles: the first build of each compiles RocksDB, and setup says so.
PROFILE := debug
demo bench bench-peers: PROFILE := release

setup:
	@scripts/setup $(PROFILE)

demo: setup
	cargo build --release --features cli --bin onceflow
	@"$$CARGO_TARGET_DIR/release/onceflow" demo $(FILES)

test: setup
	@scripts/test

fuzz: setup
	ONCEFLOW_FUZZ_SECONDS=$(SECONDS) cargo test --features cli --test suite -- fuzz:: --nocapture

book:
	@command -v mdbook >/dev/null || { echo "book: mdbook is missing: 'cargo install mdbook --locked --no-default-features', then run this again" >&2; exit 1; }
	mdbook build docs

differential: setup
	@scripts/peers kafka
	ONCEFLOW_DIFFERENTIAL_SECONDS=$(SECONDS) cargo test --features cli --test suite -- differential:: --include-ignored --nocapture

bench: setup
	cargo build --release --features cli --bin onceflow
	@"$$CARGO_TARGET_DIR/release/onceflow" bench $(BENCH)

bench-peers: setup
	@scripts/peers kafka
	cargo build --release --features cli --bin onceflow --example word_count_topic
	@benches/peers/run $(PEERS)

check: setup
	cargo fmt --check
	cargo clippy --all-targets --features cli,metrics,otel,postgres,file-tables,parquet,object-store,avro,protobuf,registry -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features cli,metrics,otel,postgres,file-tables,parquet,object-store,avro,protobuf,registry
	@command -v cargo-deny >/dev/null || { \
	    echo "check: cargo-deny is missing: 'cargo install cargo-deny --locked' takes some minutes, then run this again" >&2; \
	    exit 1; \
	}
	cargo deny check licenses bans sources

kafka-up:
	@scripts/kafka up --brokers $(BROKERS)

kafka-down:
	@scripts/kafka down
