//! Connections with scripted answers: order, overlap, what a hang-up discards, logins, limits.

mod connections;
mod logins;
mod support;
