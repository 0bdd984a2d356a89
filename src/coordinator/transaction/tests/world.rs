//! A world for the coordinator: a journal and partitions that lose what is unsynced, clients, a network, and the rules that must hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::partition::{File, Item};
use crate::coordinator::transaction::*;
use crate::coordinator::transaction_log::{Key, TransactionRecord};
use crate::coordinator::{Now, RequestId};
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::messages::*;
use crate::types::*;

/// Ways to break the world, each of which must be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mutant {
    None,
    /// Data is appended without asking the coordinator.
    SkipAppendCheck,
    /// The last partition gets no marker.
    ForgetMarker,
    /// Recovery does not look into the partitions.
    ForgetOpenTransactions,
    /// The decision does not wait for the data.
    DecideBeforeSync,
    /// The journal says that it is synced, and is not.
    UnsyncedJournal,
    /// Recovery serves what the next power loss may take back.
    ServeUnsyncedRecovery,
    /// Only the partitions of this transaction are synced, not those of the last commit.
    ForgetEarlierMarkers,
    /// The journal answers, but has not written.
    MutateBeforeAppend,
    /// Records forget the last commit.
    ForgetLastCommit,
    /// An end applies to whatever is open, whatever its epoch.
    EndIgnoresEpoch,
    /// Markers are written before the decision.
    MarkersBeforeDecision,
    /// Recovery takes an open transaction for a committed one.
    CommitOpenOnRecovery,
    /// A power loss is taken for the end of a process.
    OverlookPowerLoss,
    /// The end of a process makes a power loss before it forgotten.
    ForgetPowerLoss,
    /// The end of a process is taken for a power loss.
    SuspectPowerLoss,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Message {
    Init {
        client: usize,
    },
    Produce {
        client: usize,
        producer: ProducerIdentity,
        label: u8,
        partition: usize,
    },
    End {
        client: usize,
        producer: ProducerIdentity,
        label: u8,
        result: TransactionResult,
    },
}

#[derive(Debug, Clone, Hash)]
pub(super) struct Client {
    pub(super) identity: Option<ProducerIdentity>,
    /// The number of the current transaction over all clients.
    pub(super) label: u8,
    pub(super) sent: BTreeSet<usize>,
    pub(super) acked: BTreeSet<usize>,
    pub(super) ending: Option<TransactionResult>,
    pub(super) is_fenced: bool,
    pub(super) is_initialising: bool,
    /// Whether power was lost while its transaction ended, by it or by a recovery: nobody knows whether it had the next
    /// identity before.
    pub(super) is_in_doubt: bool,
    pub(super) inits_left: u8,
    pub(super) transactions_left: u8,
    pub(super) holder: Residence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    SendInit(usize),
    SendProduce(usize, usize),
    SendEnd(usize, TransactionResult),
    Deliver(usize),
    DeliverCopy(usize),
    RunEffect,
    Timeout,
    /// The machine loses power. Which files keep their unsynced bytes, and whether the next effect had begun.
    Crash {
        kept: u8,
        has_begun: bool,
    },
    /// The process ends, and the machine lives on. Whether the next effect had begun.
    Kill {
        has_begun: bool,
    },
}

pub(super) const ID: &str = "t";

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) coordinator: TransactionCoordinator,
    pub(super) config: Config,
    pub(super) now: Now,
    pub(super) journal: File<(Bytes, Option<Bytes>)>,
    pub(super) partitions: Vec<File<Item>>,
    pub(super) queue: VecDeque<Effect>,
    pub(super) clients: Vec<Client>,
    pub(super) network: Vec<Message>,
    pub(super) replies: BTreeMap<RequestId, Result<Reply, ErrorCode>>,
    pub(super) copies_left: u8,
    pub(super) timeouts_left: u8,
    pub(super) crashes_left: u8,
    pub(super) kills_left: u8,
    /// As the data directory keeps it: the first opening since which no power was lost.
    pub(super) whole_since: i32,
    /// The transactions that somebody else than their client may have aborted: all that there were when power was lost or
    /// time ran out.
    pub(super) excused: BTreeSet<u8>,
    /// Partitions that the next recovery cannot read.
    pub(super) unreadable: BTreeSet<TopicPartition>,
    pub(super) mutant: Mutant,
    /// Answers to clients on each transaction: how it ended, and what they know to be in it.
    pub(super) told: BTreeMap<u8, (TransactionResult, BTreeSet<usize>)>,
    /// The transactions whose client wanted to commit.
    pub(super) wanted: BTreeSet<u8>,
    /// To whom each identity was given.
    pub(super) issued: BTreeMap<(i64, i16), usize>,
    pub(super) newest: Option<ProducerIdentity>,
    pub(super) lso_seen: Vec<usize>,
    pub(super) labels: u8,
    pub(super) violation: Option<String>,
}

