//! Software that nobody here wrote judges what we write and answer.

mod clients; // The foreign clients, each behind the same command line.
mod cluster; // The real Kafka that other tests stand on: starts, dies, comes back.
mod dump; // Kafka's dump tool reads our directories.
mod matrix; // Every writer × reader × codec × commit and abort.
#[cfg(feature = "cli")]
mod own_suites; // Clients' own integration tests.
#[cfg(feature = "cli")]
mod restarts; // A producer that outlives the broker, ours and a real Kafka.
