//! The log against a model of thirty lines, under random operations, restarts and power losses.

use proptest::prelude::*;

use super::support::*;
use crate::env::simulated::{PowerLoss, SimulatedWorld};
use crate::log::*;
use crate::protocol::ErrorCode;
use crate::types::{Offset, ProducerId, Timestamp};

/// Operation on a log.
#[derive(Debug, Clone)]
enum Operation {
    Plain {
        records_count: u8,
    },
    /// A batch of producer `id`, `skip` sequences too far on (0: the right one).
    Data {
        id: u8,
        records_count: u8,
        skip: u8,
    },
    /// The producer's last batch again.
    Retry {
        id: u8,
    },
    Marker {
        id: u8,
        is_commit: bool,
        is_repeated: bool,
    },
    Sync,
    DeleteRecords {
        percent: u8,
    },
    Retention,
    Compact,
    Reopen,
    Kill,
    Crash {
        mode: u8,
        seed: u8,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        3 => (1..4u8).prop_map(|records_count| Plain { records_count }),
        8 => (0..4u8, 1..4u8, prop_oneof![9 => Just(0u8), 1 => 1..3u8])
            .prop_map(|(id, records_count, skip)| Data { id, records_count, skip }),
        2 => (0..4u8).prop_map(|id| Retry { id }),
        4 => (0..4u8, any::<bool>(), any::<bool>())
            .prop_map(|(id, is_commit, is_repeated)| Marker { id, is_commit, is_repeated }),
        4 => Just(Sync),
        1 => (0..101u8).prop_map(|percent| DeleteRecords { percent }),
        1 => Just(Retention),
        1 => Just(Compact),
        1 => Just(Reopen),
        1 => Just(Kill),
        2 => (0..32u8, any::<u8>()).prop_map(|(mode, seed)| Crash { mode, seed }),
    ]
}

/// One offset of the model.
#[derive(Debug, Clone, PartialEq)]
struct Slot {
    value: Option<String>,
    producer: Option<usize>,
    /// A marker ends the transaction of its producer: whether it committed.
    ended: Option<bool>,
}

/// A producer of the model: producers 0 and 1 are transactional, 2 and 3 idempotent.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    producer_epoch: i16,
    next_sequence: i32,
    last: Option<(i32, u8, i64)>,
    is_open: bool,
}

/// The model: all offsets ever written, the producers after each of them, and the marks.
#[derive(Debug, Clone, Default)]
struct Model {
    slots: Vec<Slot>,
    /// The leader epoch of each slot.
    epochs: Vec<i32>,
    leader_epoch: i32,
    history: Vec<[Known; 4]>,
    known: [Known; 4],
    log_start: usize,
    synced_end: usize,
    /// One past the last marker.
    acknowledged_end: usize,
}

impl Model {
    fn push(&mut self, slot: Slot, batch_end: bool) {
        self.slots.push(slot);
        self.epochs.push(self.leader_epoch);
        self.history.push(self.known.clone());
        assert!(batch_end || self.slots.len() == self.history.len());
    }

    fn cut(&mut self, end: usize) {
        self.slots.truncate(end);
        self.epochs.truncate(end);
        self.history.truncate(end);
        self.known = self.history.last().cloned().unwrap_or_default();
        self.synced_end = end;
        self.acknowledged_end = 0;
    }

    fn first_open(&self) -> usize {
        let mut open = [None; 4];
        for (offset, slot) in self.slots.iter().enumerate() {
            match (slot.producer, slot.ended) {
                (Some(id), Some(_)) => open[id] = None,
                (Some(id), None) if id < 2 => open[id] = open[id].or(Some(offset)),
                _ => {}
            }
        }
        open.into_iter().flatten().min().unwrap_or(self.slots.len())
    }

    fn visible(&self, end: usize, is_committed: bool) -> Vec<Seen> {
        let is_shown = |offset: usize, slot: &Slot| match slot.producer {
            Some(id) if id < 2 && is_committed => {
                let after = &self.slots[offset..];
                after
                    .iter()
                    .find(|later| later.producer == Some(id) && later.ended.is_some())
                    .is_some_and(|marker| marker.ended == Some(true))
            }
            _ => true,
        };
        let slots = self.slots.iter().enumerate().take(end).skip(self.log_start);
        slots
            .filter(|(offset, slot)| is_shown(*offset, slot))
            .filter_map(|(offset, slot)| {
                Some((i64::try_from(offset).unwrap(), slot.value.clone()?))
            })
            .collect()
    }
}

struct Run {
    world: SimulatedWorld,
    place: Place,
    log: Option<PartitionLog>,
    model: Model,
    is_compacted: bool,
}

