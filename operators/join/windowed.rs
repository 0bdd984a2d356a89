//! The join of two streams in windows: records that share a window belong together.
//!
//! A record goes into each of its windows, with the window as part of its key and the window's last moment as its time. So records that
//! match have one key and one time, and are joined as those within an interval of no length are.

use super::Join;
use super::interval::{Bounds, IntervalJoin};
use crate::codec::Datum;
use crate::operators::CalendarWindows;
use crate::operators::window::Grid;
use crate::runtime::{
    FixedWindows, Flow, Key, Keyed, Late, LateReason, Meta, Operator, Output, Record, Upstream,
    Windowed,
};

/// A kind of windows in which records are joined: [`FixedWindows`] or [`CalendarWindows`].
#[allow(private_bounds, reason = "the kinds of windows are ours")]
pub trait JoinWindows: Grid {}

impl JoinWindows for FixedWindows {}
impl JoinWindows for CalendarWindows {}

/// Puts each record into its windows.
struct IntoWindows<K: ?Sized, V: ?Sized, G> {
    windows: G,
    /// Records that no window can hold.
    late: Late<K, V>,
    scratch: Vec<u8>,
}

impl<K: Datum + ?Sized, V: ?Sized, G: Grid> Operator<K, V> for IntoWindows<K, V, G> {
    type OutKey = Windowed<K>;
    type Out = V;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<Windowed<K>, V>) -> Flow {
        let time = record.meta.timestamp;
        let Some(slice) = self.windows.slice_of(time) else {
            if self.windows.has_gaps() {
                self.late.leave_out();
                return Ok(());
            }
            return self.late.push(record, LateReason::OutOfRange, time);
        };
        for window in self.windows.windows_of(slice) {
            let key: Key<'_, Windowed<K>> = Windowed::key(record.key, window, &mut self.scratch);
            let timestamp = window.last();
            let meta = Meta {
                timestamp,
                ..record.meta
            };
            out.push(Record::new(key, record.value, meta))?;
        }
        Ok(())
    }
}

/// The records of a stream in their windows, where those of a key are together.
#[track_caller]
fn into_windows<K, V, U, G>(
    keyed: Keyed<K, V, U>,
    name: &str,
    windows: &G,
) -> Keyed<Windowed<K>, V, impl Upstream<Windowed<K>, V> + use<K, V, U, G>>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    U: Upstream<K, V>,
    G: Grid,
{
    let (node, windows) = (name.to_owned(), windows.clone());
    keyed.partitioned(name).operator(move |context| {
        Ok(IntoWindows {
            windows: windows.clone(),
            late: context.late(&node, None)?,
            scratch: Vec::new(),
        })
    })
}

impl<K, L, R, A, B> Join<K, L, R, A, B>
where
    K: Datum + ?Sized,
    L: Datum + ?Sized,
    R: Datum + ?Sized,
    A: Upstream<K, L>,
    B: Upstream<K, R>,
{
    /// Joins records of one key that share a window, once for each window that they share. A result has the key with the window, and
    /// comes when the watermark has passed its end; a record without a match gives its result when the window is closed. What comes for
    /// a closed window is late for that window.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("ads");
    /// let shown = job.keyed_source(keyed_topic::<u64, String>("shown"));
    /// let clicked = job.keyed_source(keyed_topic::<u64, String>("clicked"));
    /// shown
    ///     .join("hit", clicked)
    ///     .window(FixedWindows::tumbling(Duration::from_secs(60)))
    ///     .left(|ad, click| (ad.clone(), click.cloned()))
    ///     .sink(topic("ads"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("shown", 1).partitions("clicked", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("shown", &1u64, &"tea".to_owned(), noon);
    /// bed.send_at("clicked", &1u64, &"yes".to_owned(), noon.plus_millis(1_000));
    /// // The next minute closes the window.
    /// bed.send_at("shown", &2u64, &"rum".to_owned(), noon.plus_millis(120_000));
    /// bed.send_at("clicked", &2u64, &"yes".to_owned(), noon.plus_millis(120_000));
    /// let ads = bed.take::<Windowed<u64>, (String, Option<String>)>("ads");
    /// assert_eq!(ads[0].value, Some(("tea".to_owned(), Some("yes".to_owned()))));
    /// ```
    ///
    /// # Panics
    /// If the streams belong to different jobs.
    #[track_caller]
    #[allow(
        clippy::type_complexity,
        reason = "the type says what is in front; nobody writes it out"
    )]
    pub fn window<G: JoinWindows>(
        self,
        windows: G,
    ) -> IntervalJoin<
        Windowed<K>,
        L,
        R,
        impl Upstream<Windowed<K>, L> + use<K, L, R, A, B, G>,
        impl Upstream<Windowed<K>, R> + use<K, L, R, A, B, G>,
    > {
        let Self { left, right, name } = self;
        let left = into_windows(left, &format!("{name}-left"), &windows);
        let right = into_windows(right, &format!("{name}-right"), &windows);
        let bounds = Bounds {
            before: 0,
            after: 0,
            grace: windows.grace_millis(),
        };
        IntervalJoin::new(left.connect(right), name, bounds)
    }
}
