//! Questions about a running job's state: one committed epoch, whole, read on the thread of whoever asks (design D25).
//!
//! A question is a function of a [`View`]. It is begun again if a commit comes between two of its reads, so that all values of an
//! answer are of one epoch. Workers are not asked: see `state/view/`.
//!
//! Reading order: `mod.rs` (who asks, and when there is an answer), `stores.rs` (typed stores); what they read is `task/committed.rs`.

#[cfg(feature = "http")]
mod act;
#[cfg(feature = "http")]
mod answers;
#[cfg(feature = "dashboard")]
mod dashboard;
#[cfg(feature = "http")]
mod failed;
#[cfg(feature = "http")]
pub(crate) mod http;
#[cfg(feature = "cli")]
mod log_status;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "http")]
mod question;
#[cfg(feature = "http")]
mod records;
#[cfg(feature = "http")]
mod shown;
mod stores;
#[cfg(feature = "http")]
pub(crate) mod subject;
mod versions;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use stores::{OrderedQuery, StoreQuery, TimedQuery, WindowsQuery};
pub use versions::VersionsQuery;

use super::job::Running;
use crate::client::Transport;
use crate::codec::Schema;
use crate::env::Env;
use crate::runtime::contract::source::Split;
use crate::runtime::graph::description::Description;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::status::Watcher;
use crate::runtime::task::committed::{Epoch, Face, QueryError, View};
use crate::runtime::task::context::JobContext;
use crate::runtime::task::desk::Look;
use crate::runtime::task::progress::Progress;
use crate::runtime::task::repartition::repartition_topic;
use crate::types::{GroupId, Offset, TopicName, TopicPartition};

/// The times that an answer is begun again because a commit came between its reads.
const ATTEMPTS_MAX: u32 = 64;
/// Those of them that do not wait for the next commit.
const ATTEMPTS_AT_ONCE: u32 = 8;

/// An answer, and the epoch of which all of it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<T> {
    /// The commit whose state was read.
    pub epoch: Epoch,
    /// The answer itself.
    pub value: T,
}

/// The stores that a job declared.
pub(super) struct Declared {
    job: String,
    /// For who answers over a network.
    #[cfg_attr(
        not(feature = "http"),
        allow(dead_code, reason = "no network is asked for")
    )]
    env: Env,
    stores: BTreeMap<String, Schema>,
    faces: BTreeMap<String, Face>,
    /// Steps that were renamed: under which name their state is kept.
    renamed: BTreeMap<String, String>,
}

/// A way to ask for the state of a running job: made by [`Running::query`]. Cheap to clone, and may go to any thread.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let log = onceflow::runtime::Log::embedded(folder.path().join("data"))?;
/// use onceflow::client::wait;
/// use onceflow::prelude::*;
/// # use onceflow::client::producer::{Producer, ProducerRecord};
///
/// # wait(log.admin().create_topic(&onceflow::types::TopicName::new("words")?, 1))?;
/// let job = Job::new("word-count");
/// job.source(topic::<str>("words")).key_by_ref(|word: &str| word).count("counts").changes().sink(topic("word-counts"));
/// let running = job.exactly_once(Commit::every(std::time::Duration::from_millis(10))).start(&log)?;
/// # let words = onceflow::types::TopicName::new("words")?;
/// # let producer = Producer::<str, str>::new(log.transport(), log.producer_config()?)?;
/// let sent = wait(async { producer.send(ProducerRecord::new(&words).value("tea")).await?.await })?;
///
/// let query = running.query();
/// let counts = query.store::<str, u64>("counts")?;
///
/// // What was written is read once it is processed and committed.
/// let epoch = wait(query.processed(&sent.partition, sent.offset.unwrap()))?;
/// let answer = wait(counts.at_least(epoch).get("tea"))?;
/// assert_eq!(answer.value, Some(1));
/// assert!(answer.epoch >= epoch);
/// # wait(running.stop())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Queries {
    declared: Arc<Declared>,
    progress: Arc<Progress>,
    watcher: Arc<Watcher>,
    at_least: Epoch,
}