pub(super) fn partition(index: usize) -> TopicPartition {
    let (topic, number) = match index {
        // The last one stands for the positions of a group.
        2 => ("__consumer_offsets", 0),
        _ => ("data", i32::try_from(index).unwrap()),
    };
    TopicPartition::new(TopicName::new(topic).unwrap(), number)
}

fn index(of: &TopicPartition) -> usize {
    (0..3).find(|it| partition(*it) == *of).unwrap()
}

pub(super) fn id() -> TransactionalId {
    TransactionalId::new(ID).unwrap()
}

impl World {
    pub(super) fn new(clients: usize, partitions: usize, mutant: Mutant) -> Self {
        let config = Config {
            producer_id_block_size: 2,
            ..Config::default()
        };
        let client = Client {
            identity: None,
            label: 0,
            sent: BTreeSet::new(),
            acked: BTreeSet::new(),
            ending: None,
            is_fenced: false,
            is_initialising: false,
            is_in_doubt: false,
            inits_left: 1,
            transactions_left: 2,
            holder: Residence::Remote,
        };
        let mut world = Self {
            coordinator: TransactionCoordinator::new(config.clone()),
            config,
            now: Now {
                instant: Instant(Duration::from_secs(1000)),
                wall: Timestamp(1_000_000),
            },
            journal: File::new(),
            partitions: vec![File::new(); partitions],
            queue: VecDeque::new(),
            clients: vec![client; clients],
            network: Vec::new(),
            replies: BTreeMap::new(),
            copies_left: 0,
            timeouts_left: 0,
            crashes_left: 0,
            kills_left: 0,
            whole_since: 0,
            excused: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            mutant,
            told: BTreeMap::new(),
            wanted: BTreeSet::new(),
            issued: BTreeMap::new(),
            newest: None,
            lso_seen: vec![0; partitions],
            labels: 0,
            violation: None,
        };
        let effects = world
            .coordinator
            .step(Input::ReplayDone(Found::default()), world.now);
        assert_eq!(effects, [Effect::Recovered]);
        world
    }

    pub(super) fn with_epoch_max(mut self, epoch_max: i16) -> Self {
        self.config.producer_epoch_max = ProducerEpoch(epoch_max);
        self.coordinator.config = self.config.clone();
        self
    }

    pub(super) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn apply(&mut self, action: Action) {
        match action {
            Action::SendInit(client) => {
                self.clients[client].inits_left -= 1;
                self.clients[client].is_initialising = true;
                self.network.push(Message::Init { client });
            }
            Action::SendProduce(client, partition) => self.send_produce(client, partition),
            Action::SendEnd(client, result) => self.send_end(client, result),
            Action::Deliver(at) => {
                let message = self.network.remove(at);
                self.deliver(message);
            }
            Action::DeliverCopy(at) => {
                self.copies_left -= 1;
                self.deliver(self.network[at]);
            }
            Action::RunEffect => self.run_effect(),
            Action::Timeout => {
                self.timeouts_left -= 1;
                self.excused.extend(0..=self.labels);
                self.now.instant = self.now.instant.plus(Duration::from_secs(3600));
                self.step(Input::Tick);
            }
            Action::Crash { kept, has_begun } => {
                self.crashes_left -= 1;
                self.crash(kept, has_begun);
            }
            Action::Kill { has_begun } => {
                self.kills_left -= 1;
                self.kill(has_begun);
            }
        }
        self.check();
    }

