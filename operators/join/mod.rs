//! Joins: two keyed streams whose records of one key are put together.
//!
//! [`Keyed::join`] names the streams, the next step says which of their records belong together, the last one what is made of them
//! ([`Joiner`], which is the same for every kind of join).

mod as_of;
mod interval;
mod joiner;
mod rows;
mod windowed;

pub use as_of::AsOfJoin;
pub use interval::IntervalJoin;
pub(super) use joiner::{Inner, Joiner, Left, Outer};
pub use windowed::JoinWindows;

use std::time::Duration;

use self::interval::Bounds;
use crate::codec::Datum;
use crate::runtime::{Keyed, Upstream};

/// Two keyed streams that are to be joined; the next step says which of their records belong together. Made by [`Keyed::join`].
#[must_use = "a join does nothing before `within` or `window` says which records belong together"]
pub struct Join<K: ?Sized, L: ?Sized, R: ?Sized, A, B> {
    left: Keyed<K, L, A>,
    right: Keyed<K, R, B>,
    name: String,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn assert_in_order(name: &str, least: Duration, most: Duration) {
    assert!(
        least <= most,
        "the join {name:?} asks for records that are apart by {least:?} at least and by {most:?} at most, which are none: give the lesser \
         bound first"
    );
}

impl<K: Datum + ?Sized, L: Datum + ?Sized, A: Upstream<K, L>> Keyed<K, L, A> {
    /// Joins this stream, as the left one, with another one of equal keys: [`within`](Join::within) or [`window`](Join::window) says
    /// which of their records belong together. Records that are together by key already are not shuffled again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    /// let job = Job::new("paid-orders");
    /// let orders = job.keyed_source(keyed_topic::<u64, String>("orders"));
    /// let payments = job.keyed_source(keyed_topic::<u64, i64>("payments"));
    /// orders
    ///     .join("paid", payments)
    ///     .within(minute, hour)
    ///     .left(|order, cents| format!("{order}: {}", cents.map_or("unpaid".to_owned(), i64::to_string)))
    ///     .sink(topic("paid-orders"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("orders", 1).partitions("payments", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("orders", &1u64, &"tea".to_owned(), noon);
    /// bed.send_at("orders", &2u64, &"rum".to_owned(), noon);
    /// bed.send_at("payments", &1u64, &300i64, noon.plus_millis(60_000));
    /// // Two hours later the other order has nobody to wait for.
    /// bed.send_at("orders", &3u64, &"jam".to_owned(), noon.plus_millis(7_200_000));
    /// bed.send_at("payments", &4u64, &1i64, noon.plus_millis(7_200_000));
    /// bed.expect::<u64, String>("paid-orders", [(&1, "tea: 300".to_owned()), (&2, "rum: unpaid".to_owned())]);
    /// ```
    pub fn join<R: Datum + ?Sized, B: Upstream<K, R>>(
        self,
        name: &str,
        right: Keyed<K, R, B>,
    ) -> Join<K, L, R, A, B> {
        Join {
            left: self,
            right,
            name: name.to_owned(),
        }
    }
}

impl<K: Datum + ?Sized, L: Datum + ?Sized, R: Datum + ?Sized, A, B> Join<K, L, R, A, B>
where
    A: Upstream<K, L>,
    B: Upstream<K, R>,
{
    /// Joins records of one key whose times are near: the right one is at most `before` older than the left one, or at most `after`
    /// newer, both bounds included.
    ///
    /// # Panics
    /// If the streams belong to different jobs.
    pub fn within(self, before: Duration, after: Duration) -> IntervalJoin<K, L, R, A, B> {
        self.between(-millis(before), millis(after))
    }

    /// Joins records of one key where the right one is newer than the left one: by `least` at least and by `most` at most.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    /// use onceflow::types::Timestamp;
    ///
    /// let job = Job::new("reminders");
    /// let asked = job.keyed_source(keyed_topic::<u64, String>("asked"));
    /// let answered = job.keyed_source(keyed_topic::<u64, String>("answered"));
    /// asked
    ///     .join("slow", answered)
    ///     .after(Duration::from_secs(300), Duration::from_secs(600))
    ///     .inner(|question, answer| format!("{question} {answer}"))
    ///     .sink(topic("slow-answers"));
    ///
    /// let mut bed = TestBed::of(job.exactly_once(Commit::default())).partitions("asked", 1).partitions("answered", 1).start();
    /// let noon = Timestamp(1_767_182_400_000);
    /// bed.send_at("asked", &1u64, &"tea?".to_owned(), noon);
    /// bed.send_at("answered", &1u64, &"soon".to_owned(), noon.plus_millis(10_000));
    /// bed.send_at("answered", &1u64, &"yes".to_owned(), noon.plus_millis(400_000));
    /// // Results come in the order of time, once both streams are that far.
    /// bed.send_at("asked", &2u64, &"rum?".to_owned(), noon.plus_millis(400_001));
    /// bed.send_at("answered", &3u64, &"no".to_owned(), noon.plus_millis(400_001));
    /// bed.expect::<u64, String>("slow-answers", [(&1, "tea? yes".to_owned())]);
    /// ```
    ///
    /// # Panics
    /// If `least` is above `most`, or the streams belong to different jobs.
    pub fn after(self, least: Duration, most: Duration) -> IntervalJoin<K, L, R, A, B> {
        assert_in_order(&self.name, least, most);
        self.between(millis(least), millis(most))
    }

    /// Joins records of one key where the right one is older than the left one: by `least` at least and by `most` at most.
    ///
    /// # Panics
    /// As [`after`](Self::after).
    pub fn before(self, least: Duration, most: Duration) -> IntervalJoin<K, L, R, A, B> {
        assert_in_order(&self.name, least, most);
        self.between(-millis(most), -millis(least))
    }

    /// The right record is at least `from` milliseconds newer than the left one, and at most `to`.
    fn between(self, from: i64, to: i64) -> IntervalJoin<K, L, R, A, B> {
        let bounds = Bounds {
            before: -from,
            after: to,
            grace: 0,
        };
        IntervalJoin::new(self.left.connect(self.right), self.name, bounds)
    }
}
