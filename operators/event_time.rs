//! `event_time` and `watermarks`: what time a record is of, and how far out of order records are.

use crate::runtime::{
    Failure, Flow, Keyed, Operator, Output, Record, SourceTime, Stream, Unkeyed, Upstream,
    Watermarks,
};
use crate::types::Timestamp;

/// The first and the last millisecond of the years −9999 to 9999.
const TIMES: std::ops::RangeInclusive<i64> = -377_705_116_800_000..=253_402_300_799_999;

/// Takes the time from the value, or leaves the one that came with the record.
struct EventTime<F> {
    source: SourceTime,
    time_of: Option<F>,
}

impl<K: ?Sized, V: ?Sized, F: Fn(&V) -> i64> Operator<K, V> for EventTime<F> {
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    #[inline]
    fn process(&mut self, mut record: Record<'_, K, V>, out: &mut impl Output<K, V>) -> Flow {
        if let Some(time_of) = &self.time_of {
            let instead = self.source.instead();
            let time = instead.map_or_else(|| time_of(record.value), |instead| instead.0);
            if !TIMES.contains(&time) {
                return Err(no_time(time));
            }
            record.meta.timestamp = Timestamp(time);
            self.source.set(record.meta.timestamp);
        }
        out.push(record)
    }
}

#[cold]
fn no_time(time: i64) -> Failure {
    Failure::poison(format_args!(
        "its event time, {time} milliseconds since 1970, is not in the years -9999 to 9999: does `event_time` give microseconds or nanoseconds?"
    ))
}

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Takes the time of each record from its value, in milliseconds since 1970 (which may be negative), and says how far out of
    /// order records are. It stands between a source and the first step that brings keys together, after parsing for example. Without
    /// it a record's time is the one that its topic has for it.
    ///
    /// A record whose time is not in the years −9999 to 9999 is poison (`PoisonPolicy`): one that is far in the future would end
    /// all windows. Times in microseconds or nanoseconds are mostly found out by that.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("per-minute");
    /// job.source(topic::<str>("clicks"))
    ///     .try_map(|line: &str| line.parse::<i64>())
    ///     .event_time(|millis| *millis, Watermarks::out_of_order(Duration::from_secs(5)))
    ///     .key_by(|millis| millis % 10)
    ///     .window(FixedWindows::tumbling(Duration::from_secs(60)))
    ///     .count("per-minute")
    ///     .sink(topic("per-minute"));
    /// ```
    #[track_caller]
    pub fn event_time<F>(
        self,
        time_of: F,
        watermarks: Watermarks,
    ) -> Stream<T, impl Upstream<Unkeyed, T>>
    where
        F: Fn(&T) -> i64 + Clone + Send + Sync + 'static,
    {
        self.operator(move |context| {
            Ok(EventTime {
                source: context.source_time(watermarks, true)?,
                time_of: Some(time_of.clone()),
            })
        })
    }

    /// Says how far out of order the records of the source in front are, by the times that came with them. Without it they are
    /// taken to be in order in each split.
    #[track_caller]
    pub fn watermarks(self, watermarks: Watermarks) -> Stream<T, impl Upstream<Unkeyed, T>> {
        self.operator(move |context| {
            Ok(EventTime::<fn(&T) -> i64> {
                source: context.source_time(watermarks, false)?,
                time_of: None,
            })
        })
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// As [`Stream::event_time`].
    #[track_caller]
    pub fn event_time<F>(
        self,
        time_of: F,
        watermarks: Watermarks,
    ) -> Keyed<K, V, impl Upstream<K, V>>
    where
        F: Fn(&V) -> i64 + Clone + Send + Sync + 'static,
    {
        self.operator(move |context| {
            Ok(EventTime {
                source: context.source_time(watermarks, true)?,
                time_of: Some(time_of.clone()),
            })
        })
    }

    /// As [`Stream::watermarks`].
    #[track_caller]
    pub fn watermarks(self, watermarks: Watermarks) -> Keyed<K, V, impl Upstream<K, V>> {
        self.operator(move |context| {
            Ok(EventTime::<fn(&V) -> i64> {
                source: context.source_time(watermarks, false)?,
                time_of: None,
            })
        })
    }
}
