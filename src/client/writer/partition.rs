//! `PartitionWriter`: appends batches to one partition within a writer's transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Inner;
use super::flight::{BATCHES_MAX, Flight, InFlight, Landed};
use crate::client::ClientError;
use crate::client::transport::Reply;
use crate::client::wait::wait;
use crate::protocol::batch::{BatchBuilder, BatchProducer, BuiltBatch};
use crate::protocol::messages::{Acks, ProduceRequest, ProduceResponse};
use crate::types::{Offset, Sequence, TopicPartition};

/// Batches that are not answered yet hold at most so many bytes a writer, and one batch a partition more (I10).
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;

/// State of one partition's writers.
#[derive(Default)]
pub(super) struct PartitionState {
    /// Which transaction the sequence counts in.
    generation: u64,
    next: Sequence,
    flight: Flight,
    /// One past the last record that was written in this transaction or an earlier one.
    end_offset: Option<Offset>,
}

/// The partitions of a transactional writer.
#[derive(Default)]
pub(super) struct Partitions {
    states: Mutex<HashMap<TopicPartition, Arc<Mutex<PartitionState>>>>,
    in_flight_bytes: AtomicUsize,
}

impl Partitions {
    pub(super) fn state(&self, partition: &TopicPartition) -> Arc<Mutex<PartitionState>> {
        let mut states = self.states.lock();
        Arc::clone(states.entry(partition.clone()).or_default())
    }

    pub(super) fn has_unanswered(&self) -> bool {
        self.in_flight_bytes.load(Ordering::Acquire) > 0
    }

    /// Takes everything that is not answered yet; a transaction that ends waits for it.
    pub(super) fn take_flights(&self) -> Vec<(TopicPartition, Flight)> {
        let states = self.states.lock();
        let taken = states.iter().map(|(partition, state)| {
            let flight = std::mem::take(&mut state.lock().flight);
            self.in_flight_bytes
                .fetch_sub(flight.size_bytes(), Ordering::AcqRel);
            (partition.clone(), flight)
        });
        taken.filter(|(_, flight)| !flight.is_empty()).collect()
    }

    fn note(&self, state: &mut PartitionState, landed: &Landed) {
        state.end_offset = Some(landed.end_offset);
        self.in_flight_bytes
            .fetch_sub(landed.size_bytes, Ordering::AcqRel);
    }

    fn is_full(&self) -> bool {
        self.in_flight_bytes.load(Ordering::Relaxed) > IN_FLIGHT_BYTES_MAX
    }
}

/// Waits for everything that a transaction still has under way.
pub(super) async fn settle(
    inner: &Inner,
    flights: Vec<(TopicPartition, Flight)>,
) -> Result<(), ClientError> {
    let mut result = Ok(());
    for (partition, mut flight) in flights {
        while !flight.is_empty() && result.is_ok() {
            let send = |batch| inner.produce(&partition, batch);
            result = flight.land(inner.transport.env(), send).await.map(drop);
        }
        // Once one failed, nothing is sent again; what is under way arrives before the transaction's end does.
        flight.wait_for_all().await;
    }
    result
}

impl Inner {
    pub(super) fn produce(
        &self,
        partition: &TopicPartition,
        records: BuiltBatch,
    ) -> Reply<ProduceResponse> {
        self.transport.produce(ProduceRequest {
            partition: partition.clone(),
            records: records.into(),
            acks: Acks::All,
            transactional_id: Some(self.id.clone()),
        })
    }
}

/// Appends batches to one partition within the writer's transaction.
pub struct PartitionWriter {
    inner: Arc<Inner>,
    partition: TopicPartition,
    state: Arc<Mutex<PartitionState>>,
}

