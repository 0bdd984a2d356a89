//! Jobs on a real Apache Kafka: exactly once through kills of the job and of the broker, and through a bad network.

mod arena;
mod child;
mod deletes;
mod fencing;
mod hanging;
mod kills;
mod letters;
mod missing;
mod older_protocol;
mod proxy;
mod scale_out;
pub(crate) mod stage;
mod topics;
mod transactions;
mod types;
mod work;
