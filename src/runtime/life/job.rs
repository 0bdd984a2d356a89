//! [`Job`]: what users build, configure and run.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use futures::channel::oneshot;

use super::driver::DRIVER_THREAD;
use super::log_handle::Log;
use super::query::Queries;
use super::savepoint::Savepoint;
use super::start::Settings;
use super::stopper::Stopper;
use super::supervision::supervise;
use super::watching::Sources;
use crate::codec::{Codec, Datum};
use crate::protocol::batch::Compression;
use crate::runtime::connectors::KeyedTopic;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::record::Unkeyed;
use crate::runtime::graph::description::Description;
use crate::runtime::graph::source::{From, Source};
use crate::runtime::graph::stream::{Keyed, Place, Stream};
use crate::runtime::graph::topology::{Graph, Topology};
use crate::runtime::life::signals;
use crate::runtime::scale::ScaleOut;
use crate::runtime::task::cycle::Commit;
use crate::runtime::task::poison::PoisonPolicy;
use crate::runtime::task::progress::{Progress, ShareReport, Summary};
use crate::runtime::topics::job_topics::{JobTopic, job_topics, with_configs};
use crate::state::StateConfig;
use crate::types::Offset;

/// A stream-processing job under construction.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> anyhow::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let data = folder.path().join("data");
/// use std::time::Duration;
/// use onceflow::prelude::*;
///
/// let log = Log::embedded(&data)?;
/// let job = Job::new("word-count");
/// let greetings = ["hello hello", "world"].map(str::to_owned);
/// job.source(values("greetings", greetings))
///     .flat_map_with(|line: &String, out: &mut Collector<'_, str>| {
///         line.split(' ').for_each(|word| out.collect(word));
///     })
///     .key_by_ref(|word: &str| word)
///     .count("counts")
///     .changes()
///     .sink(topic("word-counts"));
/// job.exactly_once(Commit::every(Duration::from_millis(10))).run(&log).await?;
/// # Ok(())
/// # }
/// ```
pub struct Job {
    pub(super) name: String,
    pub(super) graph: Graph,
}

impl Job {
    /// A job of this name. The name is its identity for good: its state, positions and internal topics carry it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            graph: Graph::default(),
        }
    }

    /// Begins a stream at a source without keys.
    #[track_caller]
    pub fn source<S: Source<Key = Unkeyed>>(&self, source: S) -> Stream<S::Value, From<S>> {
        Stream {
            graph: self.graph.clone(),
            place: Place::source(&self.graph, source.name()),
            upstream: From(source),
            item: PhantomData,
        }
    }

    /// Begins a stream at a source with keys.
    #[track_caller]
    pub fn keyed_source<S: Source>(&self, source: S) -> Keyed<S::Key, S::Value, From<S>> {
        Keyed {
            graph: self.graph.clone(),
            place: Place::source(&self.graph, source.name()),
            upstream: From(source),
            types: PhantomData,
        }
    }

    #[doc(hidden)]
    /// Notes that the store of a table has the last value of each key of a topic, and nothing else.
    pub fn note_table_of<K, V, C>(&self, store: &str, topic: &KeyedTopic<K, V, C>)
    where
        K: Datum + ?Sized,
        V: Datum<Owned = V>,
        C: Codec<V>,
    {
        self.graph.note_source_table(store, topic.as_changelog());
    }

    /// The graph of the job as it is so far: displayed it is text, a line a node with its inputs, its stores and where it was made;
    /// [`Description::json`] and [`Description::dot`] give it to programs.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("parity");
    /// job.source(values("n", 0..10u64)).key_by(|n| n % 2).count("counts").changes().sink(topic("counts"));
    /// let text = job.describe().to_string();
    /// assert!(text.contains("count counts  <- shuffle of 2  [store counts: u64 by u64]"), "{text}");
    /// ```
    #[must_use]
    pub fn describe(&self) -> Description {
        self.graph.describe(&self.name)
    }

    /// The topics that the job writes and creates where they are absent, with their settings. A dead-letter topic is
    /// among those of [`Launch::topics`].
    ///
    /// # Errors
    /// If the job as built cannot run.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("word-count");
    /// job.source(topic::<str>("words")).key_by_ref(|word: &str| word).count("counts").changes().sink(topic("word-counts"));
    /// let topics: Vec<String> = job.topics()?.iter().map(|topic| topic.name.to_string()).collect();
    /// assert_eq!(topics, ["word-count-positions", "word-count-counts-changelog", "word-counts"]);
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    pub fn topics(&self) -> Result<Vec<JobTopic>, JobError> {
        let topology = self.graph.topology(&self.name)?;
        let topology = topology.with_replays(&self.name, false)?;
        job_topics(&self.name, &topology, &PoisonPolicy::Fail, false)
    }

    /// Processes exactly once, committing as `commit` says.
    pub fn exactly_once(self, commit: Commit) -> Launch {
        Launch {
            name: self.name,
            graph: self.graph,
            settings: Settings {
                commit,
                workers: None,
                state_partitions: None,
                memory_bytes: 512 << 20,
                poison: PoisonPolicy::Fail,
                compression: Compression::None,
                topic_partitions: None,
                transaction_timeout: std::time::Duration::from_secs(60),
                changelog_tail_bytes_max: StateConfig::default().changelog_tail_bytes_max,
                dropped_stores: Vec::new(),
                retyped: Vec::new(),
                topic_configs: BTreeMap::new(),
                reuse_source_topics: false,
                scale_out: None,
            },
        }
    }
}

