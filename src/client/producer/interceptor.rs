//! `ProducerInterceptor`: sees every record before it is encoded, and every acknowledgement.

use super::{ProducerRecord, RecordMetadata};
use crate::client::ClientError;
use crate::codec::Datum;

/// Called in the order in which interceptors were added. A panic in it reaches the caller of `send`.
pub trait ProducerInterceptor<K: ?Sized + Datum, V: ?Sized + Datum>: Send + Sync + 'static {
    /// May change the record: its topic, partition, timestamp, key, value, headers.
    fn on_send(&self, record: &mut ProducerRecord<'_, K, V>) {
        let _ = record;
    }

    /// Told of every record's fate, on the producer's thread: it must be quick and must not block.
    fn on_acknowledgement(&self, outcome: &Result<RecordMetadata, ClientError>) {
        let _ = outcome;
    }
}