impl Queries {
    pub(in crate::runtime) fn new(
        env: &Env,
        job: &str,
        topology: &Topology,
        progress: &Arc<Progress>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        let graph = Description::new(job, &topology.nodes, &topology.stores);
        let watcher = Watcher::new(env, job, transport, progress, graph);
        Self {
            declared: Arc::new(Declared {
                job: job.to_owned(),
                env: env.clone(),
                stores: topology.stores.clone(),
                faces: topology.faces.clone(),
                renamed: topology.renamed.clone(),
            }),
            progress: Arc::clone(progress),
            watcher: Arc::new(watcher),
            at_least: Epoch::default(),
        }
    }

    /// The job's name.
    #[cfg(feature = "http")]
    fn job(&self) -> &str {
        &self.declared.job
    }

    /// Who looks at the job as a whole.
    pub(super) fn watcher(&self) -> &Arc<Watcher> {
        &self.watcher
    }

    /// The same, whose answers are of this epoch or a later one: they wait until it is committed.
    #[must_use]
    pub fn at_least(&self, epoch: Epoch) -> Self {
        Self {
            at_least: self.at_least.max(epoch),
            ..self.clone()
        }
    }

    /// The stores of the job with the types of their keys and values, by name.
    #[must_use]
    pub fn stores(&self) -> &BTreeMap<String, Schema> {
        &self.declared.stores
    }

