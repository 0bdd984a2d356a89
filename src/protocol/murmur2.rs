//! The hash by which Kafka's Java client chooses a record's partition from its key.

use crate::types::PartitionIndex;

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The 32-bit murmur2 of `bytes`, equal to the Java client's `Utils.murmur2` bit by bit.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    let (words, tail) = bytes.as_chunks::<4>();
    // The Java client mixes in the length as 32 bits; keys of 4 GiB do not exist.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut hash = words.iter().fold(SEED ^ length, |hash, word| {
        let word = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        let word = (word ^ (word >> SHIFT)).wrapping_mul(MULTIPLIER);
        hash.wrapping_mul(MULTIPLIER) ^ word
    });
    if !tail.is_empty() {
        let last = tail
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u32::from(byte));
        hash = (hash ^ last).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// The partition, of `partitions_count`, that the Java client's default partitioner gives `key`.
///
/// # Panics
/// If `partitions_count` is not positive.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions_count: i32) -> PartitionIndex {
    assert!(partitions_count > 0, "a topic has at least one partition");
    let positive = (murmur2(key) & 0x7fff_ffff).cast_signed();
    positive % partitions_count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_the_java_clients() {
        // Kafka's UtilsTest.testMurmur2.
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_key_has_one_partition_in_range() {
        for count in [1, 2, 7, 64, i32::MAX] {
            for key in ["", "a", "21", "foobar"] {
                assert!((0..count).contains(&partition_for_key(key.as_bytes(), count)));
            }
        }
        // -973_932_308 with its sign bit cleared is 1_173_551_340.
        assert_eq!(partition_for_key(b"21", 100), 40);
    }
}
