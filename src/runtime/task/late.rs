//! Late records: into a stream of their own, counted, and never away in silence (I14).

use std::cell::Cell;
use std::sync::Arc;

use super::context::JobContext;
use super::side::Side;
use crate::env::warn;
use crate::runtime::contract::operator::{Flow, Output};
use crate::runtime::contract::record::Record;

/// The way for records that came after the results that they belong to. Made by
/// [`OperatorContext::late`](crate::runtime::OperatorContext::late).
pub struct Late<K: ?Sized, V: ?Sized> {
    job: Arc<JobContext>,
    node: String,
    side: Side<K, V>,
    has_warned: Cell<bool>,
}

impl<K: ?Sized, V: ?Sized> Late<K, V> {
    pub(crate) fn new(job: Arc<JobContext>, node: &str, side: Side<K, V>) -> Self {
        Self {
            job,
            node: node.to_owned(),
            side,
            has_warned: Cell::new(false),
        }
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

impl<K: ?Sized, V: ?Sized> Output<K, V> for Late<K, V> {
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        self.job.progress.note_late();
        if !self.side.leads_on() {
            self.warn();
        }
        self.side.push(record)
    }
}
