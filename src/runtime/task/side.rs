//! Side outputs: streams beside the one that leads on from an operator, of other types if need be.
//!
//! The builder makes both ends: a [`SideOutput`], which the operator's factory opens on each worker, and a stream. What is behind
//! the stream is built with the operator that feeds it, and is told of time and of ends of cycles by that operator's step.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;

use super::context::OperatorContext;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Flow, Output, SharedStage, Stage};
use crate::runtime::contract::record::Record;

/// Makes one worker's instance of what is behind a side stream.
type StageMaker<K, V> =
    Arc<dyn Fn(&mut OperatorContext) -> Result<Box<dyn Stage<K, V>>, JobError> + Send + Sync>;

/// The stage behind a side stream on one worker: its operator pushes, and the step that tells of time has its hands on it, too.
type Behind<K, V> = Rc<RefCell<Box<dyn Stage<K, V>>>>;

/// The end of a side stream at which an operator pushes; see [`Keyed::side_output`](crate::runtime::Keyed::side_output).
pub struct SideOutput<K: ?Sized, V: ?Sized> {
    behind: Arc<Mutex<Option<StageMaker<K, V>>>>,
}

impl<K: ?Sized, V: ?Sized> Clone for SideOutput<K, V> {
    fn clone(&self) -> Self {
        Self {
            behind: Arc::clone(&self.behind),
        }
    }
}

/// One worker's end of a side stream. Made by [`OperatorContext::side`].
pub struct Side<K: ?Sized, V: ?Sized> {
    stage: Option<Behind<K, V>>,
}

impl<K: ?Sized, V: ?Sized> Side<K, V> {
    /// A side stream that leads nowhere.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { stage: None }
    }

    /// Whether the stream leads anywhere: it ended in a sink.
    #[must_use]
    pub fn leads_on(&self) -> bool {
        self.stage.is_some()
    }
}

impl<K: ?Sized, V: ?Sized> Output<K, V> for Side<K, V> {
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        match &self.stage {
            Some(stage) => stage.borrow_mut().push(record),
            None => Ok(()),
        }
    }
}

impl<K: ?Sized, V: ?Sized> Default for SideOutput<K, V> {
    fn default() -> Self {
        Self {
            behind: Arc::default(),
        }
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> SideOutput<K, V> {
    /// Puts what is made by `factory` behind the stream.
    pub(crate) fn set(&self, factory: StageMaker<K, V>) {
        *self.behind.lock() = Some(factory);
    }

    /// Builds one worker's instance of what is behind.
    pub(crate) fn open(
        &self,
        context: &mut OperatorContext,
    ) -> Result<(Side<K, V>, Option<SharedStage>), JobError> {
        let factory = self.behind.lock().clone();
        let Some(factory) = factory else {
            return Ok((Side::nowhere(), None));
        };
        let stage = Rc::new(RefCell::new(factory(context)?));
        let shared: SharedStage = Behind::clone(&stage);
        Ok((Side { stage: Some(stage) }, Some(shared)))
    }
}
