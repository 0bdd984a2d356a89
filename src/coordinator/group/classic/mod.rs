//! One group of the classic protocol: members join, the leader assigns, all sync.
//!
//! ```text
//!          first join                all joined, or time is up              leader synced, record durable
//!  Empty ───────────► PreparingRebalance ───────────────────► CompletingRebalance ──────────────────► Stable
//!    ▲                    │      ▲                                     │ join, leave, expiry              │
//!    └── no members left ─┘      └─────────────────────────────────────┴──────────────────────────────────┘
//! ```
//! Which members there are is soft, as in Kafka: after a crash they are those of the last durable assignment, and whoever
//! came later joins again. An assignment is given out only once its record is durable (I3), so that a commit checked
//! against member and generation comes from an owner of that assignment or is refused.
//!
//! Reading order: this file, `join.rs`, `rebalance.rs`, `sync.rs`, `leave.rs`, `validate.rs`, `show.rs`.

mod join;
mod leave;
mod rebalance;
mod show;
mod sync;
#[cfg(test)]
mod tests;
mod validate;

pub(super) use leave::nobody_left;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::outbox::{Context, Write};
use crate::coordinator::membership_log::{ClassicMemberRecord, ClassicRecord, classic_key};
use crate::coordinator::{JournalRecord, RequestId};
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{ClientIdentity, JoinGroupProtocol, JoinGroupRequest};
use crate::types::GroupId;

/// A member that never heard the end of its first join is removed after so long (Kafka's NEW_MEMBER_JOIN_TIMEOUT):
/// such clients may have gone while they waited.
const NEW_MEMBER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Where a group stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    /// Members are gathered until `deadline`.
    Preparing {
        deadline: Instant,
        gathering: Gathering,
    },
    /// The leader assigns; whoever has not synced at `deadline` is removed.
    Completing {
        deadline: Instant,
        is_writing: bool,
    },
    /// The assignment stands. `deadline` is that of the members that have not synced yet.
    Stable {
        deadline: Instant,
    },
}

/// When a rebalance ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gathering {
    /// When all members have joined.
    UntilAllJoined,
    /// The first members of an empty group: others are waited for, so that they need not rebalance at once.
    Initial { remaining: Duration, has_new: bool },
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    instance_id: Option<String>,
    client: ClientIdentity,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    protocols: Vec<JoinGroupProtocol>,
    assignment: Bytes,
    /// The join that waits for the end of the rebalance.
    joining: Option<RequestId>,
    /// The sync that waits for the leader's.
    syncing: Option<RequestId>,
    /// Whether its sync of this generation is still to come.
    must_sync: bool,
    /// When it is removed; `None` while it waits for an answer.
    deadline: Option<Instant>,
}

impl Member {
    fn new(message: &JoinGroupRequest) -> Self {
        Self {
            instance_id: message.group_instance_id.clone(),
            client: message.client.clone(),
            session_timeout: message.session_timeout,
            rebalance_timeout: message.rebalance_timeout,
            protocols: message.protocols.clone(),
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            must_sync: false,
            deadline: None,
        }
    }

    fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|it| it.name == protocol)
    }

    /// Finds the metadata for a protocol.
    fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let chosen = self
            .protocols
            .iter()
            .find(|it| Some(it.name.as_str()) == protocol);
        chosen.map_or_else(Bytes::new, |it| it.metadata.clone())
    }

    /// Lets the session begin anew.
    fn touch(&mut self, now: Instant) {
        if self.joining.is_none() && self.syncing.is_none() {
            self.deadline = Some(now.plus(self.session_timeout));
        }
    }
}

/// Change that a classic group's journal append makes once it is written.
#[derive(Debug, Clone)]
pub(super) enum ClassicWrite {
    /// The leader's assignment of a generation.
    Assignment {
        generation: i32,
        assignments: BTreeMap<String, Bytes>,
    },
    /// A static member that came back under a new member id.
    StaticMember {
        request: RequestId,
        message: Box<JoinGroupRequest>,
        member_id: String,
    },
    /// A group that has lost its members.
    Empty,
}

impl ClassicWrite {
    /// Whoever waits for it by itself; those who wait for an assignment are known to the group.
    pub(super) fn request(&self) -> Option<RequestId> {
        match self {
            Self::StaticMember { request, .. } => Some(*request),
            Self::Assignment { .. } | Self::Empty => None,
        }
    }
}