/// A job ready to run, with its settings.
#[must_use = "nothing runs until `run` or `start`"]
pub struct Launch {
    pub(in crate::runtime) name: String,
    pub(super) graph: Graph,
    pub(in crate::runtime) settings: Settings,
}

impl Launch {
    /// The topics that the job writes and creates where they are absent, with their settings.
    ///
    /// # Errors
    /// If the job as built cannot run.
    pub fn topics(&self) -> Result<Vec<JobTopic>, JobError> {
        let topology = self.topology()?;
        let is_spread = self.settings.scale_out.is_some();
        let topics = job_topics(&self.name, &topology, &self.settings.poison, is_spread)?;
        with_configs(topics, &self.settings.topic_configs, &self.name)
    }

    /// The graph, checked, with the ways back for letters.
    pub(in crate::runtime) fn topology(&self) -> Result<Topology, JobError> {
        let has_dead_letters = matches!(self.settings.poison, PoisonPolicy::DeadLetter(_));
        let topology = self.graph.topology(&self.name)?;
        topology.with_replays(&self.name, has_dead_letters)
    }

    /// Sets the worker threads; the default is one a core. May change from run to run: state is kept.
    pub fn workers(mut self, count: usize) -> Self {
        self.settings.workers = Some(count.max(1));
        self
    }

    /// Into how many parts state is cut: the most workers that can share it. Fixed when the job first runs.
    pub fn state_partitions(mut self, count: u16) -> Self {
        self.settings.state_partitions = Some(count.max(1));
        self
    }

