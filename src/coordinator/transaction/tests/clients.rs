//! Requests of clients, their fate at the broker, and what clients make of the replies.

use std::time::Duration;

use super::partition::Item;
use super::world::{Message, Mutant, World, id, partition};
use crate::coordinator::RequestId;
use crate::coordinator::transaction::{Input, PartitionCheck, Reply, Residence};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{EndTxnRequest, InitProducerIdRequest, TransactionResult};
use crate::types::ProducerIdentity;

impl World {
    pub(super) fn send_produce(&mut self, client: usize, partition: usize) {
        let state = &mut self.clients[client];
        state.sent.insert(partition);
        self.network.push(Message::Produce {
            client,
            producer: state.identity.unwrap(),
            label: state.label,
            partition,
        });
    }

    pub(super) fn send_end(&mut self, client: usize, result: TransactionResult) {
        let state = &mut self.clients[client];
        state.ending = Some(result);
        if result == TransactionResult::Commit {
            self.wanted.insert(state.label);
        }
        self.network.push(Message::End {
            client,
            producer: state.identity.unwrap(),
            label: state.label,
            result,
        });
    }

    pub(super) fn deliver(&mut self, message: Message) {
        match message {
            Message::Init { client } => {
                let holder = self.clients[client].holder;
                self.step(Input::Init {
                    request: request_id(client, 0),
                    message: init_request(),
                    holder,
                });
            }
            Message::Produce {
                client,
                producer,
                label,
                partition: at,
            } => self.produce(client, producer, label, at),
            Message::End {
                client,
                mut producer,
                result,
                label,
            } => {
                if self.mutant == Mutant::EndIgnoresEpoch
                    && let Some(entry) = self.coordinator.entries.get(&id())
                {
                    producer = entry.record.producer;
                }
                self.step(Input::End {
                    request: request_id(client, end_kind(label, result)),
                    message: EndTxnRequest {
                        transactional_id: id(),
                        producer,
                        result,
                    },
                });
            }
        }
    }

    fn produce(&mut self, client: usize, producer: ProducerIdentity, label: u8, at: usize) {
        let request = request_id(client, 2);
        let check = match self.mutant {
            Mutant::SkipAppendCheck => Ok(PartitionCheck::Joined),
            _ => self
                .coordinator
                .check_append(&id(), producer, &partition(at)),
        };
        let admitted = match check {
            Ok(PartitionCheck::Joined) => Ok(Reply::Done),
            Ok(PartitionCheck::MustJoin) => {
                self.replies.remove(&request);
                self.step(Input::AddPartitions {
                    request,
                    transactional_id: id(),
                    producer,
                    partitions: vec![partition(at)],
                });
                self.replies
                    .remove(&request)
                    .unwrap_or(Err(ErrorCode::RequestTimedOut))
            }
            Err(error) => Err(error),
        };
        match admitted {
            Ok(_) => self.append(client, producer, label, at),
            Err(ErrorCode::ProducerFenced | ErrorCode::InvalidProducerIdMapping) => {
                self.fence(client, producer);
            }
            // The client gives up on the transaction: it may only abort.
            Err(error) => self.check_excused(label, producer, error),
        }
    }

    fn append(&mut self, client: usize, producer: ProducerIdentity, label: u8, at: usize) {
        let is_stale = self.partitions[at]
            .epoch(producer.id)
            .is_some_and(|known| producer.epoch < known);
        if is_stale {
            return;
        }
        let data = Item::Data { producer, label };
        if !self.partitions[at].items.contains(&data) {
            if self.newest != Some(producer) {
                self.violate(format!("(5) a fenced identity {producer:?} appended"));
            }
            self.partitions[at].items.push(data);
        }
        let state = &mut self.clients[client];
        if state.label == label && state.identity == Some(producer) {
            state.acked.insert(at);
        }
    }

    /// B15: nobody but its client ends the transaction of a living producer, unless time ran out or power was lost.
    fn check_excused(&mut self, label: u8, producer: ProducerIdentity, error: ErrorCode) {
        let is_final = matches!(
            error,
            ErrorCode::TransactionAbortable | ErrorCode::InvalidProducerEpoch
        );
        let is_living = self.newest == Some(producer)
            && self.clients.iter().any(|it| {
                it.label == label && it.identity == Some(producer) && it.holder == Residence::Remote
            });
        if is_final && is_living && !self.excused.contains(&label) {
            self.violate(format!(
                "(9) transaction {label} of a living producer was taken from it: {error:?}"
            ));
        }
    }

