//! A partition of the model: data and markers, of which the unsynced end may be lost.

use std::collections::BTreeMap;

use crate::protocol::messages::TransactionResult;
use crate::types::{ProducerEpoch, ProducerId, ProducerIdentity};

#[derive(Debug, Clone, Hash)]
pub(super) struct File<T> {
    pub(super) items: Vec<T>,
    pub(super) synced: usize,
}

impl<T> File<T> {
    pub(super) fn new() -> Self {
        let items = Vec::new();
        Self { items, synced: 0 }
    }

    pub(super) fn sync(&mut self) {
        self.synced = self.items.len();
    }

    pub(super) fn crash(&mut self, keeps_unsynced: bool) {
        if !keeps_unsynced {
            self.items.truncate(self.synced);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Data {
        producer: ProducerIdentity,
        label: u8,
    },
    Marker {
        producer: ProducerIdentity,
        result: TransactionResult,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Open,
    Committed,
    Aborted,
}

impl File<Item> {
    pub(super) fn epoch(&self, id: ProducerId) -> Option<ProducerEpoch> {
        let epochs = self.items.iter().filter_map(|item| match item {
            Item::Data { producer, .. } | Item::Marker { producer, .. } => {
                (producer.id == id).then_some(producer.epoch)
            }
        });
        epochs.max()
    }

    fn open_at(&self) -> BTreeMap<i64, (usize, ProducerIdentity)> {
        let mut open = BTreeMap::new();
        for (at, item) in self.items.iter().enumerate() {
            match item {
                Item::Data { producer, .. } => {
                    open.entry(producer.id.0).or_insert((at, *producer));
                }
                Item::Marker { producer, .. } => {
                    open.remove(&producer.id.0);
                }
            }
        }
        open
    }

    pub(super) fn open(&self) -> impl Iterator<Item = ProducerIdentity> + use<> {
        self.open_at().into_values().map(|(_, producer)| producer)
    }

    pub(super) fn first_open(&self) -> usize {
        let first = self.open_at().into_values().map(|(at, _)| at).min();
        first.unwrap_or(self.items.len())
    }

    pub(super) fn fates(&self) -> BTreeMap<u8, Fate> {
        let mut fates = BTreeMap::new();
        let mut open: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
        for item in &self.items {
            match item {
                Item::Data { producer, label } => {
                    fates.insert(*label, Fate::Open);
                    open.entry(producer.id.0).or_default().push(*label);
                }
                Item::Marker { producer, result } => {
                    let fate = match result {
                        TransactionResult::Commit => Fate::Committed,
                        TransactionResult::Abort => Fate::Aborted,
                    };
                    for label in open.remove(&producer.id.0).unwrap_or_default() {
                        fates.insert(label, fate);
                    }
                }
            }
        }
        fates
    }
}
