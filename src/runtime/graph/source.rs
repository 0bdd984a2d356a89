//! The contract of a source: where a stream begins. Its splits are read by [`SplitReader`]s.

use std::sync::Arc;

use super::stream::Attach;
use super::topology::{Graph, SourceNode};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::{AssignedSplit, Position, Split, SplitReader};
use crate::runtime::task::chains::StageFactory;
use crate::runtime::task::context::JobContext;
use crate::runtime::task::feed::SplitFeed;
use crate::types::Offset;

/// A source of records: where a stream begins.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source",
    note = "sources are made by `topic`, `keyed_topic`, `lines`, `stdin_lines` and `values`; one of your own implements `Source`"
)]
pub trait Source: Send + Sync + 'static {
    /// The key type; [`Unkeyed`](crate::runtime::Unkeyed) for sources without.
    type Key: ?Sized + 'static;
    /// The value type.
    type Value: ?Sized + 'static;
    /// Reads one split.
    type Reader: SplitReader<Self::Key, Self::Value> + 'static;

    /// The source's name, stable across restarts.
    fn name(&self) -> String;

    /// The topic that the source reads, and the partitions it gets if it is absent; `None` if it reads something else,
    /// which a job spread over several processes cannot share out.
    fn topic(&self) -> Option<(String, Option<i32>)> {
        None
    }

    /// Whether the source ends at the end that its topic has at the start. Then a topic that is absent is an error, and is not
    /// created.
    fn reads_until_end(&self) -> bool {
        false
    }

    /// Whether a record that was read can be read again within this run of the program. Where it cannot, a record that fails after
    /// part of its effects stops the job, also where there is a dead-letter topic.
    fn is_rereadable(&self) -> bool {
        true
    }

    /// Lists the splits. Called once at every start; a split that was there before keeps its position.
    ///
    /// # Errors
    /// If the source is not there.
    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError>;

    /// Opens a split behind the last committed position, or at its start.
    ///
    /// # Errors
    /// If it cannot be read from there.
    fn open(
        &self,
        split: &Split,
        position: Option<Offset>,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError>;

    /// Opens a split behind a committed position, and looks whether the input before it is the one that was read.
    ///
    /// # Errors
    /// If it cannot be read from there, or was changed.
    fn resume(
        &self,
        split: &Split,
        position: &Position,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        self.open(split, Some(position.offset), context)
    }
}

/// A source with its types hidden.
pub(crate) trait SplitLister: Send + Sync {
    fn topic(&self) -> Option<(String, Option<i32>)>;
    fn reads_until_end(&self) -> bool;
    fn is_rereadable(&self) -> bool;
    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError>;
}

impl<S: Source> SplitLister for S {
    fn topic(&self) -> Option<(String, Option<i32>)> {
        Source::topic(self)
    }

    fn reads_until_end(&self) -> bool {
        Source::reads_until_end(self)
    }

    fn is_rereadable(&self) -> bool {
        Source::is_rereadable(self)
    }

    fn splits(&self, context: &JobContext) -> Result<Vec<Split>, JobError> {
        Source::splits(self, context)
    }
}

/// A source as the beginning of a stream.
pub struct From<S>(pub(crate) S);

impl<S: Source> Attach<S::Key, S::Value> for From<S> {
    fn attach<F: StageFactory<S::Key, S::Value>>(self, graph: &Graph, stage: F) {
        let source = Arc::new(self.0);
        let lister = Arc::clone(&source);
        let name = source.name();
        graph.add_source(SourceNode {
            name,
            lister,
            feed: Arc::new(move |context| {
                let (opener, job) = (Arc::clone(&source), context.shared_job());
                let stage = stage.build(context)?;
                let open = Box::new(move |assigned: &AssignedSplit| match &assigned.position {
                    Some(position) => opener.resume(&assigned.split, position, &job),
                    None => opener.open(&assigned.split, None, &job),
                });
                let feed = SplitFeed::<_, _, fn(&S::Key, &S::Value)>::new(stage, open, context)?;
                Ok(Box::new(feed))
            }),
        });
    }
}
