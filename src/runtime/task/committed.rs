//! The state of a job as of one commit, as readers on other threads see it: stores by name, rows as bytes (design D25).
//!
//! A [`View`] lives while one question is answered. If a commit comes between two of its reads, the later one fails with
//! [`QueryError::Overtaken`], and the question is begun again: so all values of an answer are of one epoch.
//! Open next: `committed/rows.rs` (typed rows with time), `committed/face.rs` (rows for who has not the types).

mod error;
mod face;
mod rows;

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use error::QueryError;
pub(crate) use face::{Face, Kind, ReadOpenWindows, WindowsFace};
pub use rows::TimedRows;
pub(in crate::runtime) use rows::encode_key;

use super::context::JobContext;
use super::timed_row::{rows_between, time_and_key};
use crate::codec::{Datum, StoredVersions, Versioned};
use crate::state::{Direction, Found, HashedKey, Inside, RangeOf};
use crate::types::Timestamp;

/// The number of a commit of a job: a later one is larger, also after restarts. Numbers are left out.
///
/// In a job that is scaled out each instance counts its own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Epoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A function that is shown a row's key and value, and may fail.
type ShowRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), QueryError>;

/// A function that is shown a row's time, key and value, and may fail.
type ShowTimedRow<'a> = &'a mut dyn FnMut(Timestamp, &[u8], &[u8]) -> Result<(), QueryError>;

/// A function that is shown a row's key and value, and may break off or fail.
type VisitRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, QueryError>;

/// The state of a job in this process, as of one epoch, while a question is answered.
pub struct View<'v> {
    job: &'v JobContext,
    epoch: Epoch,
}

impl<'v> View<'v> {
    pub(crate) fn new(job: &'v JobContext, epoch: Epoch) -> Self {
        Self { job, epoch }
    }

    /// The codec of a store's values, which reads their earlier versions, too.
    pub(crate) fn codec_of<V: Datum + ?Sized>(&self, store: &str) -> Versioned<V::DefaultCodec> {
        Versioned::new(V::DefaultCodec::default(), self.versions_of(store))
    }

    /// The versions of a store's values.
    pub(crate) fn versions_of(&self, store: &str) -> StoredVersions {
        self.job.versions_of(store)
    }

    /// The epoch of all that is read.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn inside(&self) -> Result<Inside<'_>, QueryError> {
        let inside = self.job.backend.views().enter();
        inside
            .filter(|inside| inside.epoch() == self.epoch.0)
            .ok_or(QueryError::Overtaken { attempts: 1 })
    }

    pub(crate) fn state_partition(&self, key: &HashedKey<'_>) -> u16 {
        key.state_partition(self.job.state_partitions)
    }

    pub(crate) fn value(
        &self,
        store: &str,
        key: HashedKey<'_>,
    ) -> Result<Option<Vec<u8>>, QueryError> {
        let partition = self.state_partition(&key);
        let backend = &self.job.backend;
        let inside = self.inside()?;
        match backend.committed_value(&inside, store, partition, key.bytes())? {
            Found::Value(value) => Ok(value),
            Found::Elsewhere => Err(self.elsewhere(store, partition)),
        }
    }

    /// Shows the rows of a range, until `visit` breaks or fails.
    pub(crate) fn visit(
        &self,
        store: &str,
        range: RangeOf<'_>,
        visit: VisitRow<'_>,
    ) -> Result<(), QueryError> {
        let mut failed = None;
        let mut show = |key: &[u8], value: &[u8]| match visit(key, value) {
            Ok(flow) => flow,
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        };
        let backend = &self.job.backend;
        let missing = backend.visit_committed(self.inside()?, store, range, &mut show)?;
        match (failed, missing) {
            (Some(error), _) => Err(error),
            (None, Some(partition)) => Err(self.elsewhere(store, partition)),
            (None, None) => Ok(()),
        }
    }

    /// Shows up to `limit` keys of this process with their values, from the first one on or behind `after`, in an order of their own.
    pub(crate) fn visit_page(
        &self,
        store: &str,
        after: Option<&[u8]>,
        limit: usize,
        visit: ShowRow<'_>,
    ) -> Result<(), QueryError> {
        let mut partitions = self.partitions(store)?;
        let mut from = Vec::new();
        if let Some(after) = after {
            let partition = self.state_partition(&HashedKey::new(after));
            partitions.retain(|it| *it >= partition);
            if partitions.first() == Some(&partition) {
                from.extend_from_slice(after);
                from.push(0);
            }
            // Else it has gone to another process: all that is here is behind it.
        }
        // The key behind which it goes on is in the first of them.
        let places = partitions.iter().enumerate();
        let places =
            places.map(|(index, &partition)| (partition, if index == 0 { &*from } else { &[] }));
        let places: Vec<_> = places.collect();
        let range = RangeOf {
            places: &places,
            to: None,
            direction: Direction::Forward,
            rows_max: limit,
        };
        let mut left = limit;
        self.visit(store, range, &mut |key, value| {
            visit(key, value)?;
            left -= 1;
            Ok(match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        })
    }

    /// Shows the rows with times in a range, up to `limit` of each state partition.
    pub(crate) fn visit_times(
        &self,
        store: &str,
        times: &Range<Timestamp>,
        limit: usize,
        visit: ShowTimedRow<'_>,
    ) -> Result<(), QueryError> {
        let partitions = self.partitions(store)?;
        let (from, to) = rows_between(times);
        let places: Vec<_> = partitions.iter().map(|&it| (it, &*from)).collect();
        let range = RangeOf {
            places: &places,
            to: Some(&to),
            direction: Direction::Forward,
            rows_max: limit,
        };
        self.visit(store, range, &mut |row, value| {
            if let Some((time, key)) = time_and_key(row) {
                visit(time, key, value)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The state partitions of the store that are in this process.
    pub(crate) fn partitions(&self, store: &str) -> Result<Vec<u16>, QueryError> {
        let partitions = self.job.backend.views().partitions(store);
        let is_whole =
            self.job.is_spread || partitions.len() == usize::from(self.job.state_partitions);
        match is_whole {
            true => Ok(partitions),
            false => Err(QueryError::Overtaken { attempts: 1 }),
        }
    }

    fn elsewhere(&self, store: &str, state_partition: u16) -> QueryError {
        match self.job.is_spread {
            true => QueryError::Elsewhere {
                store: store.to_owned(),
                state_partition,
                instance: None,
            },
            // A job that runs alone has all of them, unless a worker of it has just failed.
            false => QueryError::Overtaken { attempts: 1 },
        }
    }
}
