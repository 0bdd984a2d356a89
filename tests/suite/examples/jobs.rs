//! The files of `examples/`, as modules.
#![allow(dead_code, reason = "their `main` is for the command line")]

#[path = "../../../examples/cdc_table.rs"]
pub(super) mod cdc_table;
#[path = "../../../examples/click_sessions.rs"]
pub(super) mod click_sessions;
#[path = "../../../examples/clicks_per_minute.rs"]
pub(super) mod clicks_per_minute;
#[path = "../../../examples/dedupe_events.rs"]
pub(super) mod dedupe_events;
#[path = "../../../examples/enrichment.rs"]
pub(super) mod enrichment;
#[path = "../../../examples/fraud.rs"]
pub(super) mod fraud;
#[path = "../../../examples/orders_and_payments.rs"]
pub(super) mod orders_and_payments;
#[path = "../../../examples/sensors.rs"]
pub(super) mod sensors;
#[path = "../../../examples/top_products.rs"]
pub(super) mod top_products;
#[path = "../../../examples/word_count.rs"]
pub(super) mod word_count;
#[path = "../../../examples/word_count_topic.rs"]
pub(super) mod word_count_topic;
