//! Random messages: small, with many empty, null and default values, the same for the same seed.

use bytes::Bytes;

use crate::protocol::wire::RecordBytes;
use crate::types::TopicId;

/// A stream of choices (splitmix64): deterministic, so that a failure can be repeated from its seed.
pub(in crate::protocol::wire) struct Choices(pub(super) u64);

impl Choices {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

pub(in crate::protocol::wire) trait Arbitrary: Sized {
    fn arbitrary(random: &mut Choices) -> Self;
}

macro_rules! arbitrary_numbers {
    ($($type:ty),*) => { $(
        impl Arbitrary for $type {
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
            fn arbitrary(random: &mut Choices) -> Self {
                match random.below(5) {
                    0 => 0,
                    1 => <$type>::MAX,
                    2 => <$type>::MIN,
                    _ => random.next() as $type,
                }
            }
        }
    )* };
}

arbitrary_numbers!(i8, i16, u16, i32, i64);

impl Arbitrary for f64 {
    fn arbitrary(random: &mut Choices) -> Self {
        f64::from(u32::try_from(random.below(1 << 20)).unwrap()) / 7.0
    }
}

impl Arbitrary for bool {
    fn arbitrary(random: &mut Choices) -> Self {
        random.below(2) == 0
    }
}

impl Arbitrary for TopicId {
    fn arbitrary(random: &mut Choices) -> Self {
        Self(u128::from(random.next()) << 64 | u128::from(random.next()))
    }
}

impl Arbitrary for String {
    fn arbitrary(random: &mut Choices) -> Self {
        const LETTERS: [char; 6] = ['a', 'Z', '-', '.', 'ü', '漢'];
        let length = match random.below(20) {
            0 => 200,
            _ => random.below(5),
        };
        (0..length)
            .map(|_| LETTERS[usize::try_from(random.below(6)).unwrap()])
            .collect()
    }
}

impl Arbitrary for Bytes {
    fn arbitrary(random: &mut Choices) -> Self {
        let length = match random.below(20) {
            0 => 5000,
            _ => random.below(30),
        };
        (0..length)
            .map(|_| random.next().to_le_bytes()[0])
            .collect()
    }
}

impl Arbitrary for RecordBytes {
    fn arbitrary(random: &mut Choices) -> Self {
        Self::Here(Arbitrary::arbitrary(random))
    }
}

impl<T: Arbitrary> Arbitrary for Option<T> {
    fn arbitrary(random: &mut Choices) -> Self {
        (random.below(3) > 0).then(|| T::arbitrary(random))
    }
}

impl<T: Arbitrary> Arbitrary for Vec<T> {
    fn arbitrary(random: &mut Choices) -> Self {
        (0..random.below(4)).map(|_| T::arbitrary(random)).collect()
    }
}
