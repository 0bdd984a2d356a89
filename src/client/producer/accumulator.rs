//! `Accumulator`: gathers records into batches and decides what is sent, sent again, or given up. Pure: it is told the time and the answers.
//!
//! Order (I6): a partition's batches get their sequences in the order of the sends, at most five are in
//! flight, and one to be sent again goes before every newer one. The broker refuses what overtook it, which
//! is sent again too, so that retries neither reorder nor duplicate.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::config::ProducerConfig;
use super::delivery::{Completion, RecordPlace, Written};
use super::memory::Reservation;
use super::queue::{Queue, Sent};
use crate::client::ClientError;
use crate::env::Instant;
use crate::protocol::batch::{Compression, HEADER_BYTES, NewRecords, record_size_bytes};
use crate::protocol::messages::{Acks, ProduceResponse};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{ProducerIdentity, Timestamp, TopicPartition};

/// Delta with which a record's size is reckoned before its batch is known: the widest.
const TIMESTAMP_DELTA_MAX: i64 = i64::MAX;

/// An encoded record.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'a> {
    pub(super) timestamp: Timestamp,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl Encoded<'_> {
    /// At most so many bytes as the `offset_delta`-th record of a batch.
    pub(super) fn size_bytes(&self, offset_delta: i32) -> usize {
        record_size_bytes(
            TIMESTAMP_DELTA_MAX,
            offset_delta,
            self.key,
            self.value,
            self.headers,
        )
    }

    /// At most so many bytes in a batch of its own.
    pub(super) fn batch_bytes(&self) -> usize {
        HEADER_BYTES + self.size_bytes(0)
    }
}

/// The settings that decide.
pub(super) struct Rules {
    pub(super) batch_size_bytes: usize,
    pub(super) linger: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) max_in_flight: usize,
    pub(super) retries: u32,
    pub(super) retry_backoff: Duration,
    pub(super) compression: Compression,
    pub(super) compression_level: Option<i32>,
    pub(super) acks: Acks,
    pub(super) is_idempotent: bool,
    pub(super) is_transactional: bool,
}

impl Rules {
    pub(super) fn new(config: &ProducerConfig) -> Self {
        Self {
            batch_size_bytes: config.batch_size_bytes,
            linger: config.linger,
            delivery_timeout: config.delivery_timeout,
            request_timeout: config.request_timeout,
            max_in_flight: config.max_in_flight,
            retries: config.retries,
            retry_backoff: config.retry_backoff,
            compression: config.compression,
            compression_level: config.compression_level,
            acks: config.acks,
            is_idempotent: config.enable_idempotence,
            is_transactional: config.transactional_id.is_some(),
        }
    }
}

/// The producer identity in force, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer: ProducerIdentity,
    pub(super) generation: u64,
}

/// A batch to be handed to the transport.
pub(super) struct Outgoing {
    pub(super) partition: TopicPartition,
    pub(super) number: u64,
    pub(super) records: NewRecords,
    pub(super) timeout: Duration,
}

/// Fate of a batch; to be told outside of all locks, since callbacks are users' code.
#[must_use = "somebody waits for it"]
pub(super) struct Fate {
    completion: Arc<Completion>,
    result: Result<Written, ClientError>,
    _reservation: Reservation,
}

impl Fate {
    pub(super) fn new(
        completion: Arc<Completion>,
        result: Result<Written, ClientError>,
        reservation: Reservation,
    ) -> Self {
        Self {
            completion,
            result,
            _reservation: reservation,
        }
    }

    pub(super) fn tell(self) {
        self.completion.complete(&self.result);
    }

    pub(super) fn error(&self) -> Option<&ClientError> {
        self.result.as_ref().err()
    }
}

/// Result of an append.
pub(super) enum Appended {
    /// The record is in a batch; the sender must look if `wakes_sender`.
    Done {
        completion: Arc<Completion>,
        place: RecordPlace,
        wakes_sender: bool,
    },
    /// A new batch is needed, and so many bytes of memory for it.
    NeedsMemory(usize),
}

/// All batches of a producer that are not acknowledged yet.
pub(super) struct Accumulator {
    rules: Rules,
    queues: HashMap<TopicPartition, Queue>,
    identity: Option<Identity>,
    generations_count: u64,
    needs_identity: bool,
    next_number: u64,
    /// Nothing is sent again: the transaction is being aborted, or the producer closed by force.
    is_abandoned: bool,
    /// When the sender looks again unless it is woken, as far as these queues ask for it.
    next_look: Option<Instant>,
}

