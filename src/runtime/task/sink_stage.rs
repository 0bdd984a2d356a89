//! Sinks as the runtime has them: the end of a chain, and what a worker and the start of a job do with any sink.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::chains::StageFactory;
use super::context::{JobContext, OperatorContext};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::{Flow, Output, Signal, Stage};
use crate::runtime::contract::record::Record;
use crate::runtime::contract::sink::{MarkChanges, Marks, Sink, SinkWriter};
use crate::state::Trace;

/// A sink with its types hidden, before workers exist and after they are gone.
pub(crate) trait AnySink: Send + Sync {
    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError>;
    fn close(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError>;
}

/// A sink whose types are to be hidden.
pub(crate) struct Erased<S, KV> {
    sink: Arc<S>,
    types: PhantomData<KV>,
}

impl<S: Sink<K, V>, K: ?Sized + 'static, V: ?Sized + 'static> Erased<S, fn(&K, &V)> {
    pub(crate) fn new(sink: Arc<S>) -> Arc<dyn AnySink> {
        Arc::new(Self {
            sink,
            types: PhantomData,
        })
    }
}

impl<S: Sink<K, V>, K: ?Sized + 'static, V: ?Sized + 'static> AnySink for Erased<S, fn(&K, &V)> {
    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        self.sink.recover(marks, job)
    }

    fn close(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        self.sink.close(marks, job)
    }
}

/// A worker's end of a sink with its types hidden.
pub(crate) trait AnyWriter {
    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow;
    fn commit(&mut self) -> Flow;
}

struct Writer<W, KV> {
    writer: W,
    types: PhantomData<KV>,
}

impl<W: SinkWriter<K, V>, K: ?Sized, V: ?Sized> AnyWriter for Writer<W, fn(&K, &V)> {
    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        self.writer.prepare_commit(marks)
    }

    fn commit(&mut self) -> Flow {
        self.writer.commit()
    }
}

/// A sink that a worker opened. Chains that end in the same sink share its writer.
pub(crate) struct OpenSink {
    pub(crate) name: String,
    pub(crate) writer: Rc<RefCell<dyn AnyWriter>>,
    /// The address of the sink, which all its chains know.
    sink: usize,
    /// The same writer, to be found by its type.
    typed: Rc<dyn Any>,
}

/// Builds the end of a stream.
pub(crate) struct SinkFactory<S, KV> {
    sink: Arc<S>,
    types: PhantomData<KV>,
}

impl<S: Sink<K, V>, K: ?Sized + 'static, V: ?Sized + 'static> SinkFactory<S, fn(&K, &V)> {
    pub(crate) fn new(sink: Arc<S>) -> Self {
        Self {
            sink,
            types: PhantomData,
        }
    }

    fn open(&self, context: &mut OperatorContext) -> Result<Shared<S::Writer, K, V>, JobError> {
        let address = Arc::as_ptr(&self.sink).addr();
        let mut opened = context.sinks().iter().filter(|open| open.sink == address);
        let shared = opened.find_map(|open| Rc::clone(&open.typed).downcast().ok());
        if let Some(writer) = shared {
            return Ok(writer);
        }
        let writer: Shared<S::Writer, K, V> = Rc::new(RefCell::new(Writer {
            writer: self.sink.open(context)?,
            types: PhantomData,
        }));
        context.add_sink(OpenSink {
            name: self.sink.name(),
            writer: Rc::clone(&writer) as Rc<RefCell<dyn AnyWriter>>,
            sink: address,
            typed: Rc::clone(&writer) as Rc<dyn Any>,
        });
        Ok(writer)
    }
}

type Shared<W, K, V> = Rc<RefCell<Writer<W, fn(&K, &V)>>>;

#[diagnostic::do_not_recommend]
impl<S, K, V> StageFactory<K, V> for SinkFactory<S, fn(&K, &V)>
where
    S: Sink<K, V>,
    K: ?Sized + 'static,
    V: ?Sized + 'static,
{
    type Stage = SinkStage<S, K, V>;

    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError> {
        Ok(SinkStage {
            writer: self.open(context)?,
            trace: context.trace(),
        })
    }
}

/// The end of a chain in a sink.
pub(crate) struct SinkStage<S: Sink<K, V>, K: ?Sized + 'static, V: ?Sized + 'static> {
    writer: Shared<S::Writer, K, V>,
    trace: Trace,
}

impl<S: Sink<K, V>, K: ?Sized, V: ?Sized> Output<K, V> for SinkStage<S, K, V> {
    #[inline]
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        self.writer.borrow_mut().writer.write(record)?;
        if S::IS_TRANSACTIONAL {
            self.trace.leave();
        }
        Ok(())
    }
}

impl<S: Sink<K, V>, K: ?Sized, V: ?Sized> Stage<K, V> for SinkStage<S, K, V> {
    /// The worker asks its sinks itself, once nothing more can come from any chain.
    fn signal(&mut self, _signal: Signal) -> Flow {
        Ok(())
    }
}
