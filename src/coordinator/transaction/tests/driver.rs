//! A world driven request by request, for histories with a name.

use std::time::Duration;

use super::clients::{init_request, request_id};
use super::partition::Item;
use super::world::{Mutant, World, id, partition};
use crate::coordinator::transaction::*;
use crate::protocol::ErrorCode;
use crate::protocol::messages::*;
use crate::types::*;

pub(super) const COMMIT: TransactionResult = TransactionResult::Commit;
pub(super) const ABORT: TransactionResult = TransactionResult::Abort;

/// A world of two partitions and the offsets journal, driven request by request.
pub(super) struct Driver {
    pub(super) world: World,
    requests: u64,
}

impl Driver {
    pub(super) fn new() -> Self {
        let world = World::new(0, 3, Mutant::None);
        Self { world, requests: 0 }
    }

    /// Sends a request, without running any effect.
    pub(super) fn send(
        &mut self,
        input: impl FnOnce(crate::coordinator::RequestId) -> Input,
    ) -> u64 {
        self.requests += 1;
        let request = request_id(9, self.requests);
        self.world.step(input(request));
        self.requests
    }

    pub(super) fn reply(&self, request: u64) -> Option<Result<Reply, ErrorCode>> {
        self.world.replies.get(&request_id(9, request)).copied()
    }

    pub(super) fn send_init(&mut self) -> u64 {
        self.send(|request| Input::Init {
            request,
            message: init_request(),
            holder: Residence::Remote,
        })
    }

    pub(super) fn send_end(
        &mut self,
        producer: ProducerIdentity,
        result: TransactionResult,
    ) -> u64 {
        if result == COMMIT {
            self.world.wanted.insert(label_of(producer));
        }
        self.send(|request| Input::End {
            request,
            message: EndTxnRequest {
                transactional_id: id(),
                producer,
                result,
            },
        })
    }

    pub(super) fn finish(&mut self, request: u64) -> Result<ProducerIdentity, ErrorCode> {
        self.world.settle();
        assert_eq!(self.world.violation, None);
        match self.reply(request).expect("the request is answered") {
            Ok(Reply::Producer(producer)) => Ok(producer),
            Ok(Reply::Done) => panic!("an identity was asked for"),
            Err(error) => Err(error),
        }
    }

    pub(super) fn init(&mut self) -> ProducerIdentity {
        let request = self.send_init();
        self.finish(request).unwrap()
    }

    pub(super) fn end(
        &mut self,
        producer: ProducerIdentity,
        result: TransactionResult,
    ) -> Result<ProducerIdentity, ErrorCode> {
        let request = self.send_end(producer, result);
        self.finish(request)
    }

    pub(super) fn add(&mut self, producer: ProducerIdentity, at: usize) -> Result<(), ErrorCode> {
        let request = self.send(|request| Input::AddPartitions {
            request,
            transactional_id: id(),
            producer,
            partitions: vec![partition(at)],
        });
        self.reply(request)
            .expect("answered under the lock")
            .map(|_| ())
    }

    /// One record in partition `at`, within the transaction.
    pub(super) fn write(&mut self, producer: ProducerIdentity, at: usize) -> Result<(), ErrorCode> {
        let coordinator = &self.world.coordinator;
        if coordinator.check_append(&id(), producer, &partition(at))? == PartitionCheck::MustJoin {
            self.add(producer, at)?;
        }
        let label = label_of(producer);
        let data = Item::Data { producer, label };
        self.world.partitions[at].items.push(data);
        Ok(())
    }

    pub(super) fn state(&self) -> TransactionState {
        self.world.coordinator.describe(&id()).unwrap().state
    }

    pub(super) fn markers(&self, at: usize) -> Vec<TransactionResult> {
        let items = self.world.partitions[at].items.iter();
        let markers = items.filter_map(|item| match item {
            Item::Marker { result, .. } => Some(*result),
            Item::Data { .. } => None,
        });
        markers.collect()
    }

    pub(super) fn crash(&mut self, keeps_unsynced: bool) {
        let kept = if keeps_unsynced { 0xff } else { 0 };
        self.world.crash(kept, false);
    }

    pub(super) fn kill(&mut self) {
        self.world.kill(false);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.world.now.instant = self.world.now.instant.plus(time);
        self.world.step(Input::Tick);
    }
}

/// A number for the transaction of each identity.
fn label_of(producer: ProducerIdentity) -> u8 {
    u8::try_from(producer.id.0 * 8 + i64::from(producer.epoch.0)).unwrap()
}

/// Takes the next effect without running it.
pub(super) fn ticket_of(driver: &mut Driver) -> crate::coordinator::Ticket {
    match driver.world.queue.pop_front() {
        Some(
            Effect::AppendJournal { ticket, .. }
            | Effect::SyncData { ticket, .. }
            | Effect::WriteMarkers { ticket, .. },
        ) => ticket,
        other => panic!("{other:?} has no ticket"),
    }
}