impl Accumulator {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            queues: HashMap::new(),
            identity: None,
            generations_count: 0,
            needs_identity: false,
            next_number: 0,
            is_abandoned: false,
            next_look: None,
        }
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Sequences start at 0 under the new identity, in each partition once its older batches are resolved.
    pub(super) fn set_identity(&mut self, producer: ProducerIdentity) {
        self.generations_count += 1;
        self.needs_identity = false;
        self.is_abandoned = false;
        self.identity = Some(Identity {
            producer,
            generation: self.generations_count,
        });
    }

    /// Whether an idempotent producer without transactions is to ask for an identity.
    pub(super) fn needs_identity(&self) -> bool {
        let is_missing = self.identity.is_none() || self.needs_identity;
        self.rules.is_idempotent && !self.rules.is_transactional && is_missing
    }

    /// Adds a record to its partition's open batch, or to a new one if `reservation` holds memory.
    /// No batch grows over `limit_bytes`, unless a record alone is larger.
    pub(super) fn append(
        &mut self,
        partition: &TopicPartition,
        record: &Encoded<'_>,
        limit_bytes: usize,
        reservation: &mut Option<Reservation>,
        now: Instant,
    ) -> Appended {
        let limit_bytes = limit_bytes.min(self.rules.batch_size_bytes);
        let queue = match self.queues.get_mut(partition) {
            Some(queue) => queue,
            None => self
                .queues
                .entry(partition.clone())
                .or_insert_with(|| Queue::new(partition.clone())),
        };
        let is_new = !queue.has_room(record, limit_bytes);
        if is_new {
            let Some(reservation) = reservation.take() else {
                return Appended::NeedsMemory(
                    self.rules.batch_size_bytes.max(record.batch_bytes()),
                );
            };
            queue.open(self.next_number, reservation, &self.rules, now);
            self.next_number += 1;
        }
        let due = now.plus(self.rules.linger);
        let is_early = is_new && self.next_look.is_none_or(|next_look| due < next_look);
        match queue.push(record) {
            Some((completion, place)) => {
                // A full batch leaves now, if one more may be in flight; else with the answer to one that is.
                let is_ready = (is_new && queue.has_full()) || queue.is_open_full(limit_bytes);
                if is_early {
                    self.next_look = Some(due);
                }
                Appended::Done {
                    completion,
                    place,
                    wakes_sender: is_early || (is_ready && queue.may_send(&self.rules)),
                }
            }
            // There is an open batch: it had room, or was opened just now.
            None => Appended::NeedsMemory(record.batch_bytes()),
        }
    }

    /// Takes what is to be handed over now. `is_urgent` sends half-full batches too.
    pub(super) fn drain(&mut self, is_urgent: bool, now: Instant) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        for queue in self.queues.values_mut() {
            queue.close_if_due(self.rules.linger, is_urgent, now);
            while let Some(batch) = queue.next_to_send(&self.rules, self.identity, now) {
                outgoing.push(batch);
            }
        }
        outgoing
    }

    /// Closes all open batches, so that they are sent at once; returns everything yet to be acknowledged.
    pub(super) fn flush(&mut self) -> Vec<Arc<Completion>> {
        self.queues.values_mut().for_each(Queue::close_open);
        self.queues.values().flat_map(Queue::completions).collect()
    }

    /// Takes the answer to batch `number`.
    pub(super) fn complete(
        &mut self,
        partition: &TopicPartition,
        number: u64,
        answer: Result<ProduceResponse, ClientError>,
        now: Instant,
    ) -> Vec<Fate> {
        let mut fates = Vec::new();
        let Some(queue) = self.queues.get_mut(partition) else {
            return fates;
        };
        let Some(mut sent) = queue.take_in_flight(number) else {
            return fates;
        };
        match judge(queue, &sent, answer, &self.rules, self.is_abandoned, now) {
            Verdict::Written(written) => fates.push(sent.fate(Ok(written))),
            Verdict::Again(error) => {
                sent.note(error);
                queue.retry(sent, now.plus(self.rules.retry_backoff));
            }
            Verdict::Renumber(error) => {
                self.needs_identity = true;
                queue.set_broken();
                fates.extend(queue.unsend(sent, error, &self.rules));
            }
            Verdict::Failed(error) => {
                fates.push(sent.fate(Err(error)));
                if self.rules.is_idempotent {
                    self.needs_identity = true;
                    queue.set_broken();
                }
            }
        }
        fates.extend(resolve_broken(queue, &self.rules));
        fates
    }

    /// Gives up what is too old.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Fate> {
        let mut fates = Vec::new();
        for queue in self.queues.values_mut() {
            let has_lost = queue.expire(&self.rules, now, &mut fates);
            if has_lost && self.rules.is_idempotent {
                self.needs_identity = true;
                queue.set_broken();
                fates.extend(resolve_broken(queue, &self.rules));
            }
        }
        fates
    }

    /// Gives up everything that is not in flight, and from now on everything that would be sent again.
    pub(super) fn abandon(&mut self, error: &ClientError) -> Vec<Fate> {
        self.is_abandoned = true;
        let mut fates = Vec::new();
        for queue in self.queues.values_mut() {
            queue.fail_unsent(error, &mut fates);
            for sent in queue.take_retries() {
                queue.set_broken();
                fates.push(sent.fate(Err(error.clone())));
            }
        }
        fates
    }

    /// Whether batches whose answer is still out are given up instead of sent again.
    pub(super) fn set_abandoned(&mut self, is_abandoned: bool) {
        self.is_abandoned = is_abandoned;
    }

    /// Everything yet to be acknowledged.
    pub(super) fn completions(&self) -> Vec<Arc<Completion>> {
        self.queues.values().flat_map(Queue::completions).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.values().all(Queue::is_empty)
    }

    /// When to look again. From then on an append says so if that is too late for it.
    pub(super) fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let deadlines = self.queues.values();
        self.next_look = deadlines
            .filter_map(|queue| queue.next_deadline(&self.rules, now))
            .min();
        self.next_look
    }
}

