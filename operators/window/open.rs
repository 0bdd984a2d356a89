//! Questions about windows that are open: what a running job holds in them, as of one commit.

use std::ops::Range;
use std::sync::Arc;

use super::fixed::Grid;
use super::per_key::Held;
use super::{CalendarWindows, SessionWindows};
use crate::codec::{Codec, Datum};
use crate::runtime::{Answer, Epoch, FixedWindows, Queries, QueryError, View, Window};
use crate::types::Timestamp;

/// The most windows that one question looks for: each is a read of its own.
const WINDOWS_MAX: usize = 10_000;

/// Reads the open windows of a key that have some of these times.
pub type ReadWindows<K, A> = Arc<
    dyn Fn(&View<'_>, &K, &Range<Timestamp>) -> Result<Vec<(Window, A)>, QueryError> + Send + Sync,
>;

/// A kind of windows that a running job can be asked for: [`FixedWindows::tumbling`], [`CalendarWindows`] and [`SessionWindows`]. `A` is
/// the type of their results.
pub trait OpenWindows<K: Datum + ?Sized, A>: Sized {
    /// The way to read those that the store holds.
    ///
    /// # Errors
    /// If the job has no such store, it is of another type, or such windows are not kept one by one.
    fn reader(self, queries: &Queries, store: &str) -> Result<ReadWindows<K, A>, QueryError>;
}

/// Questions about the open windows of a step: made by [`Queries::windows`].
pub struct WindowsQuery<K: ?Sized, A> {
    queries: Queries,
    read: ReadWindows<K, A>,
}

impl Queries {
    /// The open windows of the step `name`, which was given the same `windows`. A window that is closed is in the results alone.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use onceflow::prelude::*;
    /// # use onceflow::runtime::{Queries, QueryError};
    /// # use onceflow::types::Timestamp;
    /// # async fn ask(query: &Queries) -> Result<(), QueryError> {
    /// let minutes = FixedWindows::tumbling(Duration::from_secs(60));
    /// let clicks = query.windows::<str, u64, _>("per-minute", minutes)?;
    /// let hour = Timestamp(0)..Timestamp(3_600_000);
    /// for (window, clicks) in clicks.of("ada", hour).await?.value {
    ///     println!("from {} on so far {clicks}", window.start);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the job has no such store, it is of another type, or such windows are not kept one by one.
    pub fn windows<K: Datum + ?Sized, A, W: OpenWindows<K, A>>(
        &self,
        name: &str,
        windows: W,
    ) -> Result<WindowsQuery<K, A>, QueryError> {
        Ok(WindowsQuery {
            read: windows.reader(self, name)?,
            queries: self.clone(),
        })
    }
}

impl<K: Datum + ?Sized, A> WindowsQuery<K, A> {
    /// The same, of this epoch or a later one.
    #[must_use]
    pub fn at_least(&self, epoch: Epoch) -> Self {
        Self {
            queries: self.queries.at_least(epoch),
            read: Arc::clone(&self.read),
        }
    }

    /// The open windows of a key that have some of these times, each with its result so far, in the order of time.
    ///
    /// # Errors
    /// If another process of the job has the key, the job ends before, or the times have more than 10,000 windows.
    pub async fn of(
        &self,
        key: &K,
        times: Range<Timestamp>,
    ) -> Result<Answer<Vec<(Window, A)>>, QueryError> {
        self.queries
            .read(|view| self.of_in(view, key, &times))
            .await
    }

    /// The same, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_in(
        &self,
        view: &View<'_>,
        key: &K,
        times: &Range<Timestamp>,
    ) -> Result<Vec<(Window, A)>, QueryError> {
        (self.read)(view, key, times)
    }
}

/// Windows that are their own slices: each is a row at its end.
fn of_grid<K, A, G>(
    windows: G,
    queries: &Queries,
    store: &str,
) -> Result<ReadWindows<K, A>, QueryError>
where
    K: Datum + ?Sized,
    A: Datum + Clone,
    A::DefaultCodec: Codec<A>,
    G: Grid,
{
    if !windows.is_tumbling() {
        return Err(QueryError::Shared {
            store: store.to_owned(),
        });
    }
    let rows = queries.timed::<K, A>(store)?;
    Ok(Arc::new(move |view, key, times| {
        let mut found = Vec::new();
        let mut looked_for = 0;
        let mut next = windows.slice_of(times.start);
        while let Some(window) = next.filter(|window| window.start < times.end) {
            looked_for += 1;
            if looked_for > WINDOWS_MAX {
                return Err(QueryError::TooMany {
                    what: "more windows",
                    max: WINDOWS_MAX,
                });
            }
            let state = rows.get_at_in(view, key, window.end)?;
            found.extend(state.map(|state| (window, state)));
            next = windows.slice_of(window.end);
        }
        Ok(found)
    }))
}

impl<K, A> OpenWindows<K, A> for FixedWindows
where
    K: Datum + ?Sized,
    A: Datum + Clone,
    A::DefaultCodec: Codec<A>,
{
    fn reader(self, queries: &Queries, store: &str) -> Result<ReadWindows<K, A>, QueryError> {
        of_grid(self, queries, store)
    }
}

impl<K, A> OpenWindows<K, A> for CalendarWindows
where
    K: Datum + ?Sized,
    A: Datum + Clone,
    A::DefaultCodec: Codec<A>,
{
    fn reader(self, queries: &Queries, store: &str) -> Result<ReadWindows<K, A>, QueryError> {
        of_grid(self, queries, store)
    }
}

impl<K, A> OpenWindows<K, A> for SessionWindows
where
    K: Datum + ?Sized,
    A: Datum + Clone,
    A::DefaultCodec: Codec<A>,
{
    fn reader(self, queries: &Queries, store: &str) -> Result<ReadWindows<K, A>, QueryError> {
        let rows = queries.timed::<K, Held<A, Self>>(store)?;
        Ok(Arc::new(move |view, key, times| {
            let held = rows.get_in(view, key)?;
            let parts = held.map_or_else(Vec::new, |held| held.parts);
            let sessions = parts
                .into_iter()
                .map(|part| (self.window_of(&part), part.state));
            let touches = |window: &Window| window.start < times.end && times.start < window.end;
            Ok(sessions.filter(|(window, _)| touches(window)).collect())
        }))
    }
}
