//! `Outbox`: the effects of a step, and what each journal append will change once it is written.

use std::collections::BTreeMap;

use super::classic::ClassicWrite;
use super::consumer::ConsumerWrite;
use super::{Config, Effect, Response};
use crate::coordinator::{JournalRecord, Now, RequestId, Ticket};
use crate::protocol::ErrorCode;
use crate::protocol::messages::CommittedOffset;
use crate::types::{GroupId, ProducerId, ProducerIdentity, TopicPartition};

/// Change that a journal append makes once it is written (I3).
#[derive(Debug, Clone)]
pub(super) enum Write {
    /// Positions, by the producer of their transaction.
    Positions {
        request: RequestId,
        producer_id: ProducerId,
        group: GroupId,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    },
    /// Positions that are forgotten, and perhaps a whole group.
    Tombstones {
        answer: Option<(RequestId, Response)>,
        keys: Vec<(GroupId, TopicPartition)>,
        groups: Vec<GroupId>,
    },
    /// The members of a classic group.
    Classic(GroupId, ClassicWrite),
    /// The members of a group of the consumer protocol.
    Consumer(GroupId, ConsumerWrite),
}

/// The effects of a step, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox {
    effects: Vec<Effect>,
    writes: BTreeMap<Ticket, Write>,
    next_ticket: u64,
}

impl Outbox {
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn reply(&mut self, request: RequestId, result: Result<Response, ErrorCode>) {
        self.effects.push(Effect::Reply { request, result });
    }

    pub(super) fn journal(
        &mut self,
        write: Write,
        producer: Option<ProducerIdentity>,
        records: Vec<JournalRecord>,
        sync: bool,
    ) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.writes.insert(ticket, write);
        self.effects.push(Effect::AppendJournal {
            ticket,
            producer,
            records,
            sync,
        });
    }

    /// The write of a ticket, which must be open.
    pub(super) fn write_of(&mut self, ticket: Ticket) -> Write {
        match self.writes.remove(&ticket) {
            Some(write) => write,
            None => panic!("{ticket:?} was answered before, or never given"),
        }
    }

    /// Whether tombstones are on their way.
    pub(super) fn is_forgetting(&self) -> bool {
        self.writes
            .values()
            .any(|write| matches!(write, Write::Tombstones { .. }))
    }
}

/// Context of one group's step.
pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) out: &'a mut Outbox,
    pub(super) now: Now,
}