impl Run {
    fn new(seed: u64, cleanup: CleanupPolicy) -> Self {
        let world = SimulatedWorld::new(seed);
        let mut place = Place::new(&world);
        place.config.segment_bytes = 600;
        place.config.index_interval_bytes = 150;
        place.config.retention_ms = None;
        place.config.cleanup = cleanup;
        place.config.min_cleanable_dirty_ratio = 0.0;
        let log = Some(place.create());
        Self {
            world,
            place,
            log,
            model: Model::default(),
            is_compacted: cleanup.is_compacting(),
        }
    }

    fn log(&mut self) -> &mut PartitionLog {
        self.log.as_mut().unwrap()
    }

    fn batch(&self, id: Option<u8>, sequence: i32, records_count: u8, at: usize) -> bytes::Bytes {
        use crate::protocol::batch::BatchProducer::*;
        use crate::types::Sequence;
        let names: Vec<String> = (0..usize::from(records_count))
            .map(|n| format!("k{}", (at + n) % 5))
            .collect();
        let values: Vec<String> = (0..usize::from(records_count))
            .map(|n| format!("{}", at + n))
            .collect();
        let records: Vec<_> = names
            .iter()
            .zip(&values)
            .map(|(k, v)| (k.as_str(), Some(v.as_str())))
            .collect();
        let writer = match id {
            None => Plain,
            Some(id) => {
                let identity = producer(
                    i64::from(id),
                    self.model.known[usize::from(id)].producer_epoch,
                );
                match id < 2 {
                    true => Transactional(identity, Sequence(sequence)),
                    false => Idempotent(identity, Sequence(sequence)),
                }
            }
        };
        keyed(&records, i64::try_from(at).unwrap(), writer)
    }

    fn note(&mut self, id: Option<u8>, records_count: u8) {
        let at = self.model.slots.len();
        for n in 0..usize::from(records_count) {
            let value = Some(format!("k{}={}", (at + n) % 5, at + n));
            let producer = id.map(usize::from);
            self.model.push(
                Slot {
                    value,
                    producer,
                    ended: None,
                },
                true,
            );
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Plain { records_count } => {
                let at = self.model.slots.len();
                let batch = self.batch(None, 0, records_count, at);
                let appended = self.log().put(batch).unwrap();
                assert_eq!(usize::try_from(appended.base_offset.0).unwrap(), at);
                self.note(None, records_count);
            }
            Operation::Data {
                id,
                records_count,
                skip,
            } => self.put_data(id, records_count, skip),
            Operation::Retry { id } => self.retry(id),
            Operation::Marker {
                id,
                is_commit,
                is_repeated,
            } => {
                self.put_marker(id, is_commit);
                if is_repeated {
                    let known = self.model.known[usize::from(id)].producer_epoch;
                    let again = self
                        .log()
                        .append_marker(producer(i64::from(id), known), commit());
                    assert!(again.unwrap().is_duplicate);
                }
            }
            Operation::Sync => self.log().sync(),
            Operation::DeleteRecords { percent } => {
                let stable = usize::try_from(self.log().last_stable_offset().0).unwrap();
                let to = stable * usize::from(percent) / 100;
                let start = self
                    .log()
                    .delete_records(Offset(i64::try_from(to).unwrap()))
                    .unwrap();
                self.model.log_start = usize::try_from(start.0).unwrap();
            }
            Operation::Retention => {
                self.log().apply_retention(Timestamp(0)).unwrap();
            }
            Operation::Compact => {
                self.log().compact(Timestamp(0)).unwrap();
            }
            Operation::Reopen => {
                self.log.take().unwrap().close().unwrap();
                self.open(true);
            }
            Operation::Kill => {
                self.log = None;
                self.world = self.world.after_kill();
                self.open(false);
            }
            Operation::Crash { mode, seed } => {
                let loss = PowerLoss::every_mode(u64::from(seed))
                    .nth(usize::from(mode))
                    .unwrap();
                self.log = None;
                self.world = self.world.after_power_loss(loss);
                self.open(false);
            }
        }
        self.check();
    }

    fn put_data(&mut self, id: u8, records_count: u8, skip: u8) {
        let index = usize::from(id);
        let at = self.model.slots.len();
        let sequence = self.model.known[index].next_sequence + i32::from(skip);
        let batch = self.batch(Some(id), sequence, records_count, at);
        if skip > 0 && !self.log().knows_producer(ProducerId(i64::from(id))) {
            // Any first sequence would be taken.
            return;
        }
        let result = self.log().put(batch);
        if skip > 0 {
            let code = result.unwrap_err().code();
            assert_eq!(code, ErrorCode::OutOfOrderSequenceNumber);
            return;
        }
        assert!(!result.unwrap().is_duplicate);
        let known = &mut self.model.known[index];
        known.next_sequence += i32::from(records_count);
        known.last = Some((sequence, records_count, i64::try_from(at).unwrap()));
        known.is_open = id < 2;
        self.note(Some(id), records_count);
    }

