//! Rules for every state of the world (reliability.md §3.5; the numbers are its).

use std::collections::{BTreeMap, BTreeSet};

use super::partition::{Fate, Item};
use super::world::{World, id};
use crate::coordinator::transaction_log::{Key, TransactionRecord};
use crate::protocol::messages::{TransactionResult, TransactionState};

impl World {
    pub(super) fn check(&mut self) {
        let fates = self.fates();
        for (label, fates) in &fates {
            let all: BTreeSet<Fate> = fates.values().copied().collect();
            if all.contains(&Fate::Committed) && !self.wanted.contains(label) {
                self.violate(format!(
                    "(2) transaction {label} is committed against its client's will"
                ));
            }
            if all.contains(&Fate::Committed) && all.contains(&Fate::Aborted) {
                self.violate(format!("(1) transaction {label} is torn: {fates:?}"));
            }
        }
        self.check_told(&fates);
        self.check_decisions(&fates);
        self.check_markers();
        if !self.coordinator.is_recovering() {
            self.check_lso();
        }
        let is_settled = self.queue.is_empty() && !self.coordinator.is_recovering();
        if is_settled {
            self.check_settled(&fates);
        }
    }

    fn fates(&self) -> BTreeMap<u8, BTreeMap<usize, Fate>> {
        let mut fates: BTreeMap<u8, BTreeMap<usize, Fate>> = BTreeMap::new();
        for (at, file) in self.partitions.iter().enumerate() {
            for (label, fate) in file.fates() {
                fates.entry(label).or_default().insert(at, fate);
            }
        }
        fates
    }

    fn check_told(&mut self, fates: &BTreeMap<u8, BTreeMap<usize, Fate>>) {
        for (label, (result, acked)) in self.told.clone() {
            for at in acked {
                let fate = fates.get(&label).and_then(|fates| fates.get(&at));
                let is_false = match result {
                    TransactionResult::Commit => {
                        !matches!(fate, Some(Fate::Committed | Fate::Open))
                    }
                    TransactionResult::Abort => fate == Some(&Fate::Committed),
                };
                if is_false {
                    self.violate(format!(
                        "(1, 2) transaction {label} was said to {result:?}, but partition {at} has it {fate:?}"
                    ));
                }
            }
        }
    }

    /// One decision an identity, and nothing committed without one.
    fn check_decisions(&mut self, fates: &BTreeMap<u8, BTreeMap<usize, Fate>>) {
        let mut decided: BTreeMap<(i64, i16), TransactionState> = BTreeMap::new();
        for (key, value) in &self.journal.items {
            let (Ok(Key::Transaction(_)), Some(value)) = (Key::decode(key), value) else {
                continue;
            };
            let record = TransactionRecord::decode(value).unwrap();
            let data = (record.producer.id.0, record.producer.epoch.0 - 1);
            if matches!(
                record.state,
                TransactionState::PrepareCommit | TransactionState::PrepareAbort
            ) && let Some(earlier) = decided.insert(data, record.state)
                && earlier != record.state
            {
                self.violation
                    .get_or_insert(format!("(3) {data:?} was decided twice"));
            }
        }
        let committed = fates
            .values()
            .flatten()
            .any(|(_, fate)| *fate == Fate::Committed);
        let has_decision = decided
            .values()
            .any(|state| *state == TransactionState::PrepareCommit);
        if committed && !has_decision {
            self.violate("(2) something is committed that was never decided".into());
        }
        self.check_each_commit(&decided);
    }

    fn check_each_commit(&mut self, decided: &BTreeMap<(i64, i16), TransactionState>) {
        let markers = self.partitions.iter().flat_map(|file| &file.items);
        let undecided = markers.filter_map(|item| match item {
            Item::Marker {
                producer,
                result: TransactionResult::Commit,
            } => Some((producer.id.0, producer.epoch.0 - 1)),
            _ => None,
        });
        let undecided: Vec<_> = undecided
            .filter(|data| decided.get(data) != Some(&TransactionState::PrepareCommit))
            .collect();
        if let Some(data) = undecided.first() {
            self.violate(format!("(2) {data:?} has a COMMIT marker and no decision"));
        }
    }

    fn check_markers(&mut self) {
        for at in 0..self.partitions.len() {
            let mut seen = BTreeSet::new();
            for item in &self.partitions[at].items {
                if let Item::Marker { producer, .. } = item
                    && !seen.insert((producer.id.0, producer.epoch.0))
                {
                    self.violation
                        .get_or_insert(format!("(6) two markers {producer:?} in partition {at}"));
                }
            }
        }
    }

    fn check_lso(&mut self) {
        for at in 0..self.partitions.len() {
            let file = &self.partitions[at];
            let lso = file.synced.min(file.first_open());
            let seen = std::mem::replace(&mut self.lso_seen[at], lso);
            if lso < seen {
                self.violate(format!(
                    "(7) the LSO of partition {at} went back from {seen} to {lso}"
                ));
            }
        }
    }

    /// Liveness: with nothing left to do, only the owner's own open transaction may be open.
    fn check_settled(&mut self, fates: &BTreeMap<u8, BTreeMap<usize, Fate>>) {
        let entry = self.coordinator.entries.get(&id());
        let is_open = entry.is_some_and(|entry| entry.record.state == TransactionState::Ongoing);
        for (label, fates) in fates {
            if !is_open && fates.values().any(|fate| *fate == Fate::Open) {
                self.violate(format!("transaction {label} hangs: {fates:?}"));
            }
        }
        let told: Vec<u8> = self.told.keys().copied().collect();
        for label in told {
            let is_open = fates
                .get(&label)
                .is_some_and(|fates| fates.values().any(|fate| *fate == Fate::Open));
            if is_open {
                self.violate(format!("transaction {label} was ended, but is still open"));
            }
        }
    }
}
