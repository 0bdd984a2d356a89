//! The only door to the world: files, clocks, randomness, threads (design D12).
//!
//! Production uses [`Env::real`]; tests use [`simulated`], where every fault of the storage
//! model can be had on demand and every run repeats from its seed. Nothing here knows what is stored.
//!
//! Reading order: this file (the contracts), `real.rs`, `simulated/`; `progress.rs` and `warnings.rs` (what people are told).

mod allocator;
mod block_on;
mod clock;
#[doc(hidden)]
pub mod failpoint;
mod files;
mod libc_calls;
pub(crate) mod progress;
mod random;
mod real;
pub mod simulated;
mod spawn;
#[cfg(test)]
mod tests;
mod warnings;

use std::sync::Arc;

pub use allocator::bound_allocator;
pub(crate) use allocator::release_free_memory;
pub use block_on::block_on;
pub use clock::{Clock, Instant};
pub(crate) use failpoint::failpoint;
pub use files::is_out_of_files;
pub use files::{
    Access, Dir, DirEntry, File, FileIdentity, FileStatus, Files, Lock, LockError, OpenMode,
};
pub use random::Random;
pub use spawn::{JoinHandle, Spawn};
pub(crate) use warnings::heard;
pub(crate) use warnings::{error, warn};

/// Everything that a decision may depend on and that is not its input. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    #[doc(hidden)]
    /// The file system.
    pub files: Arc<dyn Files>,
    #[doc(hidden)]
    /// Monotonic and wall time.
    pub clock: Arc<dyn Clock>,
    #[doc(hidden)]
    /// Random numbers, not for secrets.
    pub random: Arc<dyn Random>,
    #[doc(hidden)]
    /// Threads.
    pub spawn: Arc<dyn Spawn>,
}

impl Env {
    /// The world as it is.
    #[must_use]
    pub fn real() -> Self {
        Self {
            files: Arc::new(real::RealFiles),
            clock: Arc::new(real::RealClock::new()),
            random: Arc::new(real::RealRandom),
            spawn: Arc::new(real::RealSpawn),
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}
