//! The contract of a source: where a stream begins. Its splits are read by [`SplitReader`]s.

use std::rc::Rc;
use std::sync::Arc;

use super::stream::Attach;
use super::topology::{Graph, LetterNode, SourceNode};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::letter::ReadLetter;
use crate::runtime::contract::operator::Stage;
use crate::runtime::contract::source::{AssignedSplit, Position, Split, SplitReader};
use crate::runtime::task::chains::{FeedFactory, StageFactory};
use crate::runtime::task::context::{JobContext, OperatorContext};
use crate::runtime::task::feed::SplitFeed;
use crate::runtime::task::replay::{Attempts, ReplayReader};
use crate::types::{Offset, TopicName, TopicPartition};

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

    /// Makes letters of the source its records again; `None` if they cannot be replayed. A job with a dead-letter topic has a
    /// topic for the letters that each of its sources is to take back, and reads it beside the source.
    fn letters(&self) -> Option<Arc<dyn ReadLetter<Self::Key, Self::Value>>> {
        None
    }

    /// Gets ready what must be there before the job starts, such as the schemas of a topic. Called at every start, before an earlier
    /// instance of the job is fenced.
    ///
    /// # Errors
    /// If it is not there: the job does not start.
    fn prepare(&self) -> Result<(), JobError> {
        Ok(())
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
    fn prepare(&self) -> Result<(), JobError> {
        Ok(())
    }
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

    fn prepare(&self) -> Result<(), JobError> {
        Source::prepare(self)
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
        let stage = Arc::new(stage);
        if let Some(letters) = source.letters() {
            let stage = Arc::clone(&stage);
            graph.add_letters(LetterNode {
                name: name.clone(),
                feed: letters_feed(letters, Attempts::Hidden, move |context| {
                    Ok(Box::new(stage.build(context)?))
                }),
                is_of_a_source: true,
            });
        }
        graph.add_source(SourceNode {
            name,
            lister,
            replays: None,
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

/// The reading end of letters that are replayed, in front of the chain that `stage` builds.
fn letters_feed<K, V, M>(
    letters: Arc<dyn ReadLetter<K, V>>,
    attempts: Attempts,
    stage: M,
) -> FeedFactory
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    M: Fn(&mut OperatorContext) -> Result<Box<dyn Stage<K, V>>, JobError> + Send + Sync + 'static,
{
    Arc::new(move |context| {
        let (times, job) = (context.source_times(), context.shared_job());
        let (stage, letters) = (stage(context)?, Arc::clone(&letters));
        let open = Box::new(move |assigned: &AssignedSplit| {
            let (letters, times) = (Arc::clone(&letters), Rc::clone(&times));
            Ok(ReplayReader::open(&job, assigned, letters, times, attempts))
        });
        let feed = SplitFeed::<_, _, fn(&K, &V)>::of_letters(stage, open, context)?;
        Ok(Box::new(feed))
    })
}

/// A topic of letters that the job takes back, as a source.
pub(crate) struct ReplayTopic(pub(crate) TopicName);

impl SplitLister for ReplayTopic {
    fn topic(&self) -> Option<(String, Option<i32>)> {
        Some((self.0.to_string(), Some(1)))
    }

    fn reads_until_end(&self) -> bool {
        false
    }

    fn is_rereadable(&self) -> bool {
        true
    }

    fn splits(&self, _context: &JobContext) -> Result<Vec<Split>, JobError> {
        Ok(vec![Split::Partition(TopicPartition::new(
            self.0.clone(),
            0,
        ))])
    }
}

/// Late letters that are replayed, as the beginning of a stream.
pub struct Replayed<K: ?Sized, V: ?Sized> {
    pub(crate) name: String,
    pub(crate) letters: Arc<dyn ReadLetter<K, V>>,
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Attach<K, V> for Replayed<K, V> {
    fn attach<F: StageFactory<K, V>>(self, graph: &Graph, stage: F) {
        graph.add_letters(LetterNode {
            name: self.name,
            feed: letters_feed(self.letters, Attempts::Shown, move |context| {
                Ok(Box::new(stage.build(context)?))
            }),
            is_of_a_source: false,
        });
    }
}