    fn fence(&mut self, client: usize, producer: ProducerIdentity) {
        let state = &mut self.clients[client];
        if state.identity == Some(producer) {
            state.is_fenced = true;
        }
    }

    pub(super) fn reply(&mut self, request: RequestId, result: Result<Reply, ErrorCode>) {
        self.replies.insert(request, result);
        let client = usize::try_from(request.0 / 10_000).unwrap();
        if client >= self.clients.len() {
            return;
        }
        match request.0 % 10_000 {
            0 => self.init_reply(client, result),
            2 => {}
            kind => {
                // A reply to a late copy goes to nobody.
                let state = &self.clients[client];
                if state
                    .ending
                    .is_some_and(|ending| kind == end_kind(state.label, ending))
                {
                    self.end_reply(client, result);
                }
            }
        }
    }

    fn init_reply(&mut self, client: usize, result: Result<Reply, ErrorCode>) {
        let state = &mut self.clients[client];
        state.is_initialising = false;
        match result {
            Ok(Reply::Producer(producer)) => {
                // The reply to a copy comes too late: its client goes by the first.
                self.newest = Some(producer);
                self.issue(producer, client);
                let state = &mut self.clients[client];
                if state.identity.is_none() {
                    state.identity = Some(producer);
                    self.labels += 1;
                    state.label = self.labels;
                }
            }
            Ok(Reply::Done) => self.violate("an Init was answered without an identity".into()),
            Err(_) => state.inits_left += 1,
        }
    }

    fn issue(&mut self, producer: ProducerIdentity, client: usize) {
        let key = (producer.id.0, producer.epoch.0);
        if let Some(other) = self.issued.insert(key, client)
            && other != client
        {
            self.violate(format!(
                "(8) {producer:?} was given to {other} and {client}"
            ));
        }
    }

    fn end_reply(&mut self, client: usize, result: Result<Reply, ErrorCode>) {
        let state = &mut self.clients[client];
        let Some(ending) = state.ending else {
            return;
        };
        match result {
            Ok(Reply::Producer(next)) => {
                if !state.acked.is_empty() {
                    self.told.insert(state.label, (ending, state.acked.clone()));
                }
                state.identity = Some(next);
                state.ending = None;
                state.sent.clear();
                state.acked.clear();
                state.transactions_left -= 1;
                self.labels += 1;
                state.label = self.labels;
                if std::mem::take(&mut state.is_in_doubt) {
                    self.excused.insert(self.labels);
                }
                self.newest = Some(next);
                self.issue(next, client);
            }
            Err(ErrorCode::TransactionAbortable | ErrorCode::InvalidProducerEpoch) => {
                // Definitely not committed; it has to abort.
                if !state.acked.is_empty() {
                    let told = (TransactionResult::Abort, state.acked.clone());
                    self.told.insert(state.label, told);
                }
                state.ending = Some(TransactionResult::Abort);
                let (label, identity) = (state.label, state.identity);
                if let (Err(error), Some(producer)) = (result, identity) {
                    self.check_excused(label, producer, error);
                }
            }
            Err(ErrorCode::ProducerFenced | ErrorCode::InvalidProducerIdMapping) => {
                state.is_fenced = true;
            }
            Ok(Reply::Done) | Err(_) => {}
        }
    }
}

/// The same request of the same client has the same number, so that states reached on different ways are equal.
pub(super) fn request_id(client: usize, kind: u64) -> RequestId {
    RequestId(u64::try_from(client).unwrap() * 10_000 + kind)
}

/// Tells the end of one transaction from that of another.
pub(super) fn end_kind(label: u8, result: TransactionResult) -> u64 {
    let result = u64::from(result == TransactionResult::Commit);
    10 + u64::from(label) * 10 + result
}

pub(super) fn init_request() -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: Some(id()),
        transaction_timeout: Duration::from_secs(60),
        current: None,
    }
}
