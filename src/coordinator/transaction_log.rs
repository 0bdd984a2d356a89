//! The records of `__transaction_state`, in Kafka's schemas with fields of our own that Kafka's readers skip.

use super::CoordinatorError;
use super::transaction::DurableEnd;

/// The durable ends that a decision record carries; empty for every other record.
///
/// # Errors
/// If the record is damaged or of a newer version.
pub fn durable_ends(key: &[u8], value: Option<&[u8]>) -> Result<Vec<DurableEnd>, CoordinatorError> {
    todo!("{key:?} {value:?}")
}