    pub(super) fn step(&mut self, input: Input) {
        for effect in self.coordinator.step(input, self.now) {
            match effect {
                Effect::AppendJournal {
                    ticket,
                    key,
                    value,
                    sync: false,
                } => {
                    // As the broker does it: under the same lock as the step.
                    self.append_journal(key, value);
                    self.step(Input::JournalWritten { ticket });
                }
                Effect::Reply { request, result } => self.reply(request, result),
                Effect::Recovered => {}
                other => self.queue.push_back(other),
            }
        }
    }

    pub(super) fn append_journal(&mut self, key: Bytes, value: Option<Bytes>) {
        if self.mutant == Mutant::MutateBeforeAppend {
            return;
        }
        let value = match (self.mutant, value) {
            (Mutant::ForgetLastCommit, Some(value)) => Some(without_last_commit(&key, value)),
            (_, value) => value,
        };
        self.journal.items.push((key, value));
    }

    pub(super) fn run_effect(&mut self) {
        match self.queue.pop_front() {
            Some(Effect::AppendJournal {
                ticket, key, value, ..
            }) => {
                self.append_journal(key, value);
                if self.mutant != Mutant::UnsyncedJournal {
                    self.journal.sync();
                }
                self.step(Input::JournalWritten { ticket });
            }
            Some(Effect::SyncData { ticket, partitions }) => self.sync_data(ticket, &partitions),
            Some(Effect::WriteMarkers {
                ticket,
                producer,
                epochs,
                result,
                mut partitions,
                coordinator_epoch,
            }) => {
                // One partition at a time, so that a crash may come between two.
                let first = partitions.remove(0);
                let is_last = partitions.is_empty();
                if !(is_last && self.mutant == Mutant::ForgetMarker) {
                    self.write_marker(index(&first), producer, epochs, result);
                }
                match is_last {
                    true => self.step(Input::MarkersWritten { ticket }),
                    false => self.queue.push_front(Effect::WriteMarkers {
                        ticket,
                        producer,
                        epochs,
                        result,
                        partitions,
                        coordinator_epoch,
                    }),
                }
            }
            other => panic!("{other:?} was not to be run"),
        }
    }

    fn sync_data(&mut self, ticket: crate::coordinator::Ticket, partitions: &[TopicPartition]) {
        for at in partitions.iter().map(index) {
            let is_open = self.partitions[at].open().next().is_some();
            match self.mutant {
                Mutant::DecideBeforeSync => {}
                Mutant::ForgetEarlierMarkers if !is_open => {}
                Mutant::MarkersBeforeDecision => {
                    let open = self.partitions[at].open().next();
                    if let Some(producer) = open {
                        let marker = super::super::state::bumped(producer);
                        self.write_marker(
                            at,
                            marker,
                            EpochAtEnd::Bumped,
                            TransactionResult::Commit,
                        );
                    }
                    self.partitions[at].sync();
                }
                _ => self.partitions[at].sync(),
            }
        }
        let ends = partitions.iter().map(|partition| DurableEnd {
            partition: partition.clone(),
            topic_id: TopicId(7),
            offset: Offset(i64::try_from(self.partitions[index(partition)].synced).unwrap()),
        });
        let ends = ends.collect();
        self.step(Input::DataSynced { ticket, ends });
    }

    /// The partition's rules for markers (KIP-1228 and its exception for retries).
    fn write_marker(
        &mut self,
        at: usize,
        producer: ProducerIdentity,
        epochs: EpochAtEnd,
        result: TransactionResult,
    ) {
        let known = self.partitions[at].epoch(producer.id);
        let open = self.partitions[at]
            .open()
            .find(|open| open.id == producer.id);
        let is_kept = epochs == EpochAtEnd::Kept && known == Some(producer.epoch) && open.is_some();
        let is_above = is_kept || known.is_none_or(|known| producer.epoch > known);
        match (is_above, open) {
            (true, _) => self.partitions[at]
                .items
                .push(Item::Marker { producer, result }),
            (false, None) if known == Some(producer.epoch) => {}
            _ => self.violate(format!(
                "partition {at} refuses the marker {producer:?}: it knows epoch {known:?}"
            )),
        }
    }

