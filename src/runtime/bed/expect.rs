//! Expectations, and what is told where one is not met.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};

use super::incarnation::Incarnation;
use super::{Row, TestBed};
use crate::codec::Datum;
use crate::types::Offset;

impl TestBed {
    /// Lets the job work and commit, and compares what came to a topic since this was last asked: the same keys, each with the same
    /// values in the same order. The order between keys is not compared, since it is not promised.
    ///
    /// # Panics
    /// If it is not what came: with what came instead, and what the job has done.
    #[track_caller]
    pub fn expect<'e, K, V>(
        &mut self,
        topic: &str,
        expected: impl IntoIterator<Item = (&'e K, <V as ToOwned>::Owned)>,
    ) where
        K: Datum + ?Sized + 'e,
        V: Datum + ?Sized,
        K::Owned: Ord + Debug,
        V::Owned: PartialEq + Debug,
    {
        let expected = expected
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Some(value)));
        self.compare::<K, V>(topic, by_key(expected));
    }

    /// As [`TestBed::expect`], for a topic with tombstones, which are `None`.
    ///
    /// # Panics
    /// As [`TestBed::expect`].
    #[track_caller]
    pub fn expect_changes<'e, K, V>(
        &mut self,
        topic: &str,
        expected: impl IntoIterator<Item = (&'e K, Option<<V as ToOwned>::Owned>)>,
    ) where
        K: Datum + ?Sized + 'e,
        V: Datum + ?Sized,
        K::Owned: Ord + Debug,
        V::Owned: PartialEq + Debug,
    {
        let expected = expected
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        self.compare::<K, V>(topic, by_key(expected));
    }

    /// Expects that nothing came to a topic since it was last asked.
    ///
    /// # Panics
    /// If something did.
    #[track_caller]
    pub fn expect_nothing(&mut self, topic: &str) {
        let came = self.take::<[u8], [u8]>(topic);
        assert!(
            came.is_empty(),
            "{topic} was to get nothing, and got {} records\n{}",
            came.len(),
            self.situation()
        );
    }

    /// The committed records that came to a topic since it was last asked.
    ///
    /// # Panics
    /// As [`TestBed::rows`].
    #[track_caller]
    pub fn take<K: Datum + ?Sized, V: Datum + ?Sized>(
        &mut self,
        topic: &str,
    ) -> Vec<Row<K::Owned, V::Owned>> {
        self.commit();
        self.housekeep();
        let mut rows = Vec::new();
        for place in self.partitions_of(topic) {
            let from = self.taken.get(&place).copied().unwrap_or(Offset::ZERO);
            let came = self.rows_from::<K, V>(&place, from);
            if let Some(last) = came.last() {
                self.taken.insert(place, last.offset.plus(1));
            }
            rows.extend(came);
        }
        rows
    }

    #[track_caller]
    fn compare<K, V>(&mut self, topic: &str, expected: ByKey<K::Owned, V::Owned>)
    where
        K: Datum + ?Sized,
        V: Datum + ?Sized,
        K::Owned: Ord + Debug,
        V::Owned: PartialEq + Debug,
    {
        let came = self.take::<K, V>(topic);
        let came = by_key(came.into_iter().map(|row| {
            let Some(key) = row.key else {
                panic!("{topic} has a record without a key: ask for it with `take`");
            };
            (key, row.value)
        }));
        if came != expected {
            let differences = differences(&expected, &came);
            let situation = self.situation();
            panic!("{topic} is not what was expected\n{differences}{situation}");
        }
    }

    /// Where the job stands, for who reads why a test failed.
    fn situation(&self) -> String {
        let progress = self.progress();
        let mut told = format!(
            "after {} commits with {} records (seed {}, {} late, {} restarts)",
            progress.commits,
            progress.records,
            self.world.seed(),
            progress.late_records,
            progress.restarts
        );
        for (store, size) in &progress.stores {
            let _ = write!(
                told,
                "\n  store {store}: {} rows in memory",
                size.rows_in_memory
            );
        }
        let incarnation = self.process().incarnation();
        let times = incarnation.map(Incarnation::times).unwrap_or_default();
        for line in self.open_rows().into_iter().chain(times) {
            let _ = write!(told, "\n  {line}");
        }
        told
    }
}

/// The values of each key, in order.
pub(super) type ByKey<K, V> = BTreeMap<K, Vec<Option<V>>>;

pub(super) fn by_key<K: Ord, V>(rows: impl Iterator<Item = (K, Option<V>)>) -> ByKey<K, V> {
    let mut by_key = ByKey::new();
    for (key, value) in rows {
        by_key.entry(key).or_default().push(value);
    }
    by_key
}

/// The keys whose values are not as expected, a paragraph each.
pub(super) fn differences<K: Ord + Debug, V: PartialEq + Debug>(
    expected: &ByKey<K, V>,
    came: &ByKey<K, V>,
) -> String {
    let keys: BTreeSet<&K> = expected.keys().chain(came.keys()).collect();
    let mut told = String::new();
    for key in keys {
        let (wanted, got) = (expected.get(key), came.get(key));
        if wanted != got {
            let _ = writeln!(told, "  {key:?}:");
            for (what, values) in [("expected", wanted), ("came    ", got)] {
                let _ = match values {
                    Some(values) => writeln!(told, "    {what} {values:?}"),
                    None => writeln!(told, "    {what} nothing"),
                };
            }
        }
    }
    told
}