enum Verdict {
    Written(Written),
    Again(ClientError),
    /// It was certainly not written and its sequence is void: it gets another under the next identity.
    Renumber(ClientError),
    Failed(ClientError),
}

fn judge(
    queue: &Queue,
    sent: &Sent,
    answer: Result<ProduceResponse, ClientError>,
    rules: &Rules,
    is_abandoned: bool,
    now: Instant,
) -> Verdict {
    let error = match answer {
        Ok(response) => {
            return Verdict::Written(Written {
                base_offset: (rules.acks != Acks::None).then_some(response.base_offset),
                log_append_time: response.log_append_time,
            });
        }
        Err(error) => error,
    };
    let is_out_of_order = error.code() == Some(ErrorCode::OutOfOrderSequenceNumber);
    match error.code() {
        // Written earlier, so long ago that the log no longer knows where.
        Some(ErrorCode::DuplicateSequenceNumber) => {
            return Verdict::Written(Written {
                base_offset: None,
                log_append_time: Timestamp::NONE,
            });
        }
        Some(ErrorCode::UnknownProducerId) if may_renumber(rules, sent) => {
            return Verdict::Renumber(error);
        }
        _ if is_out_of_order && queue.is_broken() && may_renumber(rules, sent) => {
            return Verdict::Renumber(error);
        }
        _ => {}
    }
    // Not whether one is unresolved now: the answers of two batches may come in either order.
    let has_overtaken = is_out_of_order && sent.was_behind();
    let may_retry = has_overtaken
        || (error.kind() == ErrorKind::Retriable && sent.attempts_count <= rules.retries);
    let is_over = sent.deadline(rules) <= now;
    match (may_retry && !is_abandoned, is_over) {
        (true, false) => Verdict::Again(error),
        (true, true) => Verdict::Failed(ClientError::DeliveryTimeout {
            partition: queue.partition().clone(),
            timeout: rules.delivery_timeout,
            last: error.to_string(),
        }),
        (false, _) => Verdict::Failed(error),
    }
}

/// Only a batch that no attempt can have written may get another sequence: else it might be written twice.
fn may_renumber(rules: &Rules, sent: &Sent) -> bool {
    rules.is_idempotent && !rules.is_transactional && !sent.was_lost()
}

/// Behind a gap nothing can be written under this identity: what waits to be sent again gets another
/// sequence where that is safe, and fails where an earlier attempt may have written it.
fn resolve_broken(queue: &mut Queue, rules: &Rules) -> Vec<Fate> {
    if !queue.is_broken() {
        return Vec::new();
    }
    let mut fates = Vec::new();
    for sent in queue.take_retries() {
        let error = sent.last_error.clone();
        let error = error.unwrap_or_else(|| ClientError::NotSent {
            why: "an earlier batch of the partition failed".to_owned(),
        });
        match may_renumber(rules, &sent) {
            true => fates.extend(queue.unsend(sent, error, rules)),
            false => fates.push(sent.fate(Err(error))),
        }
    }
    fates
}