    pub(super) fn crash(&mut self, kept: u8, has_begun: bool) {
        self.begin_effect(has_begun);
        self.journal.crash(kept & 1 != 0);
        for (at, file) in self.partitions.iter_mut().enumerate() {
            file.crash(kept >> (at + 1) & 1 != 0);
        }
        for client in &mut self.clients {
            client.is_in_doubt |= client.ending.is_some() || self.excused.contains(&client.label);
        }
        self.excused.extend(0..=self.labels);
        self.restart(self.mutant == Mutant::OverlookPowerLoss);
    }

    pub(super) fn kill(&mut self, has_begun: bool) {
        self.begin_effect(has_begun);
        if self.mutant == Mutant::ForgetPowerLoss {
            self.whole_since = 0;
        }
        self.restart(self.mutant != Mutant::SuspectPowerLoss);
    }

    fn begin_effect(&mut self, has_begun: bool) {
        if has_begun && let Some(Effect::AppendJournal { key, value, .. }) = self.queue.pop_front()
        {
            self.append_journal(key, value);
        }
    }

    fn restart(&mut self, is_whole: bool) {
        self.queue.clear();
        self.config.opening += 1;
        if !is_whole {
            self.whole_since = self.config.opening;
        }
        self.coordinator = TransactionCoordinator::new(self.config.clone());
        for client in &mut self.clients {
            if std::mem::take(&mut client.is_initialising) {
                client.inits_left += 1;
            }
        }
        if self.mutant != Mutant::ServeUnsyncedRecovery {
            self.journal.sync();
            self.partitions.iter_mut().for_each(File::sync);
        }
        for (key, value) in &self.journal.items {
            let value = match (self.mutant, value) {
                (Mutant::CommitOpenOnRecovery, Some(value)) => Some(with_commit(key, value)),
                (_, value) => value.clone(),
            };
            let replayed = self.coordinator.replay(key, value.as_deref(), self.now);
            replayed.expect("the journal replays");
        }
        let open = match self.mutant {
            Mutant::ForgetOpenTransactions => Vec::new(),
            _ => self.open_transactions(),
        };
        self.step(Input::ReplayDone(Found {
            open,
            unreadable: self.unreadable.clone(),
            whole_since: self.whole_since,
        }));
    }

    pub(super) fn open_transactions(&self) -> Vec<OpenTransaction> {
        let files = self.partitions.iter().enumerate();
        files
            .flat_map(|(at, file)| {
                file.open().map(move |producer| OpenTransaction {
                    partition: partition(at),
                    producer,
                })
            })
            .collect()
    }

    /// Runs every effect until nothing is left to do.
    pub(super) fn settle(&mut self) {
        while !self.queue.is_empty() {
            self.apply(Action::RunEffect);
        }
    }
}

fn without_last_commit(key: &Bytes, value: Bytes) -> Bytes {
    match Key::decode(key) {
        Ok(Key::Transaction(_)) => {
            let mut record = TransactionRecord::decode(&value).unwrap();
            if record.state != TransactionState::PrepareCommit {
                record.last_commit = None;
            }
            record.encode()
        }
        _ => value,
    }
}

fn with_commit(key: &Bytes, value: &Bytes) -> Bytes {
    match Key::decode(key) {
        Ok(Key::Transaction(_)) => {
            let mut record = TransactionRecord::decode(value).unwrap();
            if record.state == TransactionState::Ongoing {
                record.state = TransactionState::PrepareCommit;
                record.last_commit = Some(record.producer);
                record.last = Some(record.producer);
                record.producer = super::super::state::bumped(record.producer);
            }
            record.encode()
        }
        _ => value.clone(),
    }
}
