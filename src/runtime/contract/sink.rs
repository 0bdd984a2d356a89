//! The contract of a sink: where a stream ends.

use std::path::Path;

use super::record::Unkeyed;
use crate::runtime::graph::stream::{Keyed, Stream, Table, Upstream};
use crate::runtime::graph::topology::Graph;
use crate::runtime::task::chains::StageFactory;
use crate::runtime::task::discard::Discard;

/// Where records leave the job. The sinks that come with the crate are functions: [`topic`](crate::runtime::topic),
/// [`at_least_once`](crate::runtime::at_least_once), …
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a sink for these records (key `{K}`, value `{V}`)",
    label = "not a sink for them",
    note = "sinks are made by `topic`, `files` and `at_least_once`; one of your own is a function given to `at_least_once`",
    note = "a `topic` or `files` takes one type of values: `map` the records to it, or give it another codec"
)]
pub trait Sink<K: ?Sized, V: ?Sized>: 'static {
    /// What it is called in the job's graph.
    #[doc(hidden)]
    fn name(&self) -> String;

    /// Says what is needed before the job runs.
    #[doc(hidden)]
    fn declare(&self, graph: &Graph);

    /// The directory that it writes beside the log, if it does.
    #[doc(hidden)]
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// Makes the stage that ends the stream.
    #[doc(hidden)]
    fn into_factory(self) -> impl StageFactory<K, V>;
}

fn declare<K: ?Sized, V: ?Sized>(sink: &impl Sink<K, V>, graph: &Graph) {
    sink.declare(graph);
    if let Some(directory) = sink.directory() {
        graph.add_directory(directory);
    }
}

impl<T: ?Sized + 'static, U: Upstream<Unkeyed, T>> Stream<T, U> {
    /// Ends the stream in a sink.
    #[track_caller]
    pub fn sink(self, sink: impl Sink<Unkeyed, T>) {
        declare(&sink, &self.graph);
        self.end(sink.name(), sink.into_factory());
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Keyed<K, V, U> {
    /// Ends the stream in a sink.
    #[track_caller]
    pub fn sink(self, sink: impl Sink<K, V>) {
        declare(&sink, &self.graph);
        self.end(sink.name(), sink.into_factory());
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Table<K, V, U> {
    /// Keeps the table up to date without using its changes.
    #[track_caller]
    pub fn materialize(self) {
        self.changes().end("materialize".to_owned(), Discard);
    }
}
