//! Threads.

use std::io;

/// A thread that was started; dropping it detaches the thread.
pub trait JoinHandle: Send {
    /// Waits for the thread's end; `Err` holds the message of its panic.
    ///
    /// # Errors
    /// If the thread panicked.
    fn join(self: Box<Self>) -> Result<(), String>;
}

/// Starts threads.
pub trait Spawn: Send + Sync + 'static {
    /// Starts a thread called `name` (the operating system shows the first 15 bytes).
    ///
    /// # Errors
    /// If the operating system refuses another thread.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn JoinHandle>>;

    /// Whether there are threads at all; without them the work is done in turns by one caller.
    fn has_threads(&self) -> bool {
        true
    }

    /// Returns the threads that can run at once here; at least 1.
    fn parallelism(&self) -> usize;
}