    fn retry(&mut self, id: u8) {
        let Some((sequence, records_count, at)) = self.model.known[usize::from(id)].last else {
            return;
        };
        let batch = self.batch(Some(id), sequence, records_count, 0);
        let again = self.log().put(batch).unwrap();
        assert!(again.is_duplicate);
        assert_eq!(again.base_offset, Offset(at));
    }

    fn put_marker(&mut self, id: u8, is_commit: bool) {
        let index = usize::from(id);
        let next = producer(i64::from(id), self.model.known[index].producer_epoch + 1);
        let marker = if is_commit { commit() } else { abort() };
        let appended = self.log().append_marker(next, marker).unwrap();
        assert!(!appended.is_duplicate);
        let producer_epoch = next.epoch.0;
        self.model.known[index] = Known {
            producer_epoch,
            ..Known::default()
        };
        self.model.push(
            Slot {
                value: None,
                producer: Some(index),
                ended: Some(is_commit),
            },
            true,
        );
        self.model.acknowledged_end = self.model.slots.len();
    }

    fn open(&mut self, is_clean: bool) {
        self.place = self.place.on(&self.world);
        self.model.leader_epoch += 1;
        self.place.config.leader_epoch = self.model.leader_epoch;
        let as_offset = |offset: usize| Offset(i64::try_from(offset).unwrap());
        let (log, report) = self
            .place
            .open_with(RecoveryMarks {
                durable_end: as_offset(self.model.synced_end),
                log_start: as_offset(self.model.log_start),
                clean_shutdown: is_clean,
                ..RecoveryMarks::default()
            })
            .unwrap();
        let end = usize::try_from(log.log_end_offset().0).unwrap();
        assert!(
            end >= self.model.synced_end,
            "acknowledged records are lost"
        );
        assert!(
            !is_clean || report.scanned_bytes == 0,
            "a closed log is not scanned"
        );
        self.model.cut(end);
        self.log = Some(log);
    }

    /// The log must answer as the model does.
    fn check(&mut self) {
        let log = self.log.as_ref().unwrap();
        let as_index = |offset: Offset| usize::try_from(offset.0).unwrap();
        self.model.synced_end = as_index(log.synced_end());
        self.model.log_start = self.model.log_start.max(as_index(log.log_start_offset()));
        let model = &self.model;
        assert_eq!(as_index(log.log_end_offset()), model.slots.len());
        let stable = model.first_open().min(model.synced_end);
        assert_eq!(as_index(log.last_stable_offset()), stable);
        let (committed, uncommitted) = (
            model.visible(stable, true),
            model.visible(model.synced_end.max(model.acknowledged_end), false),
        );
        // Compaction may take the first record of an epoch, and a log that is read again begins the epoch behind it.
        if !self.is_compacted {
            for (offset, &epoch) in model.epochs.iter().enumerate().skip(model.log_start) {
                let found = log.leader_epoch_at(Offset(i64::try_from(offset).unwrap()));
                assert_eq!(found, epoch, "the leader epoch of offset {offset}");
            }
        }
        if self.is_compacted {
            assert_eq!(latest(&log.committed()), latest(&committed));
            assert!(log.committed().iter().all(|seen| committed.contains(seen)));
            assert!(
                log.uncommitted()
                    .iter()
                    .all(|seen| uncommitted.contains(seen))
            );
        } else {
            assert_eq!(log.committed(), committed);
            assert_eq!(log.uncommitted(), uncommitted);
        }
        let open: Vec<_> = log
            .open_transactions()
            .iter()
            .map(|(open, _)| open.id.0)
            .collect();
        for id in 0..2 {
            assert_eq!(
                open.contains(&i64::try_from(id).unwrap()),
                model.known[id].is_open,
                "producer {id}"
            );
        }
    }
}

fn latest(seen: &[Seen]) -> std::collections::BTreeMap<String, String> {
    let pairs = seen.iter().filter_map(|(_, shown)| shown.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(150)
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn i1_i5_i6_i9_the_log_does_what_the_model_does(
        seed: u64, operations in prop::collection::vec(operation(), 1..60)
    ) {
        let mut run = Run::new(seed, CleanupPolicy::Delete);
        for operation in &operations {
            run.apply(operation);
        }
    }

    #[test]
    fn c26_a_compacted_log_keeps_the_latest_committed_record_of_each_key(
        seed: u64, operations in prop::collection::vec(operation(), 1..60)
    ) {
        let mut run = Run::new(seed, CleanupPolicy::Compact);
        for operation in &operations {
            run.apply(operation);
        }
    }
}
