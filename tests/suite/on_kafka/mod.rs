//! Jobs on a real Apache Kafka: exactly once through kills of the job and of the broker, and through a bad network.

mod fencing;
mod proxy;
mod scale_out;
mod transactions;
mod word_count;
