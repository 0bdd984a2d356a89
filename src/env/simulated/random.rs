//! Random numbers that repeat from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::Random;

/// The odd constant by which SplitMix64 walks.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64: small, fast, and good enough to choose faults.
pub(super) struct SimulatedRandom {
    state: AtomicU64,
}

impl SimulatedRandom {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }
}

impl Random for SimulatedRandom {
    fn next_u64(&self) -> u64 {
        mix(self
            .state
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP))
    }
}

/// Scatters a number over all 64 bits; equal inputs give equal outputs.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
