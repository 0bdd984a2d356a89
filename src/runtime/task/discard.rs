//! The end of a stream that nobody wants.

use super::chains::StageFactory;
use super::context::OperatorContext;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Flow, Output, Signal, Stage};
use crate::runtime::contract::record::Record;

/// Takes records and does nothing with them.
pub(crate) struct Discard;

#[diagnostic::do_not_recommend]
impl<K: ?Sized, V: ?Sized> StageFactory<K, V> for Discard {
    type Stage = Self;

    fn build(&self, _context: &mut OperatorContext) -> Result<Self, JobError> {
        Ok(Self)
    }
}

impl<K: ?Sized, V: ?Sized> Output<K, V> for Discard {
    fn push(&mut self, _record: Record<'_, K, V>) -> Flow {
        Ok(())
    }
}

impl<K: ?Sized, V: ?Sized> Stage<K, V> for Discard {
    fn signal(&mut self, _signal: Signal) -> Flow {
        Ok(())
    }
}
