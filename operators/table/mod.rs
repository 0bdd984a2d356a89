//! Steps of tables: other tables, joins, and streams that look values up in them.

mod broadcast;
mod by_time;
mod derived;
mod extreme;
mod foreign;
mod group;
mod join;
mod lookup;
mod top;
mod versioned;

pub use group::Regrouped;
