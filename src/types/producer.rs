//! The identity of a producer, and the sequence numbers that make it idempotent.

use std::fmt;

/// The number that the coordinator gave a producer; `-1` means "none".
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// The producer id of a batch that is neither idempotent nor transactional.
    pub const NONE: Self = Self(-1);

    /// Whether this is a real producer id.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.0 >= 0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The generation of a producer id; a higher one fences every lower one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ProducerEpoch(pub i16);

impl ProducerEpoch {
    /// No epoch.
    pub const NONE: Self = Self(-1);
    /// The first epoch of a producer id.
    pub const ZERO: Self = Self(0);
    /// The last epoch that a producer may be given (Kafka reserves 32,767 for the coordinator's own fence).
    pub const MAX_USABLE: Self = Self(i16::MAX - 1);
    /// The coordinator's fencing epoch of an exhausted producer id.
    pub const FENCE: Self = Self(i16::MAX);
}

impl fmt::Display for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A producer id with its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct ProducerIdentity {
    /// The id.
    pub id: ProducerId,
    /// The epoch.
    pub epoch: ProducerEpoch,
}

/// The number of a record within a producer's stream to one partition. It wraps from
/// 2,147,483,647 to 0 (Kafka, `DefaultRecordBatch.incrementSequence`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Sequence(pub i32);

impl Sequence {
    /// No sequence: control batches, and batches of plain producers.
    pub const NONE: Self = Self(-1);
    /// The first sequence of a producer epoch.
    pub const ZERO: Self = Self(0);

    /// The sequence `count` records later. `count` must not be negative.
    #[must_use]
    pub fn plus(self, count: i32) -> Self {
        debug_assert!(count >= 0, "a sequence only moves forward");
        let sum = i64::from(self.0) + i64::from(count);
        // 2^31 sequences in all, so the sum of two is below 2^32 and wraps once at most.
        Self(i32::try_from(sum % (1 << 31)).unwrap_or(0))
    }
}

/// Effect of a transaction's end on its producer's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EpochAtEnd {
    /// It goes up by one (KIP-890): a late request of the transaction shows itself.
    #[default]
    Bumped,
    /// It stays: the rule for clients that cannot learn a new one (EndTxn before version 5).
    Kept,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_wraps_to_zero_after_the_largest() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 2).plus(5), Sequence(2));
        assert_eq!(Sequence(7).plus(0), Sequence(7));
    }
}
