//! Avro, Protobuf and JSON at topics: with a real schema registry, without one, through kills.

mod killed; // A job with Avro topics is killed again and again: its results stay exact.
mod registry; // Written and read by way of a real registry; it is down at the start, and in the middle.
mod server; // The registry, and a gate in front of it that can be shut.
mod support; // Values and topics.
