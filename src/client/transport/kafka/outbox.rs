//! `Outbox`: batches that wait for their request to one broker, and which of them share it. No I/O.
//!
//! While requests are under way batches gather, and leave together in the next one: at most one batch of each partition,
//! as the protocol wants it, and of each partition the oldest first, so that its order is that of the calls.

use std::collections::{HashSet, VecDeque};

use crate::protocol::messages::ProduceRequest;
use crate::types::TopicPartition;

/// Requests under way at once to a broker (Kafka's `max.in.flight.requests.per.connection`): a broker works on one
/// request of a connection at a time, so that more of them only wait there instead of growing here.
pub(super) const REQUESTS_IN_FLIGHT_MAX: usize = 5;
/// A request of several batches holds at most so many bytes of them. Brokers take 100 MiB, ours 16 MiB.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// A batch that waits for its request; `A` is told what became of it.
pub(super) struct Waiting<A> {
    pub(super) request: ProduceRequest,
    pub(super) answer: A,
}

impl<A> Waiting<A> {
    /// Whether both may be in one request, which has one transactional id and one `acks`.
    fn is_like(&self, other: &ProduceRequest) -> bool {
        self.request.acks == other.acks && self.request.transactional_id == other.transactional_id
    }
}

/// The batches for one broker.
pub(super) struct Outbox<A> {
    waiting: VecDeque<Waiting<A>>,
    in_flight: usize,
}

impl<A> Outbox<A> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: 0,
        }
    }

    pub(super) fn push(&mut self, batch: Waiting<A>) {
        self.waiting.push_back(batch);
    }

    /// The batches of the next request, which counts as under way from now on; empty if nothing is to be sent now.
    pub(super) fn next_request(&mut self) -> Vec<Waiting<A>> {
        if self.in_flight >= REQUESTS_IN_FLIGHT_MAX || self.waiting.is_empty() {
            return Vec::new();
        }
        self.in_flight += 1;
        let mut taken: Vec<Waiting<A>> = Vec::new();
        let mut left = VecDeque::with_capacity(self.waiting.len());
        let mut seen: HashSet<TopicPartition> = HashSet::new();
        let mut bytes = 0;
        while let Some(batch) = self.waiting.pop_front() {
            // A batch that stays keeps those of its partition behind it from overtaking.
            let is_next = seen.insert(batch.request.partition.clone());
            let size = batch.request.records.bytes().len();
            let fits = taken.first().is_none_or(|first| {
                first.is_like(&batch.request) && bytes + size <= REQUEST_BYTES_MAX
            });
            match is_next && fits {
                true => {
                    bytes += size;
                    taken.push(batch);
                }
                false => left.push_back(batch),
            }
            if bytes >= REQUEST_BYTES_MAX {
                break;
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        taken
    }

    /// A request was answered, or never will be.
    pub(super) fn request_is_over(&mut self) {
        assert!(self.in_flight > 0, "a request ends once");
        self.in_flight -= 1;
    }

    /// Takes everything that waits: the broker cannot be reached.
    pub(super) fn drain(&mut self) -> Vec<Waiting<A>> {
        self.waiting.drain(..).collect()
    }
}