impl PartitionWriter {
    pub(super) fn new(inner: Arc<Inner>, partition: TopicPartition) -> Self {
        let state = inner.partitions.state(&partition);
        Self {
            inner,
            partition,
            state,
        }
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// Finishes the builder's batch, appends it and waits for the answer; returns the offset of its first
    /// record. The builder is empty afterwards.
    ///
    /// # Errors
    /// If the log refuses the batch; the transaction must then be aborted.
    ///
    /// # Panics
    /// If the builder is empty.
    pub fn append(&mut self, builder: &mut BatchBuilder) -> Result<Offset, ClientError> {
        let records_count = i64::from(builder.records_count());
        let mut state = self.state.lock();
        self.hand_over_in(&mut state, builder)?;
        self.settle_in(&mut state)?;
        let end_offset = state.end_offset.unwrap_or(Offset::ZERO);
        Ok(Offset(end_offset.0 - records_count))
    }

    /// Finishes the builder's batch and hands it over, without waiting for the answer: the next call, or the
    /// end of the transaction, tells if it failed. Waits while too much is unanswered. In-process the bytes
    /// are in the log's file when this returns. The builder is empty afterwards.
    ///
    /// # Errors
    /// If the log refuses this batch or an earlier one; the transaction must then be aborted.
    ///
    /// # Panics
    /// If the builder is empty.
    pub fn hand_over(&mut self, builder: &mut BatchBuilder) -> Result<(), ClientError> {
        self.hand_over_in(&mut self.state.lock(), builder)
    }

    /// Waits for the answers to all batches of the partition; returns the offset behind the last record
    /// that was ever appended to it through this writer.
    ///
    /// # Errors
    /// If the log refused one; the transaction must then be aborted.
    pub fn settle(&mut self) -> Result<Option<Offset>, ClientError> {
        let mut state = self.state.lock();
        self.settle_in(&mut state)?;
        Ok(state.end_offset)
    }

    fn hand_over_in(
        &self,
        state: &mut PartitionState,
        builder: &mut BatchBuilder,
    ) -> Result<(), ClientError> {
        assert!(!builder.is_empty(), "a batch holds at least one record");
        let (identity, generation) = self.inner.enter("append")?;
        if state.generation != generation {
            assert!(state.flight.is_empty(), "a transaction's end takes it");
            (state.generation, state.next) = (generation, Sequence::ZERO);
        }
        self.make_room(state)
            .map_err(|e| self.inner.fail(generation, e))?;
        let records_count = builder.records_count();
        let batch = builder.build(BatchProducer::Transactional(identity, state.next));
        let size_bytes = batch.bytes().len();
        // Where no answer is lost, the log may stamp the bytes in place, which nobody else holds then.
        let again = self
            .inner
            .transport
            .may_lose_answers()
            .then(|| batch.clone());
        let reply = self.inner.produce(&self.partition, batch);
        state.next = state.next.plus(records_count);
        let partitions = &self.inner.partitions;
        partitions
            .in_flight_bytes
            .fetch_add(size_bytes, Ordering::AcqRel);
        let batch = InFlight::new(reply, records_count, size_bytes, again);
        state.flight.push(batch);
        self.land_ready(state);
        match state.flight.is_failed() {
            true => self.settle_in(state),
            false => Ok(()),
        }
    }

    fn land_ready(&self, state: &mut PartitionState) {
        while let Some(landed) = state.flight.land_ready() {
            self.inner.partitions.note(state, &landed);
        }
    }

    /// Waits until one more batch may be under way.
    fn make_room(&self, state: &mut PartitionState) -> Result<(), ClientError> {
        self.land_ready(state);
        while state.flight.len() >= BATCHES_MAX
            || (self.inner.partitions.is_full() && !state.flight.is_empty())
        {
            self.land(state)?;
        }
        Ok(())
    }

    fn land(&self, state: &mut PartitionState) -> Result<(), ClientError> {
        let send = |batch| self.inner.produce(&self.partition, batch);
        if let Some(landed) = wait(state.flight.land(self.inner.transport.env(), send))? {
            self.inner.partitions.note(state, &landed);
        }
        Ok(())
    }

    fn settle_in(&self, state: &mut PartitionState) -> Result<(), ClientError> {
        while !state.flight.is_empty() {
            let generation = state.generation;
            self.land(state)
                .map_err(|e| self.inner.fail(generation, e))?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for PartitionWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PartitionWriter")
            .field(&self.partition)
            .finish()
    }
}
