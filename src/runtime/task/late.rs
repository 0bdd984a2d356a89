//! Late records: into a stream of their own, counted, and never away in silence (I14).

use std::cell::Cell;
use std::sync::Arc;

use super::context::JobContext;
use super::side::Side;
use crate::env::warn;
use crate::protocol::batch::HeaderList;
use crate::runtime::contract::letter;
use crate::runtime::contract::operator::{Flow, Output};
use crate::runtime::contract::record::Record;
use crate::types::Timestamp;

/// The reason why a record is in no result, as the header [`REASON_HEADER`](Late::REASON_HEADER) of a late record says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LateReason {
    /// The time of its results is over: `closed`.
    Closed,
    /// Its time is so far from 1970 that no window can hold it: `out of range`.
    OutOfRange,
}

impl LateReason {
    pub(crate) const ALL: [Self; 2] = [Self::Closed, Self::OutOfRange];

    /// The text in the header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::OutOfRange => "out of range",
        }
    }
}

/// The way for records that came after the results that they belong to. Made by
/// [`OperatorContext::late`](crate::runtime::OperatorContext::late).
pub struct Late<K: ?Sized, V: ?Sized> {
    job: Arc<JobContext>,
    node: String,
    side: Side<K, V>,
    has_warned: Cell<bool>,
    headers: HeaderList,
}

impl<K: ?Sized, V: ?Sized> Late<K, V> {
    pub(crate) fn new(job: Arc<JobContext>, node: &str, side: Side<K, V>) -> Self {
        Self {
            job,
            node: node.to_owned(),
            side,
            has_warned: Cell::new(false),
            headers: HeaderList::default(),
        }
    }

    /// Name of the header that tells the reason: the text of a [`LateReason`].
    pub const REASON_HEADER: &'static str = letter::LATE;
    /// Name of the header that tells the bound: how far time had come, in milliseconds since 1970, as text.
    pub const BOUND_HEADER: &'static str = letter::WATERMARK;

    /// Hands on a record that is in no result, with two more headers: the reason, and the bound, which is the watermark that it
    /// came behind. It is counted.
    ///
    /// # Errors
    /// Those of the steps behind the stream of late records.
    pub fn push(&mut self, record: Record<'_, K, V>, reason: LateReason, bound: Timestamp) -> Flow {
        self.job.progress.meters.note_late(reason);
        if !self.side.leads_on() {
            self.warn();
            return Ok(());
        }
        self.headers.clear();
        self.headers.add_all(record.headers);
        self.headers
            .add(Self::REASON_HEADER, Some(reason.as_str().as_bytes()));
        self.headers
            .add(Self::BOUND_HEADER, Some(bound.0.to_string().as_bytes()));
        self.side.push(record.with_headers(self.headers.headers()))
    }

    /// Counts a record that the definition of the results leaves out: one between two windows, for example.
    pub fn leave_out(&self) {
        self.job.progress.note_left_out();
    }

    /// Says once that late records leave no other trace than their number.
    #[cold]
    fn warn(&self) {
        if !self.has_warned.replace(true) {
            warn!(
                job = self.job.name(),
                step = self.node,
                "records come later than the watermark allows, and are left out of the results: take them from `.late()`, allow a grace, or \
                 say at `event_time` how far out of order records are (warned of once; `Running::progress` counts them)"
            );
        }
    }
}
