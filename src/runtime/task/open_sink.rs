//! Sinks with their types hidden: what a worker, and the start and the end of a job, do with any of them.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use super::context::JobContext;
use crate::runtime::contract::error::{Failure, FailureInner, JobError};
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
    /// Whether it is given its marks again.
    pub(crate) is_transactional: bool,
    pub(crate) writer: Rc<RefCell<dyn AnyWriter>>,
    /// The address of the sink, which all its chains know.
    pub(crate) address: usize,
    /// The same writer, to be found by its type.
    pub(crate) typed: Rc<dyn Any>,
}

impl OpenSink {
    /// The error for a failure that no single record is to blame for.
    pub(crate) fn failed(&self, failure: Failure) -> JobError {
        match failure.into_inner() {
            FailureInner::Job(error) => error,
            FailureInner::Poison(why) => self.refused(why),
        }
    }

    /// Marks that nobody would be given are a mistake.
    pub(crate) fn check_marks(&self) -> Result<(), JobError> {
        match self.is_transactional {
            true => Ok(()),
            false => Err(self.refused(
                "it sets marks, but says that it is not transactional (`Sink::IS_TRANSACTIONAL`), so nobody would read them"
                    .to_owned(),
            )),
        }
    }

    fn refused(&self, why: String) -> JobError {
        JobError::Sink {
            sink: self.name.clone(),
            why,
        }
    }
}
