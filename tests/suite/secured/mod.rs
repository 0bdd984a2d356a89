//! The client towards brokers that ask who it is: TLS, logins and rights, on our own server and on a real Apache Kafka.

mod brokers;
pub(crate) mod certificates;
mod logins;
mod rights;
mod sessions;

use std::time::{Duration, Instant};

/// Long enough for a loaded machine; nothing waits so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
