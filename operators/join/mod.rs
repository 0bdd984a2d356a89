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

impl<K: Datum + ?Sized, L: Datum + ?Sized, A: Upstream<K, L>> Keyed<K, L, A> {
    /// Joins this stream, as the left one, with another one of equal keys: [`within`](Join::within) or [`window`](Join::window) says
    /// which of their records belong together. Records that are together by key already are not shuffled again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
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
        let bounds = Bounds {
            before: millis(before),
            after: millis(after),
            grace: 0,
        };
        IntervalJoin::new(self.left.connect(self.right), self.name, bounds)
    }
}
