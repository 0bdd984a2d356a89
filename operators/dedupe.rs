//! `dedupe`: of records that are there more than once, the first.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::time::Duration;

use super::window::{Counted, LateRecords};
use crate::codec::{Codec, CodecError, CodecId, Datum, TypeIdentity};
use crate::runtime::{
    Due, Flow, Key, Keyed, Late, LateReason, Operator, Output, Record, SideOutput, TimedStore,
    Upstream,
};
use crate::types::Timestamp;

/// A keyed stream whose records have an id; the next step says how long an id is remembered. Made by [`Keyed::dedupe`].
#[must_use = "nothing is left out before `within` says how long an id is remembered"]
pub struct Dedupe<K: ?Sized, V: ?Sized, U, F, L = Counted> {
    keyed: Keyed<K, V, U>,
    name: String,
    by: F,
    grace: i64,
    late: L,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The times of the records of an id that passed and are remembered. `J` is the type of ids.
struct Passed<J> {
    times: Vec<Timestamp>,
    id: PhantomData<fn() -> J>,
}

impl<J> Clone for Passed<J> {
    fn clone(&self) -> Self {
        Self {
            times: self.times.clone(),
            id: PhantomData,
        }
    }
}

/// Times in eight bytes each, big-endian.
struct PassedCodec<J>(PhantomData<fn() -> J>);

impl<J> Default for PassedCodec<J> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<J> Clone for PassedCodec<J> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<J: Datum> Codec<Passed<J>> for PassedCodec<J> {
    fn id(&self) -> CodecId {
        J::DefaultCodec::default().id()
    }

    fn encode(&self, value: &Passed<J>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        for time in &value.times {
            out.extend_from_slice(&time.0.to_be_bytes());
        }
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Passed<J>>, CodecError> {
        let (times, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(CodecError::Decode {
                codec: "the times of an id",
                length_bytes: bytes.len(),
                why: "a time takes 8 bytes".to_owned(),
            });
        }
        let times = times.iter().map(|it| Timestamp(i64::from_be_bytes(*it)));
        Ok(Cow::Owned(Passed {
            times: times.collect(),
            id: PhantomData,
        }))
    }
}

impl<J: Datum> Datum for Passed<J> {
    type DefaultCodec = PassedCodec<J>;

    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("times of ids {}", J::identity()))
    }
}

/// Passes on the first record of each id.
struct First<K: ?Sized, V: ?Sized, J, F> {
    store: TimedStore<Passed<J>>,
    by: F,
    within: i64,
    grace: i64,
    late: Late<K, V>,
    watermark: Timestamp,
    /// Operator's time as state. The end of the input forgets nothing.
    reached: Timestamp,
    due: Due,
    scratch: Vec<u8>,
}

impl<K: ?Sized, V: ?Sized, J: Datum, F: Fn(&V) -> J> First<K, V, J, F> {
    /// Writes the row of a record's id: key, id, and the length of the key in four bytes.
    fn place(&mut self, record: &Record<'_, K, V>) -> Result<(), CodecError> {
        let key = record.key.bytes();
        self.scratch.clear();
        self.scratch.extend_from_slice(key);
        J::DefaultCodec::default().encode(&(self.by)(record.value), &mut self.scratch)?;
        let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
        self.scratch.extend_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

impl<K, V, J, F> Operator<K, V> for First<K, V, J, F>
where
    K: ?Sized,
    V: ?Sized,
    J: Datum,
    F: Fn(&V) -> J,
{
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    #[inline]
    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, V>) -> Flow {
        let time = record.meta.timestamp;
        let kept = self.store.kept_time(record.key);
        let watermark = kept.map_or(self.watermark, |kept| kept.max(self.watermark));
        if time.plus_millis(self.grace) < watermark {
            return self.late.push(record, LateReason::Closed, watermark);
        }
        self.place(&record)?;
        let key = Key::<K>::with_hash(&self.scratch, record.key.partition_hash());
        let within = self.within.unsigned_abs();
        let is_near = |passed: &Timestamp| passed.0.abs_diff(time.0) < within;
        let is_known = self.store.peek(key, |passed| {
            passed.is_some_and(|passed| passed.times.iter().any(is_near))
        })?;
        if is_known {
            return Ok(());
        }
        self.store.update(key, |passed| {
            let passed = passed.get_or_insert_with(|| Passed {
                times: Vec::with_capacity(1),
                id: PhantomData,
            });
            passed.times.push(time);
        })?;
        let forgotten = time.plus_millis(self.within).plus_millis(self.grace);
        self.store.set_timer(key, forgotten)?;
        out.push(record)
    }

    fn on_watermark(&mut self, watermark: Timestamp, _out: &mut impl Output<K, V>) -> Flow {
        self.watermark = watermark;
        if watermark == Timestamp::MAX {
            return Ok(());
        }
        self.reached = watermark;
        while self.store.next_due(watermark, &mut self.due)?.is_some() {
            let due = self.due.time;
            let (within, grace) = (self.within, self.grace);
            let is_kept = |it: &Timestamp| it.plus_millis(within).plus_millis(grace) > due;
            self.store.update(self.due.key::<K>(), |passed| {
                if let Some(held) = passed {
                    held.times.retain(is_kept);
                }
                if passed.as_ref().is_some_and(|held| held.times.is_empty()) {
                    *passed = None;
                }
            })?;
        }
        Ok(())
    }

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        match watermark {
            Timestamp::MAX => watermark,
            open => open.plus_millis(-self.grace),
        }
    }

