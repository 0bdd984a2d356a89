//! `Session`: one connection as the answers to its requests see it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::budget::Budget;
use super::security::{Decision, Operation, Principal, Resource, ResourceKind, Security};
use crate::net::Address;

/// Refusals of one connection that are reported one by one; then only each time that their number has doubled.
const REFUSALS_REPORTED: u64 = 16;

/// One connection: who it is, and what it may do.
pub(super) struct Session {
    id: u64,
    principal: Principal,
    peer: SocketAddr,
    advertised: Address,
    security: Security,
    budget: Arc<Budget>,
    refusals_count: AtomicU64,
}

impl Session {
    pub(super) fn new(
        id: u64,
        principal: Principal,
        peer: SocketAddr,
        advertised: Address,
        security: Security,
        budget: Arc<Budget>,
    ) -> Self {
        Self {
            id,
            principal,
            peer,
            advertised,
            security,
            budget,
            refusals_count: AtomicU64::new(0),
        }
    }

    /// The same connection after a login.
    pub(super) fn logged_in(&self, principal: Principal) -> Self {
        Self {
            principal,
            advertised: self.advertised.clone(),
            security: self.security.clone(),
            budget: Arc::clone(&self.budget),
            refusals_count: AtomicU64::new(0),
            ..*self
        }
    }

    /// The connection's number, never used twice by one server.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// In whose name it acts.
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// From where.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Where clients are told to connect to: what this one reached us by, unless the settings name something else.
    pub(super) fn advertised(&self) -> &Address {
        &self.advertised
    }

    /// Users and rules.
    pub(super) fn security(&self) -> &Security {
        &self.security
    }

    /// Whether it may do `operation` on `resource`. A refusal is reported.
    pub(super) fn is_allowed(&self, operation: Operation, resource: Resource<'_>) -> bool {
        let decision = self.would_be(operation, resource);
        if decision == Decision::Denied {
            self.report(operation, resource.kind(), resource.name());
        }
        decision == Decision::Allowed
    }

    /// As [`Session::is_allowed`], without a report: for lists, which leave out what the client must not see.
    pub(super) fn may_see(&self, resource: Resource<'_>) -> bool {
        self.would_be(Operation::Describe, resource) == Decision::Allowed
    }

    /// Whether it may do `operation` on `resource`, without a report: for those who ask what they may do.
    pub(super) fn may(&self, operation: Operation, resource: Resource<'_>) -> bool {
        self.would_be(operation, resource) == Decision::Allowed
    }

    /// Whether no rule limits it.
    pub(super) fn may_see_everything(&self) -> bool {
        let rules = &self.security.snapshot().rules;
        rules.is_unlimited(&self.principal)
    }

    /// Whether it may take a producer id without a transactional id: by right of its own, or because it may write somewhere.
    pub(super) fn may_write_idempotently(&self) -> bool {
        let rules = &self.security.snapshot().rules;
        let from = self.peer.ip();
        let somewhere =
            rules.authorize_any(&self.principal, from, Operation::Write, ResourceKind::Topic);
        somewhere == Decision::Allowed
            || self.is_allowed(Operation::IdempotentWrite, Resource::Cluster)
    }

    /// Returns the bytes of records in memory for a fetch that asks for `asked`: less when much waits for slow readers.
    pub(super) fn fetch_bytes_max(&self, asked: usize) -> usize {
        asked.min(self.budget.fetch_bytes_max())
    }

    fn would_be(&self, operation: Operation, resource: Resource<'_>) -> Decision {
        let rules = &self.security.snapshot().rules;
        rules.authorize(&self.principal, self.peer.ip(), operation, resource)
    }

    /// The audit's line.
    fn report(&self, operation: Operation, kind: ResourceKind, name: &str) {
        let count = self.refusals_count.fetch_add(1, Ordering::Relaxed) + 1;
        if count <= REFUSALS_REPORTED || count.is_power_of_two() {
            crate::env::warn!(
                target: "onceflow::audit",
                principal = ?self.principal.name(),
                peer = %self.peer,
                operation = operation.name(),
                resource = kind.name(),
                // `?` escapes what could forge lines.
                name = ?name,
                refusals = count,
                "refused"
            );
        }
    }
}
