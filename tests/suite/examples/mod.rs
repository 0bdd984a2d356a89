//! The examples, each through a crash test: what their jobs write is right whatever is killed, loses power or fills its disk. Those that
//! read files, which a bed has none of, are run on real ones.

mod cdc_table;
mod click_sessions;
mod dedupe_events;
mod enrichment;
mod files;
mod fraud;
mod jobs;
mod orders_and_payments;
mod sensors;
mod top_products;
mod transfer;
mod word_count_topic;