    /// Each time decides what is late, so how far time has come is state of every cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<K, V>) -> Flow {
        self.store.set_time(self.reached)
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Leaves out records that are there more than once: those of a key for which `by` gives an id that another record of the key
    /// had before. [`within`](Dedupe::within) says how long an id is remembered, in the store `name`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// let job = Job::new("orders");
    /// job.source(values("orders", [("ann".to_owned(), 17u64), ("ann".to_owned(), 17)]))
    ///     .event_time(|_| 1_767_182_400_000, Watermarks::default())
    ///     .key_by(|(customer, _)| customer.clone())
    ///     .dedupe("seen-orders", |(_, order)| *order)
    ///     .within(Duration::from_secs(3600))
    ///     .sink(topic("orders-once"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// let ann = "ann".to_owned();
    /// bed.expect::<String, (String, u64)>("orders-once", [(&ann, (ann.clone(), 17))]);
    /// ```
    pub fn dedupe<J, F>(self, name: &str, by: F) -> Dedupe<K, V, Up, F>
    where
        J: Datum,
        F: Fn(&V) -> J + Clone + Send + Sync + 'static,
    {
        Dedupe {
            keyed: self,
            name: name.to_owned(),
            by,
            grace: 0,
            late: Counted,
        }
    }
}

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>, F> Dedupe<K, V, Up, F> {
    /// Gives late records a stream of their own: those that are behind the watermark and its grace, so that nobody knows any more
    /// whether they were there before. Without it they are counted and warned of.
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "both halves of a pair, once")]
    pub fn late(self) -> (Dedupe<K, V, Up, F, SideOutput<K, V>>, Keyed<K, V>) {
        let (late, stream) = self.keyed.side_output("late");
        let dedupe = Dedupe {
            keyed: self.keyed,
            name: self.name,
            by: self.by,
            grace: self.grace,
            late,
        };
        (dedupe, stream)
    }
}

impl<K, V, Up, F, L> Dedupe<K, V, Up, F, L>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    Up: Upstream<K, V>,
    L: LateRecords<K, V>,
{
    /// Takes records that are late by up to `grace`, and remembers ids for so much longer. The default is none.
    pub fn grace(self, grace: Duration) -> Self {
        Self {
            grace: millis(grace),
            ..self
        }
    }

    /// Passes on a record unless one of the same key and id passed whose time is less than `within` away, before or behind it. An id is
    /// forgotten when the watermark has passed its last record's time, `within` and the grace. Time is event time: nothing is
    /// forgotten because the job stood still, or because its input ended.
    #[track_caller]
    pub fn within<J>(self, within: Duration) -> Keyed<K, V, impl Upstream<K, V>>
    where
        J: Datum,
        F: Fn(&V) -> J + Clone + Send + Sync + 'static,
    {
        let (name, by, grace) = (self.name, self.by, self.grace);
        let (store, within) = (name.clone(), millis(within));
        let late = self.late.output();
        self.keyed
            .with_timed_store::<Passed<J>>(&name)
            .partitioned(&name)
            .operator(move |context| {
                Ok(First {
                    store: context.timed_store(&store)?,
                    by: by.clone(),
                    within,
                    grace,
                    late: context.late(&store, late.as_ref())?,
                    watermark: Timestamp::MIN,
                    reached: Timestamp::MIN,
                    due: Due::default(),
                    scratch: Vec::new(),
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_an_id_have_these_bytes() {
        let passed = Passed::<u64> {
            times: vec![Timestamp(258), Timestamp(-1)],
            id: PhantomData,
        };
        let mut bytes = Vec::new();
        let codec = PassedCodec::<u64>::default();
        codec.encode(&passed, &mut bytes).unwrap();
        let mut expected = vec![0, 0, 0, 0, 0, 0, 1, 2];
        expected.extend([255; 8]);
        assert_eq!(bytes, expected);
        assert_eq!(codec.decode(&bytes).unwrap().times, passed.times);
        assert!(codec.decode(&bytes[..9]).is_err());
    }
}
