//! `Queue`: the batches of one partition, from the open one to those in flight, in the order of their sequences.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::accumulator::{Encoded, Fate, Identity, Outgoing, Rules};
use super::delivery::{Completion, RecordPlace};
use super::memory::Reservation;
use crate::client::ClientError;
use crate::env::Instant;
use crate::protocol::batch::{Batch, BatchBuilder, BatchProducer, BuiltBatch, DecompressionLimit};
use crate::types::{Sequence, TopicPartition};

/// A batch that has no sequence yet.
pub(super) struct Unsent {
    number: u64,
    builder: BatchBuilder,
    completion: Arc<Completion>,
    created: Instant,
    attempts_count: u32,
    reservation: Reservation,
}

/// A batch that was handed over at least once. Its bytes, and so its sequence, never change again (I6).
pub(super) struct Sent {
    pub(super) number: u64,
    /// Batches of the partition that were handed over for the first time before it.
    ordinal: u64,
    batch: BuiltBatch,
    completion: Arc<Completion>,
    created: Instant,
    pub(super) attempts_count: u32,
    pub(super) last_error: Option<ClientError>,
    /// The answer to one of the attempts was lost: that attempt may have written the batch.
    was_lost: bool,
    /// An earlier batch was unresolved when this one was handed over: the log may have found it out of order for that.
    was_behind: bool,
    reservation: Reservation,
}

impl Sent {
    /// Notes why the last attempt failed.
    pub(super) fn note(&mut self, error: ClientError) {
        self.was_lost |= error.is_outcome_unknown();
        self.last_error = Some(error);
    }

    pub(super) fn was_behind(&self) -> bool {
        self.was_behind
    }

    pub(super) fn was_lost(&self) -> bool {
        self.was_lost
    }

    pub(super) fn fate(self, result: Result<super::delivery::Written, ClientError>) -> Fate {
        Fate::new(self.completion, result, self.reservation)
    }

    pub(super) fn deadline(&self, rules: &Rules) -> Instant {
        self.created.plus(rules.delivery_timeout)
    }

    /// The error of a batch whose time is over.
    pub(super) fn timed_out(&self, partition: &TopicPartition, timeout: Duration) -> ClientError {
        ClientError::DeliveryTimeout {
            partition: partition.clone(),
            timeout,
            last: match &self.last_error {
                Some(error) => error.to_string(),
                None => "no answer".to_owned(),
            },
        }
    }
}

impl Unsent {
    fn fate(self, error: ClientError) -> Fate {
        Fate::new(self.completion, Err(error), self.reservation)
    }

    fn finish(mut self, producer: BatchProducer, ordinal: u64) -> (Sent, BatchBuilder) {
        let batch = self.builder.build(producer);
        let sent = Sent {
            number: self.number,
            ordinal,
            batch,
            completion: self.completion,
            created: self.created,
            attempts_count: self.attempts_count,
            last_error: None,
            was_lost: false,
            was_behind: false,
            reservation: self.reservation,
        };
        (sent, self.builder)
    }
}

/// The batches of one partition.
pub(super) struct Queue {
    partition: TopicPartition,
    open: Option<Unsent>,
    full: VecDeque<Unsent>,
    /// To be sent again, by number; always before anything of `full`.
    retries: VecDeque<Sent>,
    /// By number.
    in_flight: VecDeque<Sent>,
    /// Which producer identity the sequences count under; 0 for none yet.
    generation: u64,
    sent_count: u64,
    next_sequence: Sequence,
    /// A sequence is missing for good: nothing is sent before the next identity.
    is_broken: bool,
    not_before: Instant,
    spare: Option<BatchBuilder>,
}

impl Queue {
    pub(super) fn new(partition: TopicPartition) -> Self {
        Self {
            partition,
            open: None,
            full: VecDeque::new(),
            retries: VecDeque::new(),
            in_flight: VecDeque::new(),
            generation: 0,
            sent_count: 0,
            next_sequence: Sequence::ZERO,
            is_broken: false,
            not_before: Instant::default(),
            spare: None,
        }
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.full.is_empty() && !self.has_sent()
    }

    pub(super) fn has_sent(&self) -> bool {
        !self.retries.is_empty() || !self.in_flight.is_empty()
    }

