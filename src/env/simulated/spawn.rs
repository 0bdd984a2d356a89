//! Threads of a simulated world: none, or real ones that know where they belong.

use std::io;

use super::clock::IS_SPAWNED;
use crate::env::real::RealSpawn;
use crate::env::{JoinHandle, Spawn};

/// Refuses every thread, so that the world repeats from its seed.
pub(super) struct NoThreads;

impl Spawn for NoThreads {
    fn spawn(&self, name: &str, _: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn JoinHandle>> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "thread {name}: this simulated world has no threads; run the work on the caller, \
                 or make the world by `SimulatedWorld::with_threads`"
            ),
        ))
    }

    fn has_threads(&self) -> bool {
        false
    }

    /// One: the caller.
    fn parallelism(&self) -> usize {
        1
    }
}

/// Starts real threads. The order in which they meet is the operating system's, not the seed's.
pub(super) struct SimulatedSpawn;

impl Spawn for SimulatedSpawn {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn JoinHandle>> {
        let body = move || {
            IS_SPAWNED.set(true);
            body();
        };
        RealSpawn.spawn(name, Box::new(body))
    }

    /// Two, on every machine.
    fn parallelism(&self) -> usize {
        2
    }
}
