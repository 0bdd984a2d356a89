//! Who may do what: users with their SCRAM credentials, and access rules (ACLs).
//!
//! Both are kept in one sealed file of the data directory, `security.json`, so that a user can be made before the
//! broker first starts, and by another process while it runs: a change is seen within a second ([`Security::refresh`]).
//! Reading the rules is a snapshot without a lock on the way of a request; deciding is pure (`rules.rs`).
//! Knows nothing of connections.
//!
//! Reading order: `principal.rs`, `rules.rs` (the decision), `filter.rs`, `store.rs` (the file).

mod filter;
mod principal;
mod rules;
mod store;
#[cfg(test)]
mod tests;

pub use filter::{AclFilter, NameFilter};
pub use principal::Principal;
pub use rules::{
    Acl, Decision, Operation, Pattern, PatternKind, Permission, Resource, ResourceKind, Rules,
};
pub use store::{Security, UserCredential};

pub(in crate::server) use store::Snapshot;
