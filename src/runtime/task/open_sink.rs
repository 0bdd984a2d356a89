//! Sinks with their types hidden: what a worker, and the start and the end of a job, do with any of them.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use super::context::JobContext;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::Flow;
use crate::runtime::contract::sink::{MarkChanges, Marks};

/// A sink with its types hidden, before workers exist and after they are gone.
pub(crate) trait AnySink: Send + Sync {
    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError>;
    fn close(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError>;
}

/// A worker's end of a sink with its types hidden.
pub(crate) trait AnyWriter {
    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow;
    fn commit(&mut self) -> Flow;
}

/// A sink that a worker opened. Chains that end in the same sink share its writer.
pub(crate) struct OpenSink {
    pub(crate) name: String,
    pub(crate) writer: Rc<RefCell<dyn AnyWriter>>,
    /// The address of the sink, which all its chains know.
    pub(crate) address: usize,
    /// The same writer, to be found by its type.
    pub(crate) typed: Rc<dyn Any>,
}