    /// Waits until the record of a source topic at this offset is processed and committed; the epoch is that commit's or a later one's,
    /// so that the answers to questions [`at_least`](Self::at_least) at it have all that follows from the record in this process.
    ///
    /// # Errors
    /// If the job does not read the partition in this process, or ends before.
    pub async fn processed(
        &self,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<Epoch, QueryError> {
        let split = Split::Partition(partition.clone());
        let is_processed = |job: &JobContext| {
            let Some(number) = job.splits.number(&split) else {
                return Some(false);
            };
            let moved = self.progress.positions().get(&number).copied();
            let started = || Some(job.splits.get(number)?.position?.offset);
            let position = moved.or_else(started)?;
            (position > offset).then_some(true)
        };
        let look = |job: &JobContext| {
            // Asked first: what is processed is in the epoch that is looked up after it.
            let is_processed = is_processed(job)?;
            Some((is_processed, job.backend.views().enter()?.epoch()))
        };
        let (is_read, epoch) = self.wait_for(look).await?;
        match is_read {
            true => Ok(Epoch(epoch)),
            false => Err(QueryError::NotRead {
                job: self.declared.job.clone(),
                partition: partition.clone(),
            }),
        }
    }

    /// Reads several values, of any stores, of one epoch. `read` may be called more than once; it should be quick, and must not wait for
    /// another answer.
    ///
    /// ```
    /// # use onceflow::prelude::*;
    /// # use onceflow::runtime::{Answer, Queries, QueryError};
    /// # async fn ask(query: &Queries) -> Result<(), QueryError> {
    /// let clicks = query.store::<str, u64>("clicks")?;
    /// let orders = query.store::<str, u64>("orders")?;
    /// let both = query.read(|view| Ok((clicks.get_in(view, "ada")?, orders.get_in(view, "ada")?))).await?;
    /// println!("as of {}: {:?}", both.epoch, both.value);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Failures of `read`; if the job ends before; if reads take longer than commits are apart.
    pub async fn read<R>(
        &self,
        mut read: impl FnMut(&View<'_>) -> Result<R, QueryError>,
    ) -> Result<Answer<R>, QueryError> {
        let mut attempts = 0;
        let look = |job: &JobContext| {
            for _ in 0..ATTEMPTS_AT_ONCE {
                let epoch = Epoch(job.backend.views().enter()?.epoch());
                if epoch < self.at_least {
                    return None;
                }
                match read(&View::new(job, epoch)) {
                    Ok(value) => return Some(Ok(Answer { epoch, value })),
                    Err(QueryError::Overtaken { .. }) => attempts += 1,
                    Err(error) => return Some(Err(error)),
                }
            }
            (attempts >= ATTEMPTS_MAX).then_some(Err(QueryError::Overtaken { attempts }))
        };
        match self.wait_for(look).await? {
            Err(QueryError::Elsewhere {
                store,
                state_partition,
                ..
            }) => Err(QueryError::Elsewhere {
                instance: self.owner_of(state_partition).await,
                store,
                state_partition,
            }),
            answered => answered,
        }
    }

    /// The instance of a job that is scaled out which has a state partition, as its group says; `None` while that moves.
    async fn owner_of(&self, state_partition: u16) -> Option<String> {
        let look = |job: &JobContext| {
            let exchanges = job.exchanges.iter();
            let topics = exchanges.map(|exchange| repartition_topic(&job.name, exchange).ok());
            let topics: Vec<TopicName> = topics.flatten().collect();
            Some((Arc::clone(&job.transport), topics))
        };
        let (transport, topics) = self.wait_for(look).await.ok()?;
        let group = GroupId::new(&self.declared.job).ok()?;
        let group = transport.describe_group(&group).await.ok()?;
        let is_of_state = |place: &TopicPartition| {
            place.partition == i32::from(state_partition) && topics.contains(&place.topic)
        };
        let mut members = group.members.into_iter();
        let owner = members.find(|member| member.assignment.iter().flatten().any(is_of_state))?;
        owner.instance_id
    }

    /// Looks at the job after each of its commits, until there is something to see.
    async fn wait_for<R>(
        &self,
        mut look: impl FnMut(&JobContext) -> Option<R>,
    ) -> Result<R, QueryError> {
        let mut changes = self.progress.changes();
        loop {
            changes.borrow_and_update();
            match self.progress.desk.look(&mut look) {
                Look::Seen(seen) => return Ok(seen),
                Look::Over => {
                    return Err(QueryError::Ended {
                        job: self.declared.job.clone(),
                    });
                }
                // The sending end is in this very value.
                Look::NotYet => drop(changes.changed().await),
            }
        }
    }

    /// The name under which a store is kept, and what is known of it.
    fn find<'d, T>(
        &self,
        store: &str,
        known: &'d BTreeMap<String, T>,
    ) -> Result<(&'d str, &'d T), QueryError> {
        let Declared { job, renamed, .. } = &*self.declared;
        let kept = renamed.get(store).map_or(store, String::as_str);
        match known.get_key_value(kept) {
            Some((kept, found)) => Ok((kept, found)),
            None => Err(QueryError::UnknownStore {
                job: job.clone(),
                store: store.to_owned(),
                stores: known.keys().cloned().collect(),
            }),
        }
    }

    /// The name under which a store is kept, and its face.
    fn face(&self, store: &str) -> Result<(Arc<str>, &Face), QueryError> {
        let (kept, face) = self.find(store, &self.declared.faces)?;
        Ok((kept.into(), face))
    }

    /// The name under which a store is kept, if its types are those.
    fn kept_name(&self, store: &str, asked: &Schema) -> Result<Arc<str>, QueryError> {
        let (kept, stored) = self.find(store, &self.declared.stores)?;
        match stored.difference(asked) {
            None => Ok(kept.into()),
            Some(_) => Err(QueryError::WrongType {
                store: store.to_owned(),
                stored: Box::new(stored.clone()),
                asked: Box::new(asked.clone()),
            }),
        }
    }
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queries")
            .field("job", &self.declared.job)
            .field("at_least", &self.at_least)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// The way to ask for the job's state while it runs: values of any store, as of one commit.
    ///
    /// The first question makes the job keep what readers need, and waits for a commit, which comes at once; where nobody asks for
    /// 30 seconds, it stops doing so.
    #[must_use]
    pub fn query(&self) -> Queries {
        self.queries.clone()
    }
}
