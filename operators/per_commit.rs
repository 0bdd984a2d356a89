//! `changes_per_commit`: of each key only the last change of a cycle.

use std::borrow::Borrow;

use hashbrown::HashMap;

use crate::codec::Datum;
use crate::runtime::{
    Change, Deletions, Flow, HeaderList, Key, Keyed, Meta, Operator, Output, Record, Table,
    Upstream,
};

/// Holds changes back until the cycle ends. The hasher has a fixed seed, so that a replay gives the same order.
struct PerCommit<V: Datum + ?Sized> {
    last: HashMap<Box<[u8]>, Held<V::Owned>, rapidhash::fast::SeedableState<'static>>,
}

struct Held<V> {
    partition_hash: u32,
    value: V,
    meta: Meta,
    headers: HeaderList,
}

impl<K: ?Sized, V: Datum + ?Sized> Operator<K, V> for PerCommit<V> {
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, K, V>, _out: &mut impl Output<K, V>) -> Flow {
        let held = Held {
            partition_hash: record.key.partition_hash(),
            value: record.value.to_owned(),
            meta: record.meta,
            headers: record.headers.into(),
        };
        match self.last.get_mut(record.key.bytes()) {
            Some(last) => *last = held,
            None => drop(self.last.insert(record.key.bytes().into(), held)),
        }
        Ok(())
    }

    fn end_cycle(&mut self, out: &mut impl Output<K, V>) -> Flow {
        for (key, held) in self.last.drain() {
            out.push(Record {
                key: Key::with_hash(&key, held.partition_hash),
                value: held.value.borrow(),
                meta: held.meta,
                headers: held.headers.headers(),
            })?;
        }
        Ok(())
    }
}

impl<K, V, Up, D> Table<K, V, Up, D>
where
    K: Datum + ?Sized,
    V: 'static,
    D: Deletions<Of<V>: Datum>,
    Up: Upstream<K, Change<V>>,
{
    /// The last change of each key, once a cycle: fewer records than [`Table::changes`] where keys repeat.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("parity");
    /// let counts = job.source(values("n", 0..10u64)).key_by(|n| n % 2).count("counts");
    /// counts.changes_per_commit().sink(topic("counts"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.expect::<u64, u64>("counts", [(&0, 5), (&1, 5)]);
    /// ```
    #[track_caller]
    pub fn changes_per_commit(self) -> Keyed<K, D::Of<V>, impl Upstream<K, D::Of<V>>> {
        self.changes().operator(|_| {
            Ok(PerCommit::<D::Of<V>> {
                last: HashMap::with_hasher(rapidhash::fast::SeedableState::fixed()),
            })
        })
    }
}
