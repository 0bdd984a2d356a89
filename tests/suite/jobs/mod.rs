//! Jobs end to end, on real directories: what comes out is what a plain program computes, exactly once.

mod bad_batches;
mod changed_input;
mod cycles;
mod event_times;
mod files;
mod graph;
mod input;
mod large;
mod memory;
mod messages;
mod nulls;
mod operators;
mod own_sinks;
mod pace;
mod parallelism;
mod poison;
mod refusals;
mod runtimes;
mod scale_out;
mod state;
mod support;
mod transfers;
mod types;
mod watching;
mod whole;
mod word_count;
