//! A sink that calls a function: at least once, because what the function does is outside the transaction.

use crate::runtime::{Flow, JobError, OperatorContext, Record, Sink, SinkWriter};

/// A function as a sink; see [`at_least_once`].
pub struct AtLeastOnce<F> {
    function: F,
}

/// A sink that calls `function` for each record, *before* the cycle is committed: after a crash it is called
/// again for the same records. The name says so, because this is the one place where exactly once ends.
pub fn at_least_once<F>(function: F) -> AtLeastOnce<F> {
    AtLeastOnce { function }
}

impl<K, V, F> Sink<K, V> for AtLeastOnce<F>
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    F: Fn(Record<'_, K, V>) + Clone + Send + Sync + 'static,
{
    type Writer = Caller<F>;
    const IS_TRANSACTIONAL: bool = false;

    fn name(&self) -> String {
        "a function (at least once)".to_owned()
    }

    fn open(&self, _context: &mut OperatorContext) -> Result<Caller<F>, JobError> {
        Ok(Caller(self.function.clone()))
    }
}

/// One worker's end of the sink.
pub struct Caller<F>(F);

impl<K: ?Sized, V: ?Sized, F: Fn(Record<'_, K, V>)> SinkWriter<K, V> for Caller<F> {
    fn write(&mut self, record: Record<'_, K, V>) -> Flow {
        (self.0)(record);
        Ok(())
    }
}
