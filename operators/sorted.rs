//! `sorted_by_time`: the records of each key in the order of their times.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Codec, Datum, First, Parts};
use crate::runtime::{
    Came, Due, Flow, HeaderList, Keyed, Late, LateReason, Meta, Operator, Origin, Output, Record,
    SideOutput, TimedStore, Upstream,
};
use crate::types::{Offset, Timestamp};

/// A record that waits: the split and offset of its origin, its value and its headers.
type Waiting<V> = (u32, i64, V, HeaderList);

/// Where the values are in the records of a time.
fn waiting_parts<V: Datum + Clone>() -> Parts {
    Parts::one::<Vec<Waiting<First>>, V>(|walk| {
        walk.each(|walk| {
            walk.same::<(u32, i64)>()?;
            walk.part::<V>(0)?;
            walk.same::<HeaderList>()
        })
    })
}

/// Holds records back until the watermark has reached their time.
struct Sorted<K: ?Sized, V> {
    store: TimedStore<Vec<Waiting<V>>>,
    late: Late<K, V>,
    watermark: Timestamp,
    /// Time up to which records were released, to be kept.
    released: Timestamp,
    due: Due,
    key: PhantomData<fn(&K)>,
}

/// Puts records of one time in the order of their splits and offsets. Several of one source record, as after `flat_map`, stay in their
/// order. Those that time brought, as results of windows, have no offset, and came in an order of chance: their values decide.
fn in_order<V: Datum>(waiting: &mut [Waiting<V>]) -> Flow {
    let is_of_time =
        |it: &Waiting<V>| (it.0, Offset(it.1)) == (Origin::TIME.split, Origin::TIME.offset);
    if !waiting.iter().any(is_of_time) {
        waiting.sort_by_key(|(split, offset, ..)| (*split, *offset));
        return Ok(());
    }
    let codec = V::DefaultCodec::default();
    let mut failed = Ok(());
    waiting.sort_by_cached_key(|it| {
        let mut value = Vec::new();
        if is_of_time(it)
            && let Err(error) = codec.encode(&it.2, &mut value)
        {
            failed = Err(error.into());
        }
        (it.0, it.1, value)
    });
    failed
}

impl<K: ?Sized, V: Datum + Clone> Operator<K, V> for Sorted<K, V> {
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(&mut self, record: Record<'_, K, V>, _out: &mut impl Output<K, V>) -> Flow {
        let time = record.meta.timestamp;
        let bound = self.watermark.max(self.store.time(record.key));
        if time < bound {
            return self.late.push(record, LateReason::Closed, bound);
        }
        let Origin { split, offset } = record.meta.origin;
        self.store.update_at(record.key, time, |waiting| {
            let waiting = waiting.get_or_insert_default();
            let headers = HeaderList::from(record.headers);
            waiting.push((split, offset.0, record.value.clone(), headers));
        })
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<K, V>) -> Flow {
        self.watermark = watermark;
        // A record of the watermark's own time may still come.
        let until = match watermark {
            Timestamp::MAX => watermark,
            open => open.plus_millis(-1),
        };
        while let Some(came) = self.store.next_due(until, &mut self.due)? {
            let Came::Value(mut waiting) = came else {
                continue;
            };
            in_order(&mut waiting)?;
            let timestamp = self.due.time;
            for (split, offset, value, headers) in &waiting {
                let origin = Origin {
                    split: *split,
                    offset: Offset(*offset),
                };
                out.push(Record {
                    key: self.due.key(),
                    value,
                    meta: Meta { timestamp, origin },
                    headers: headers.headers(),
                })?;
            }
            self.released = timestamp.plus_millis(1);
        }
        if watermark < Timestamp::MAX {
            // At the end of the input only as far as there were records, so that a later run may go on behind them.
            self.released = watermark;
        }
        Ok(())
    }

    fn end_cycle(&mut self, _out: &mut impl Output<K, V>) -> Flow {
        self.store.set_time(self.released)
    }
}

impl<K, V, Up> Keyed<K, V, Up>
where
    K: Datum + ?Sized,
    V: Datum + Clone + Serialize + DeserializeOwned,
    Up: Upstream<K, V>,
{
    /// Gives the records of each key in the order of their times, those of one time in the order of their splits and offsets, once
    /// the watermark has passed them: what stands behind sees one order, however many workers there are and however the input comes.
    /// The store `name` keeps what waits. The second stream has the records that came later than the watermark allows.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("balances");
    /// let (in_order, late) = job
    ///     .source(topic::<str>("bookings"))
    ///     .try_map(|line: &str| line.parse::<i64>())
    ///     .watermarks(Watermarks::out_of_order(Duration::from_secs(10)))
    ///     .key_by(|cents| cents % 10)
    ///     .sorted_by_time("in-order");
    /// late.sink(topic("late-bookings"));
    /// in_order.reduce("balances", |sum, cents| *sum += cents).changes().sink(topic("balances"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("bookings", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_value_at("bookings", "20", noon.plus_millis(5_000));
    /// bed.send_value_at("bookings", "10", noon);
    /// // What is up to ten seconds behind the newest record is waited for.
    /// bed.send_value_at("bookings", "1", noon.plus_millis(60_000));
    /// bed.expect::<i64, i64>("balances", [(&0, 10), (&0, 30)]);
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "both halves of a pair, once")]
    pub fn sorted_by_time(self, name: &str) -> (Keyed<K, V, impl Upstream<K, V>>, Keyed<K, V>) {
        let (output, late): (SideOutput<K, V>, _) = self.side_output("late");
        let store = name.to_owned();
        let sorted = self
            .with_timed_store::<Vec<Waiting<V>>>(name)
            .with_parts(name, waiting_parts::<V>())
            .process(name, move |context| {
                let mut timed = context.timed_store(&store)?;
                context.read_ahead_at(&mut timed, Some);
                Ok(Sorted {
                    store: timed,
                    late: context.late(&store, Some(&output))?,
                    watermark: Timestamp::MIN,
                    released: Timestamp::MIN,
                    due: Due::default(),
                    key: PhantomData,
                })
            });
        (sorted, late)
    }
}
