//! Software that nobody here wrote judges what we write and answer.

mod cluster; // The real Kafka that other tests stand on: starts, dies, comes back.
