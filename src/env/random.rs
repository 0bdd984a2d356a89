//! Random numbers.

/// A source of random numbers: ids, jitter, sticky partitions. Not for secrets.
pub trait Random: Send + Sync + 'static {
    /// Sixty-four random bits.
    fn next_u64(&self) -> u64;

    /// A random 128-bit id.
    fn next_u128(&self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }

    /// A number below `bound`, which must not be 0 (multiply-shift; bias below 2^-32 for bounds below 2^32).
    fn below(&self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}
