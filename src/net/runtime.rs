//! `OwnRuntime`: threads of tokio for sockets and timers, which may be let go of anywhere.

use std::ops::Deref;

use tokio::runtime::Runtime;

/// A runtime whose drop does not wait. Tokio's own waits, and so panics inside another runtime: the reason for which
/// something that was half made is dropped would never reach its user (X20).
pub(crate) struct OwnRuntime(Option<Runtime>);

impl From<Runtime> for OwnRuntime {
    fn from(runtime: Runtime) -> Self {
        Self(Some(runtime))
    }
}

impl Deref for OwnRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        let Some(runtime) = &self.0 else {
            unreachable!("it is there until the drop")
        };
        runtime
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