/// A group of the classic protocol.
#[derive(Debug, Clone)]
pub(super) struct ClassicGroup {
    id: GroupId,
    phase: Phase,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member ids by instance id.
    static_members: BTreeMap<String, String>,
    /// Member ids that were given out and have not joined yet, with their ends.
    pending: BTreeMap<String, Instant>,
    empty_since: Instant,
}

impl ClassicGroup {
    pub(super) fn new(id: GroupId, now: Instant) -> Self {
        Self {
            id,
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending: BTreeMap::new(),
            empty_since: now,
        }
    }

    /// The group of a journal record. Its members have a whole session to come back.
    pub(super) fn from_record(id: GroupId, record: ClassicRecord, now: Instant) -> Self {
        let mut group = Self::new(id, now);
        group.generation = record.generation;
        group.protocol_type = (!record.protocol_type.is_empty()).then_some(record.protocol_type);
        group.protocol = record.protocol;
        group.leader = record.leader;
        for member in record.members {
            if let Some(instance_id) = &member.instance_id {
                let id = member.member_id.clone();
                group.static_members.insert(instance_id.clone(), id);
            }
            let protocol = JoinGroupProtocol {
                name: group.protocol.clone().unwrap_or_default(),
                metadata: member.subscription,
            };
            let restored = Member {
                instance_id: member.instance_id,
                client: member.client,
                session_timeout: member.session_timeout,
                rebalance_timeout: member.rebalance_timeout,
                protocols: vec![protocol],
                assignment: member.assignment,
                joining: None,
                syncing: None,
                must_sync: false,
                deadline: Some(now.plus(member.session_timeout)),
            };
            group.members.insert(member.member_id, restored);
        }
        if !group.members.is_empty() {
            group.phase = Phase::Stable { deadline: now };
        }
        group
    }

    /// The journal record of the group, with these assignments.
    fn record(
        &self,
        assignment: impl Fn(&str, &Member) -> Bytes,
        cx: &Context<'_>,
    ) -> JournalRecord {
        let members = self.members.iter().map(|(id, member)| ClassicMemberRecord {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client: member.client.clone(),
            rebalance_timeout: member.rebalance_timeout,
            session_timeout: member.session_timeout,
            subscription: member.metadata(self.protocol.as_deref()),
            assignment: assignment(id, member),
        });
        let record = ClassicRecord {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since: cx.now.wall,
            members: members.collect(),
        };
        JournalRecord {
            key: classic_key(&self.id),
            value: Some(record.encode()),
        }
    }

    fn journal(&self, write: ClassicWrite, record: JournalRecord, sync: bool, cx: &mut Context) {
        let write = Write::Classic(self.id.clone(), write);
        cx.out.journal(write, None, vec![record], sync);
    }

    /// The records that forget the group.
    pub(super) fn tombstones(&self) -> Vec<JournalRecord> {
        let key = classic_key(&self.id);
        vec![JournalRecord { key, value: None }]
    }

    /// Returns the generation's number.
    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    /// Whether the group has no members, and none to come.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Returns the time that the group has been empty; zero if it is not.
    pub(super) fn empty_for(&self, now: Instant) -> Duration {
        match self.is_empty() {
            true => now.since(self.empty_since),
            false => Duration::ZERO,
        }
    }

    /// A record of the group is in the journal; now memory follows.
    pub(super) fn written(&mut self, write: ClassicWrite, cx: &mut Context<'_>) {
        match write {
            ClassicWrite::Assignment {
                generation,
                assignments,
            } => self.assign(generation, &assignments, cx),
            ClassicWrite::StaticMember {
                request,
                message,
                member_id,
            } => self.static_member_written(request, &message, member_id, cx),
            ClassicWrite::Empty => {}
        }
    }

    /// A record of the group may not be in the journal.
    pub(super) fn write_failed(
        &mut self,
        write: ClassicWrite,
        error: ErrorCode,
        cx: &mut Context<'_>,
    ) {
        match write {
            ClassicWrite::Assignment { generation, .. } => {
                self.assignment_failed(generation, error, cx);
            }
            ClassicWrite::StaticMember { request, .. } => cx.out.reply(request, Err(error)),
            ClassicWrite::Empty => {}
        }
    }

    /// The longest rebalance timeout of the members.
    fn rebalance_timeout(&self) -> Duration {
        let timeouts = self.members.values().map(|it| it.rebalance_timeout);
        timeouts.max().unwrap_or_default()
    }
}
