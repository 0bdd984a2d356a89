//! Letters as a job has them: where late ones enter, and the letters of one that runs.

use std::marker::PhantomData;

use super::Letters;
use crate::codec::Datum;
use crate::runtime::connectors::keyed_letters;
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::source::Replayed;
use crate::runtime::graph::stream::{Keyed, Place};
use crate::runtime::life::job::{Job, Running};

impl Job {
    /// Begins a stream at the late letters of the topic `letters` that are to be replayed ([`Letters::replay`](crate::runtime::Letters::replay),
    /// or `onceflow letters replay`). Merge it into the stream in front of the step that found them late: there each of them enters
    /// once, with the time that the replay says, and nothing else of the job sees it again. Records whose call (`map_async`) or effect
    /// failed for good come back the same way, in front of that step. Keys and values are in the default codecs.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("per-minute");
    /// let again = job.replayed::<str, u64>("late-clicks");
    /// let (windows, late) = job
    ///     .keyed_source(keyed_topic::<str, u64>("clicks"))
    ///     .merge(again)
    ///     .window(FixedWindows::tumbling(Duration::from_secs(60)))
    ///     .late();
    /// windows.count("per-minute").sink(topic("per-minute"));
    /// late.sink(topic("late-clicks").keep_headers());
    /// ```
    #[track_caller]
    pub fn replayed<K: Datum + ?Sized, V: Datum + ?Sized>(
        &self,
        letters: &str,
    ) -> Keyed<K, V, Replayed<K, V>> {
        Keyed {
            graph: self.graph.clone(),
            place: Place::source(&self.graph, letters.to_owned()),
            upstream: Replayed {
                name: letters.to_owned(),
                letters: keyed_letters(),
            },
            types: PhantomData,
        }
    }
}

impl Running {
    /// The job's dead and late letters, which it can take back while it runs.
    ///
    /// # Errors
    /// As [`Letters::of`].
    pub fn letters(&self) -> Result<Letters, JobError> {
        Letters::on(self.sources.transport(), &self.name)
    }
}