    /// The memory that state may take, with what is on its way to and from it, in bytes. The default is 512 MiB.
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.settings.memory_bytes = bytes;
        self
    }

    /// Sets the policy for records that cannot be processed. The default is to fail.
    pub fn on_poison(mut self, policy: PoisonPolicy) -> Self {
        self.settings.poison = policy;
        self
    }

    /// Gives up the state of the store `name`, which no step of the job has any more. Without this such a job is
    /// refused, because a step that was renamed by mistake would lose its state: see [`Keyed::was`]. Its changelog topic stays.
    pub fn forget(mut self, name: &str) -> Self {
        self.settings.dropped_stores.push(name.to_owned());
        self
    }

    /// Accepts that the types of the store `name` (or of the repartition topic of that name) are others than those that an earlier build
    /// of the job wrote. Without this such a job is refused, because it would read the old bytes as other values. The bytes are not
    /// converted: say it only if they mean the same in both types, as after a field was renamed. Once is enough.
    pub fn accept_type_change(mut self, name: &str) -> Self {
        self.settings.retyped.push(name.to_owned());
        self
    }

    /// Sets the compression of record batches of sinks and changelogs. The default is none.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// A setting that the topic of a sink or of dead letters gets if the job creates it, by Kafka's name. A topic that is there
    /// already keeps its own. A dead-letter topic takes records of 96 MiB unless this says otherwise.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use onceflow::prelude::*;
    /// # use onceflow::types::TopicName;
    /// # let job = Job::new("parse");
    /// # job.source(topic::<str>("in")).try_map(|text: &str| text.parse::<u64>()).sink(topic("out"));
    /// job.exactly_once(Commit::every(Duration::from_millis(100)))
    ///     .on_poison(PoisonPolicy::DeadLetter(TopicName::new("dead")?))
    ///     .topic_config("dead", "retention.ms", "604800000");
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    pub fn topic_config(mut self, topic: &str, name: &str, value: &str) -> Self {
        let configs = self.settings.topic_configs.entry(topic.to_owned());
        configs
            .or_default()
            .insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the partitions of topics that the job creates. The default is the number of state partitions.
    pub fn topic_partitions(mut self, count: i32) -> Self {
        self.settings.topic_partitions = Some(count.max(1));
        self
    }

    /// After so long without a commit the coordinator aborts a cycle. The default is 60 s.
    pub fn transaction_timeout(mut self, timeout: std::time::Duration) -> Self {
        self.settings.transaction_timeout = timeout;
        self
    }

    /// Sets the bytes of changelog, about, that a restart replays at most: state is brought to RocksDB's disk whenever it lacks
    /// more. The default is 256 MiB; less makes restarts shorter, and RocksDB write more.
    pub fn changelog_tail_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.changelog_tail_bytes_max = bytes;
        self
    }

    /// Shares the job with other processes that reach the same log: each runs it with an instance name of its own.
    /// Its sources and sinks must be topics, and it runs until it is stopped. A job that ran alone may be spread; one that was
    /// spread stays so, if only over one process.
    pub fn scale_out(mut self, scale_out: ScaleOut) -> Self {
        self.settings.scale_out = Some(scale_out);
        self
    }

    /// Tables of compacted topics ([`Job::table`]) that have no changelog yet get none: their topic is their changelog, and the log
    /// has no second copy of them. It is Kafka Streams' `topology.optimization`. Decided when the job first runs, once for all: a job
    /// that has run keeps what it has, whether this is called or not.
    ///
    /// The log then compacts the topic only up to where the job has committed. A table gets a changelog of its own, as without this,
    /// where the log is not embedded in this process, where the job is scaled out or has a dead-letter topic, where the topic is absent,
    /// not `compact` only, read with a `key_codec`, or has another number of partitions than the job has state partitions (a new job
    /// takes that of the topic). Keys must be placed by Kafka's default partitioner: a record elsewhere stops the job.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use onceflow::prelude::*;
    /// let job = Job::new("names");
    /// let users = job.table("users", keyed_topic::<u64, String>("users"));
    /// job.keyed_source(keyed_topic::<u64, String>("clicks"))
    ///     .join_table("named", users, |page, name| format!("{name} saw {page}"))
    ///     .sink(topic("named-clicks"));
    /// let launch = job.exactly_once(Commit::every(Duration::from_millis(100))).reuse_source_topics();
    /// # drop(launch);
    /// ```
    pub fn reuse_source_topics(mut self) -> Self {
        self.settings.reuse_source_topics = true;
        self
    }

    /// Runs the job until its sources end, or SIGTERM or SIGINT comes: then what is in flight is finished and committed.
    ///
    /// # Errors
    /// The failure of the job. Nothing of an unfinished cycle is visible; the next run goes on behind the last commit.
    pub fn run(self, log: &Log) -> impl Future<Output = Result<Summary, JobError>> + Send + use<> {
        let started = self.start(log);
        let env = log.env().clone();
        async move {
            let running = started?;
            let watched = signals::watch(&env, running.stopper());
            let result = running.finished().await;
            // The thread may have ended by itself.
            let _ = watched.send(());
            result
        }
    }

    /// Starts the job on threads of its own and returns at once.
    ///
    /// # Errors
    /// If the job as built cannot run.
    pub fn start(self, log: &Log) -> Result<Running, JobError> {
        self.show_instead()?;
        let topology = self.topology()?;
        if topology.uses_time && self.settings.scale_out.is_some() {
            refuse_ends(&self.name, &topology)?;
        }
        let claim = match &self.settings.scale_out {
            Some(scale_out) => log.claim(&format!("{}@{}", self.name, scale_out.instance))?,
            None => log.claim(&self.name)?,
        };
        let progress = Arc::<Progress>::default();
        let sources = Sources::new(log.transport(), &self.name, &topology)?;
        let queries = Queries::new(log.env(), &self.name, &topology, &progress, log.transport());
        let stopper = Stopper::default();
        let (done, finished) = oneshot::channel();
        let name = self.name.clone();
        let body = {
            let (log, progress, stopper) = (log.clone(), Arc::clone(&progress), stopper.clone());
            move || {
                let result = supervise(
                    &log,
                    &self.name,
                    &topology,
                    &self.settings,
                    &progress,
                    &stopper,
                );
                drop(claim);
                progress.desk.end();
                stopper.finish();
                progress.changed();
                // Nobody waits for the end of a job that was dropped.
                let _ = done.send(result.map(|()| progress.summary()));
            }
        };
        let spawned = log.env().spawn.spawn(DRIVER_THREAD, Box::new(body));
        spawned.map_err(|e| JobError::no_thread(DRIVER_THREAD, &e))?;
        Ok(Running {
            name,
            finished,
            stopper,
            progress,
            sources,
            queries,
        })
    }
}

