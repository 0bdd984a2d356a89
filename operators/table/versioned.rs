//! `versioned`: the versions of each key for some time back, for who asks what was valid at a time.

use std::time::Duration;

use crate::codec::Datum;
use crate::runtime::{
    Came, Due, Flow, Key, Keyed, Late, Operator, OrderedStore, Output, Record, TimedStore, Upstream,
};
use crate::types::Timestamp;

/// Keeps versions in the order of their times, and lets go of those that were superseded before the history begins.
struct Versioned<K: ?Sized, V>
where
    Option<V>: Datum,
{
    versions: OrderedStore<Timestamp, Option<V>>,
    /// A timer where versions may be superseded; its own time is that from which on all versions are there.
    times: TimedStore<()>,
    history_millis: i64,
    ignored: Late<K, Option<V>>,
    /// The beginning of the history, by the watermark.
    begin: Timestamp,
    due: Due,
}

/// The store of the timers of a versioned table, and of the beginning of its history.
fn times_of(name: &str) -> String {
    format!("{name}-times")
}

impl<K: ?Sized, V: Clone + Send + 'static> Versioned<K, V>
where
    Option<V>: Datum,
{
    /// Takes out the versions of a key that are not valid at `begin` or later.
    fn clean(&mut self, key: Key<'_, K>, begin: Timestamp) -> Flow {
        let Some((valid, version)) = self.versions.last(key, ..=begin)? else {
            return Ok(());
        };
        // J11: the last one stays until it has a successor. J12: nothing that is older than a deletion can come any more.
        match version.is_some() {
            true => self.versions.remove_range(key, ..valid)?,
            false => self.versions.remove_range(key, ..=valid)?,
        };
        Ok(())
    }
}

impl<K, V> Operator<K, Option<V>> for Versioned<K, V>
where
    K: ?Sized,
    V: Clone + Send + 'static,
    Option<V>: Datum,
{
    type OutKey = K;
    type Out = Option<V>;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(
        &mut self,
        record: Record<'_, K, Option<V>>,
        out: &mut impl Output<K, Option<V>>,
    ) -> Flow {
        let (key, time) = (record.key, record.meta.timestamp);
        // J18: nobody knows any more what was valid there.
        if time < self.begin.max(self.times.time(key)) {
            self.ignored.leave_out();
            return Ok(());
        }
        // J20: of one time the last one that comes counts, which in a partition is the last by offset.
        self.versions.put(key, &time, record.value.clone())?;
        let is_superseding = time.plus_millis(self.history_millis);
        self.times.set_timer(key, is_superseding)?;
        out.push(record)
    }

    fn on_watermark(&mut self, watermark: Timestamp, _out: &mut impl Output<K, Option<V>>) -> Flow {
        // The end of the input makes nothing older.
        if watermark == Timestamp::MAX {
            return Ok(());
        }
        let mut due = std::mem::take(&mut self.due);
        while let Some(came) = self.times.next_due(watermark, &mut due)? {
            if came == Came::Timer {
                self.clean(due.key(), due.time.plus_millis(-self.history_millis))?;
            }
        }
        self.due = due;
        self.begin = watermark.plus_millis(-self.history_millis);
        Ok(())
    }

    /// Keeps the history's begin, on which it depends what is ignored, as state of every cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<K, Option<V>>) -> Flow {
        self.times.set_time(self.begin)
    }
}

impl<K, V, Up> Keyed<K, Option<V>, Up>
where
    K: Datum + ?Sized,
    V: Datum<Owned = V> + Clone,
    Option<V>: Datum<Owned = Option<V>> + Clone,
    Up: Upstream<K, Option<V>>,
{
    /// Keeps the versions of each key in the store `name`, for who asks the running job what was valid at a time
    /// ([`Queries::versions`](crate::runtime::Queries::versions)), and hands them on. `None` is a deletion; versions may come in any
    /// order. The history goes back by `history` from the watermark; the last version before that stays, too, since it is valid until
    /// there is another.
    ///
    /// A version that is older than the history when it comes is ignored, goes no further, and is counted as
    /// [`JobProgress::left_out_records`](crate::runtime::JobProgress::left_out_records). Of two of one time the later one in its partition
    /// counts.
    ///
    /// [`join_as_of`](Self::join_as_of) takes the versions from here: what its records may find it keeps itself, for as long as they may
    /// come. A job whose join takes versions that are later than the history is refused where it is launched: they would be ignored here.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("priced");
    /// let prices = job
    ///     .keyed_source(keyed_topic::<String, u64>("prices").as_option())
    ///     .versioned("prices", Duration::from_secs(86_400));
    /// job.keyed_source(keyed_topic::<String, u64>("orders"))
    ///     .join_as_of("priced", prices)
    ///     .inner(|pieces, cents| pieces * cents)
    ///     .sink(topic("priced"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("prices", 1).partitions("orders", 1).start();
    /// let tea = "tea".to_owned();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("prices", &tea, &300u64, noon);
    /// bed.send_at("prices", &tea, &350u64, noon.plus_millis(3_600_000));
    /// // An order of before the new price came.
    /// bed.send_at("orders", &tea, &2u64, noon.plus_millis(1_000));
    /// bed.send_at("orders", &"rum".to_owned(), &1u64, noon.plus_millis(3_600_000));
    /// bed.expect::<String, u64>("priced", [(&tea, 600)]);
    /// ```
    #[track_caller]
    pub fn versioned(
        self,
        name: &str,
        history: Duration,
    ) -> Keyed<K, Option<V>, impl Upstream<K, Option<V>> + use<K, V, Up>> {
        let store = name.to_owned();
        let history_millis = i64::try_from(history.as_millis()).unwrap_or(i64::MAX);
        self.with_ordered_store::<Timestamp, Option<V>>(name)
            .with_timed_store::<()>(&times_of(name))
            .partitioned(name)
            .operator(move |context| {
                Ok(Versioned {
                    versions: context.ordered_store(&store)?,
                    times: context.timed_store(&times_of(&store))?,
                    history_millis,
                    ignored: context.late(&store, None)?,
                    begin: Timestamp::MIN,
                    due: Due::default(),
                })
            })
            .with_history(history)
    }
}
