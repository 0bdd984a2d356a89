//! Steps of tables: other tables, joins, and streams that look values up in them.

mod broadcast;
mod by_time;
mod derived;
mod extreme;
mod foreign;
mod group;
mod join;
mod lookup;

pub use group::Regrouped;