/// A process of a job that is scaled out does not end with its input, since another one may get more: what is still open at the end
/// would stay so.
fn refuse_ends(job: &str, topology: &Topology) -> Result<(), JobError> {
    let mut sources = topology.sources.iter();
    match sources.find(|source| source.lister.reads_until_end()) {
        Some(source) => Err(JobError::Topology {
            job: job.to_owned(),
            why: format!(
                "its source {} is read `until_end`, and the job has windows or other steps of event time: a job that is scaled out does \
                 not end with its input, so that its last windows would never close. Leave out `until_end`, or run it as one process",
                source.name
            ),
        }),
        None => Ok(()),
    }
}

/// A job that runs on threads of its own. Dropping it lets the job go on; [`Running::stop`] ends it.
pub struct Running {
    pub(super) name: String,
    finished: oneshot::Receiver<Result<Summary, JobError>>,
    stopper: Stopper,
    pub(super) progress: Arc<Progress>,
    pub(super) sources: Sources,
    pub(super) queries: Queries,
}

impl Running {
    /// Counts the cycles committed so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.progress.commits()
    }

    /// The committed position of each split that moved in this run, by its number.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<u32, Offset> {
        self.progress.positions()
    }

    /// Returns the share of this process, if the job is spread over several ([`Launch::scale_out`]).
    #[must_use]
    pub fn share(&self) -> ShareReport {
        self.progress.share()
    }

    /// Takes a savepoint into the directory `path`, which must be absent: a copy of the state, timers, times and positions as of one
    /// commit. The job stands still for about as long as a commit takes, and goes on while the files are moved and
    /// summed up. They are links to those of the job where `path` is on its file system, else copies.
    ///
    /// # Errors
    /// If the path exists, the disk is full, the job has no state, is shared between processes, or ends before. The job goes on.
    pub fn savepoint<P: AsRef<Path>>(
        &self,
        path: P,
    ) -> impl Future<Output = Result<Savepoint, JobError>> + Send + use<P> {
        let path = path.as_ref().to_owned();
        let answered = self.stopper.ask_for_savepoint(&path);
        async move {
            let ended = || {
                JobError::Savepoint {
                path,
                why: "the job ended, or started again from its last commit, before it was taken: ask once more".to_owned(),
            }
            };
            answered.await.unwrap_or_else(|_| Err(ended()))
        }
    }

    /// Whether the job has ended; [`Running::finished`] then answers at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.stopper.is_finished()
    }

    /// A handle that stops the job, for another place.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Finishes and commits what is in flight, then ends the job.
    ///
    /// # Errors
    /// The earlier failure of the job.
    pub async fn stop(self) -> Result<Summary, JobError> {
        self.stopper.stop();
        self.finished().await
    }

    /// Waits for the job's end.
    ///
    /// # Errors
    /// The failure of the job.
    pub async fn finished(self) -> Result<Summary, JobError> {
        let lost = || JobError::thread(DRIVER_THREAD, "it ended without a word");
        self.finished.await.unwrap_or_else(|_| Err(lost()))
    }
}
