//! The transaction coordinator against a world that crashes, delays, copies and reorders.
//!
//! Reading order: `world.rs` (what happens), `partition.rs`, `clients.rs`, `actions.rs` (what may happen next), `rules.rs`
//! (what must hold), `fingerprint.rs` (which states are the same), `explorer.rs` (orders, breadth first), `driver.rs`, `scenarios.rs`, `crashes.rs` and `older.rs` (the catalogue's rows).

mod actions;
mod clients;
mod crashes;
mod driver;
mod explorer;
mod fingerprint;
mod older;
mod partition;
mod rules;
mod scenarios;
mod world;
