//! Random numbers and texts that depend on a seed only: splitmix64.

/// The letters of random texts.
const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
const TEXT_LENGTH_MIN: u64 = 3;

/// A sequence of numbers that looks random and is the same for the same seed, on every machine.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence of an event, or of whatever has this number.
    pub(super) fn of(seed: u64) -> Self {
        // Neighbouring seeds would give neighbouring sequences.
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but not including, `end`.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the high half of a product fits"
    )]
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// One of `choices`.
    #[allow(clippy::cast_possible_truncation, reason = "an index below the length")]
    pub(super) fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// A number from 0 up to, but not including, 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what a float has")]
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A price in cents, from 1 to a million dollars, such that each power of ten is as likely as the next.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 10^8"
    )]
    pub(super) fn price(&mut self) -> u64 {
        (10f64.powf(self.fraction() * 6.0) * 100.0).round() as u64
    }

    /// A text of so many letters.
    pub(super) fn text(&mut self, length: u64) -> String {
        (0..length)
            .map(|_| char::from(*self.choose(LETTERS)))
            .collect()
    }

    /// A text of 3 to `end - 1` letters, now and then `special` instead of one.
    pub(super) fn text_with(&mut self, end: u64, special: char) -> String {
        let length = TEXT_LENGTH_MIN + self.below(end - TEXT_LENGTH_MIN);
        (0..length)
            .map(|_| match self.below(13) {
                0 => special,
                _ => char::from(*self.choose(LETTERS)),
            })
            .collect()
    }

    /// The filling of an event that has `bytes` already and is to have `bytes_mean` on average, a fifth more or less.
    pub(super) fn filling(&mut self, bytes: u64, bytes_mean: u64) -> String {
        let Some(missing) = bytes_mean.checked_sub(bytes) else {
            return String::new();
        };
        let spread = (missing + 2) / 5;
        let length = missing - spread + self.below((2 * spread).max(1));
        self.text(length)
    }
}