    /// Whether the record fits the open batch.
    pub(super) fn has_room(&self, record: &Encoded<'_>, limit_bytes: usize) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let offset_delta = open.builder.records_count();
            let size_bytes = record.size_bytes(offset_delta);
            open.builder.size_bytes() + size_bytes <= limit_bytes
        })
    }

    /// Adds the record to the open batch, which has room.
    pub(super) fn push(&mut self, record: &Encoded<'_>) -> Option<(Arc<Completion>, RecordPlace)> {
        let open = self.open.as_mut()?;
        let place = RecordPlace {
            index: open.builder.records_count(),
            timestamp: record.timestamp,
            key_bytes: record.key.map(<[u8]>::len),
            value_bytes: record.value.map(<[u8]>::len),
        };
        open.builder
            .push_with_headers(record.timestamp, record.key, record.value, record.headers);
        Some((open.completion.clone(), place))
    }

    /// Closes the open batch, and opens batch `number`.
    pub(super) fn open(
        &mut self,
        number: u64,
        reservation: Reservation,
        rules: &Rules,
        now: Instant,
    ) {
        self.close_open();
        let builder = self.spare.take();
        self.open = Some(Unsent {
            number,
            builder: builder
                .unwrap_or_else(|| BatchBuilder::new(rules.compression, rules.compression_level)),
            completion: Completion::new(self.partition.clone()),
            created: now,
            attempts_count: 0,
            reservation,
        });
    }

    /// The open batch takes no more records.
    pub(super) fn close_open(&mut self) {
        self.full.extend(self.open.take());
    }

    /// Whether the open batch is so full that it is sent without waiting for its linger.
    pub(super) fn is_open_full(&self, limit_bytes: usize) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| open.builder.size_bytes() >= limit_bytes)
    }

    /// Whether a closed batch waits to be handed over for the first time.
    pub(super) fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Whether one more batch may be in flight.
    pub(super) fn may_send(&self, rules: &Rules) -> bool {
        self.in_flight.len() < rules.max_in_flight && !self.is_window_full(rules)
    }

    /// Closes the open batch if it is due: `linger` is over, or `is_urgent`.
    pub(super) fn close_if_due(&mut self, linger: Duration, is_urgent: bool, now: Instant) {
        let is_due = self
            .open
            .as_ref()
            .is_some_and(|open| is_urgent || open.created.plus(linger) <= now);
        if is_due {
            self.close_open();
        }
    }

    /// The next batch to be handed over, if one may be.
    pub(super) fn next_to_send(
        &mut self,
        rules: &Rules,
        identity: Option<Identity>,
        now: Instant,
    ) -> Option<Outgoing> {
        if self.in_flight.len() >= rules.max_in_flight || now < self.not_before {
            return None;
        }
        let mut sent = match self.retries.pop_front() {
            Some(sent) => sent,
            None => self.first_attempt(rules, identity)?,
        };
        sent.attempts_count += 1;
        sent.was_behind = self.has_unresolved_before(sent.number);
        let outgoing = Outgoing {
            partition: self.partition.clone(),
            number: sent.number,
            records: sent.batch.clone().into(),
            timeout: rules.request_timeout.min(sent.deadline(rules).since(now)),
        };
        let place = self.in_flight.partition_point(|s| s.number < sent.number);
        self.in_flight.insert(place, sent);
        Some(outgoing)
    }

    fn first_attempt(&mut self, rules: &Rules, identity: Option<Identity>) -> Option<Sent> {
        if self.full.is_empty() || self.is_window_full(rules) {
            return None;
        }
        let producer = match rules.is_idempotent {
            false => BatchProducer::Plain,
            true => self.sequenced(rules, identity?)?,
        };
        let batch = self.full.pop_front()?;
        let records_count = batch.builder.records_count();
        let (sent, builder) = batch.finish(producer, self.sent_count);
        self.sent_count += 1;
        self.next_sequence = self.next_sequence.plus(records_count);
        self.spare = Some(builder);
        Some(sent)
    }

    /// I6: the log recognises a batch that is sent again only among its last five. So no newer one may
    /// leave while the oldest unresolved one would fall out of them, even if those between are resolved.
    fn is_window_full(&self, rules: &Rules) -> bool {
        let oldest = [self.retries.front(), self.in_flight.front()];
        let oldest = oldest.into_iter().flatten().map(|sent| sent.ordinal).min();
        oldest.is_some_and(|oldest| {
            usize::try_from(self.sent_count - oldest).is_ok_and(|span| span >= rules.max_in_flight)
        })
    }

    /// The next sequence under `identity`; `None` while batches of another identity are unresolved.
    fn sequenced(&mut self, rules: &Rules, identity: Identity) -> Option<BatchProducer> {
        if self.generation != identity.generation {
            if self.has_sent() {
                return None;
            }
            self.generation = identity.generation;
            self.next_sequence = Sequence::ZERO;
            self.is_broken = false;
        }
        match (self.is_broken, rules.is_transactional) {
            (true, _) => None,
            (false, true) => Some(BatchProducer::Transactional(
                identity.producer,
                self.next_sequence,
            )),
            (false, false) => Some(BatchProducer::Idempotent(
                identity.producer,
                self.next_sequence,
            )),
        }
    }

    /// Takes an answered batch out of flight.
    pub(super) fn take_in_flight(&mut self, number: u64) -> Option<Sent> {
        let place = self.in_flight.iter().position(|s| s.number == number)?;
        self.in_flight.remove(place)
    }

    /// Whether a batch before `number` is still unresolved.
    fn has_unresolved_before(&self, number: u64) -> bool {
        let first = |batches: &VecDeque<Sent>| batches.front().is_some_and(|s| s.number < number);
        first(&self.retries) || first(&self.in_flight)
    }

    /// Sends the batch again, after a pause, before anything newer.
    pub(super) fn retry(&mut self, sent: Sent, not_before: Instant) {
        self.not_before = self.not_before.max(not_before);
        let place = self.retries.partition_point(|s| s.number < sent.number);
        self.retries.insert(place, sent);
    }

    /// Marks that a sequence will never arrive: what follows needs a new identity.
    pub(super) fn set_broken(&mut self) {
        self.is_broken = true;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Gives a batch that was certainly not written back to those without a sequence, so that it gets
    /// one of the next identity. It fails with `error` if its bytes cannot be read back.
    pub(super) fn unsend(&mut self, sent: Sent, error: ClientError, rules: &Rules) -> Option<Fate> {
        let Some(builder) = rebuild(&sent.batch, rules) else {
            return Some(sent.fate(Err(error)));
        };
        let unsent = Unsent {
            number: sent.number,
            builder,
            completion: sent.completion,
            created: sent.created,
            attempts_count: sent.attempts_count,
            reservation: sent.reservation,
        };
        let place = self.full.partition_point(|b| b.number < unsent.number);
        self.full.insert(place, unsent);
        None
    }

    /// All that wait to be sent again.
    pub(super) fn take_retries(&mut self) -> VecDeque<Sent> {
        std::mem::take(&mut self.retries)
    }

    /// Gives up all that was never handed over.
    pub(super) fn fail_unsent(&mut self, error: &ClientError, fates: &mut Vec<Fate>) {
        self.close_open();
        fates.extend(self.full.drain(..).map(|batch| batch.fate(error.clone())));
    }

    /// Gives up what is too old and not in flight; returns whether a sequence was lost with it.
    pub(super) fn expire(&mut self, rules: &Rules, now: Instant, fates: &mut Vec<Fate>) -> bool {
        let is_over = |created: Instant| created.plus(rules.delivery_timeout) <= now;
        if self.open.as_ref().is_some_and(|open| is_over(open.created)) {
            self.close_open();
        }
        while let Some(batch) = self.full.pop_front_if(|batch| is_over(batch.created)) {
            let timeout = rules.delivery_timeout;
            fates.push(batch.fate(ClientError::NotSent {
                why: format!("it waited for delivery.timeout.ms ({timeout:?}) without being sent"),
            }));
        }
        let mut has_lost = false;
        while let Some(batch) = self.retries.pop_front_if(|batch| is_over(batch.created)) {
            let error = batch.timed_out(&self.partition, rules.delivery_timeout);
            fates.push(batch.fate(Err(error)));
            has_lost = true;
        }
        has_lost
    }

    /// When this queue next wants to be looked at.
    /// Moments that are over ask for nothing: what could be done was done when it was looked at.
    pub(super) fn next_deadline(&self, rules: &Rules, now: Instant) -> Option<Instant> {
        let waiting = !self.full.is_empty() || !self.retries.is_empty();
        let backoff = waiting.then_some(self.not_before);
        let linger = self
            .open
            .as_ref()
            .map(|open| open.created.plus(rules.linger));
        let oldest = self.full.front().map(|b| b.created);
        let oldest = oldest
            .into_iter()
            .chain(self.retries.front().map(|b| b.created));
        let expiry = oldest
            .min()
            .map(|created| created.plus(rules.delivery_timeout));
        let deadlines = [backoff, linger, expiry].into_iter().flatten();
        deadlines.filter(|deadline| *deadline > now).min()
    }

    /// The fates of all batches still open.
    pub(super) fn completions(&self) -> impl Iterator<Item = Arc<Completion>> + '_ {
        let sent = self.retries.iter().chain(&self.in_flight);
        let unsent = self.full.iter().chain(&self.open);
        sent.map(|batch| batch.completion.clone())
            .chain(unsent.map(|batch| batch.completion.clone()))
    }
}

/// A builder that holds the batch's records again.
fn rebuild(batch: &BuiltBatch, rules: &Rules) -> Option<BatchBuilder> {
    let batch = Batch::parse(batch.bytes().clone()).ok()?;
    let records = batch.records(&DecompressionLimit::default()).ok()?;
    let mut builder = BatchBuilder::new(rules.compression, rules.compression_level);
    for record in records.iter() {
        let record = record.ok()?;
        let headers: Vec<_> = record.headers.collect();
        let headers = headers.iter().map(|(name, value)| (&**name, *value));
        let headers: Vec<(&str, Option<&[u8]>)> = headers.collect();
        builder.push_with_headers(record.timestamp, record.key, record.value, &headers);
    }
    Some(builder)
}
