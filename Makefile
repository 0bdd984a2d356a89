# One command each; every one sets up what is missing first. `make help` lists them.

# Compiled dependencies (RocksDB among them) are kept outside the tree, so that every clone shares them.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/onceflow/target
# A login shell puts rustup's directory on the path; a bare one may not.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Texts for the demo, e.g. `make demo FILES="moby-dick.txt ulysses.txt"`.
FILES ?=
# What to measure; `restart` is there too, but takes minutes and 40 GiB of disk.
BENCH ?= word-count log commit latency state
# Brokers of `make kafka-up`: 1 or 3.
BROKERS ?= 1

.PHONY: help setup demo test bench check kafka-up kafka-down

help:
	@echo "make demo    word count on real text, its process killed three times (FILES=\"a.txt b.txt\")"
	@echo "make test    every test"
	@echo "make bench   every figure, with the baseline of the same run (BENCH=log for one)"
	@echo "make check   format, lints, documentation"
	@echo "make kafka-up, kafka-down   an Apache Kafka on 127.0.0.1:9092 to try things on (BROKERS=3 for three)"
	@echo "make setup   install what is missing to build"

setup:
	@scripts/setup

demo: setup
	cargo build --release --features cli --bin onceflow
	@"$$CARGO_TARGET_DIR/release/onceflow" demo $(FILES)

test: setup
	cargo test --features cli

bench: setup
	cargo build --release --features cli --bin onceflow
	@"$$CARGO_TARGET_DIR/release/onceflow" bench $(BENCH)

check: setup
	cargo fmt --check
	cargo clippy --all-targets --features cli -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features cli

kafka-up:
	@scripts/kafka up --brokers $(BROKERS)

kafka-down:
	@scripts/kafka down
