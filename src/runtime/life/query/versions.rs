//! Questions about versions: the value of a key that was valid at a time.

use std::ops::Range;
use std::sync::Arc;

use super::stores::OrderedQuery;
use super::{Answer, Queries};
use crate::codec::{Codec, Datum};
use crate::runtime::task::committed::{Epoch, QueryError, TimedRows, View};
use crate::runtime::task::timed_store::timed_schema;
use crate::types::Timestamp;

/// Questions of a store of versions: made by [`Queries::versions`].
pub struct VersionsQuery<K: ?Sized, V> {
    queries: Queries,
    name: Arc<str>,
    versions: OrderedQuery<K, Timestamp, Option<V>>,
    /// The time of the step: from it on all versions are there.
    times: TimedRows<K, ()>,
}

impl Queries {
    /// The versions that the step [`versioned`](crate::runtime::Keyed::versioned) keeps in the store `name`.
    ///
    /// ```
    /// # use onceflow::prelude::*;
    /// # use onceflow::runtime::{Queries, QueryError};
    /// # use onceflow::types::Timestamp;
    /// # async fn ask(query: &Queries, yesterday: Timestamp) -> Result<(), QueryError> {
    /// let prices = query.versions::<str, u64>("prices")?;
    /// if let Some(cents) = prices.as_of("tea", yesterday).await?.value {
    ///     println!("tea was {cents} cents");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the job has no such store, or it has other types.
    pub fn versions<K: Datum + ?Sized, V>(
        &self,
        name: &str,
    ) -> Result<VersionsQuery<K, V>, QueryError>
    where
        Option<V>: Datum + Clone,
    {
        let times = self.kept_name(&format!("{name}-times"), &timed_schema::<K, ()>())?;
        Ok(VersionsQuery {
            queries: self.clone(),
            name: name.into(),
            versions: self.ordered(name)?,
            times: TimedRows::new(times),
        })
    }
}

impl<K: Datum + ?Sized, V> VersionsQuery<K, V>
where
    Option<V>: Datum + Clone,
    <Option<V> as Datum>::DefaultCodec: Codec<Option<V>>,
{
    /// The same, of this epoch or a later one.
    #[must_use]
    pub fn at_least(&self, epoch: Epoch) -> Self {
        Self {
            queries: self.queries.at_least(epoch),
            name: Arc::clone(&self.name),
            versions: self.versions.at_least(epoch),
            times: self.times.clone(),
        }
    }

    /// The value that a key had at a time: its last version that is not newer, as far as versions have come; `None` if there was none, or
    /// it had been deleted.
    ///
    /// # Errors
    /// If the time is before the history, and the versions of that time are gone; if another process of the job has the key, or the job
    /// ends before.
    pub async fn as_of(&self, key: &K, time: Timestamp) -> Result<Answer<Option<V>>, QueryError> {
        let read = |view: &View<'_>| self.as_of_in(view, key, time);
        self.queries.read(read).await
    }

    /// The versions of a key from `times.start` on and before its end, the oldest first: `limit` at most. `None` is a deletion.
    ///
    /// # Errors
    /// If another process of the job has the key, or the job ends before.
    pub async fn history(
        &self,
        key: &K,
        times: Range<Timestamp>,
        limit: usize,
    ) -> Result<Answer<Vec<(Timestamp, Option<V>)>>, QueryError> {
        self.versions.range(key, times, limit).await
    }

    /// The value that a key had at a time, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`as_of`](Self::as_of).
    pub fn as_of_in(
        &self,
        view: &View<'_>,
        key: &K,
        time: Timestamp,
    ) -> Result<Option<V>, QueryError> {
        if let Some((_, version)) = self.versions.last_in(view, key, &..=time)? {
            return Ok(version);
        }
        match self.times.time(view, key)? {
            Some(begin) if time < begin => Err(QueryError::BeforeHistory {
                store: self.name.to_string(),
                time,
                begin,
            }),
            _ => Ok(None),
        }
    }
}
