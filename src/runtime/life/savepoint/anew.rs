//! Beginning a job anew: its state and the positions of its sources are given up, once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::between::{members, topics_between, write_between};
use super::restoring::{
    Restored, bounds, committed_places, for_each_key, hold_instances_off, send_committed,
};
use super::writing::Writing;
use crate::client::{Transport, wait};
use crate::env::Env;
use crate::protocol::messages::{CommittedOffset, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::job::{Job, Launch};
use crate::runtime::life::kept::init_writers;
use crate::runtime::life::log_handle::Log;
use crate::runtime::life::start::{read_kept, refuse_to_run_alone};
use crate::runtime::task::changelog::changelog_topic;
use crate::runtime::task::cycle::Commit;
use crate::runtime::topics::positions::{Kept, positions_topic, read_positions};
use crate::runtime::topics::schemas::NotedSchema;
use crate::types::{TopicName, TopicPartition};

impl Launch {
    /// Gives up the job's state, timers and times, and the positions of its sources: the next start reads all of the input again, with
    /// empty stores. It happens once, here; the job's program has no part of it, so starts after that one go on as always. Whoever runs the
    /// job elsewhere is fenced first; all instances of a job that is scaled out must be stopped, and what is under way between
    /// them is given up, too. What is in sinks stays there, and marks of sinks stay with it; effects that are not delivered yet are
    /// given up.
    ///
    /// # Errors
    /// If the job runs in this process, or instances of it are in its group; if it was scaled out, and the program does not say so; if the
    /// log fails. Nothing is changed then, unless the error says that a part is.
    pub fn begin_anew(&self, log: &Log) -> Result<Restored, JobError> {
        let topology = self.graph.topology(&self.name)?;
        let is_scaled_out = self.settings.scale_out.is_some();
        if !is_scaled_out {
            refuse_to_run_alone(&log.transport(), &self.name, &topology)?;
        }
        let sources = topology.sources.iter().map(|source| source.name.clone());
        let given_up = GivenUp {
            job: &self.name,
            stores: topology.stores.keys().cloned().collect(),
            sources: sources.collect(),
            between: topics_of(log, &self.name, &topology, is_scaled_out)?,
            is_scaled_out,
        };
        given_up.begin_anew(log, self.settings.transaction_timeout)
    }
}

/// As [`Launch::begin_anew`], without the program of `job`, by what the log knows of it.
#[cfg(feature = "cli")]
pub(crate) fn begin_anew(log: &Log, job: &str) -> Result<Restored, JobError> {
    let transport = log.transport();
    let kept = read_kept(&transport, job)?;
    let refuse = |why: String| {
        Err(JobError::Incompatible {
            job: job.to_owned(),
            why,
        })
    };
    let positions = positions_topic(job)?;
    if wait(transport.topic(&positions))?.is_none() {
        return refuse(format!(
            "the log does not know it: there is no topic {positions}. Check the name"
        ));
    }
    if let Some((name, _)) = kept.positions.names().next() {
        return refuse(format!(
            "it has positions of {name:?}, which is no topic, and only its program knows whether that is a source, which begins anew, or a \
             sink, which does not: begin it anew from there (`Launch::begin_anew`)"
        ));
    }
    let stores = kept.schemas.iter().filter_map(NotedSchema::store);
    let stores = stores.map(str::to_owned).collect();
    let between = topics_of(log, job, &Topology::default(), true)?;
    let given_up = GivenUp {
        job,
        stores,
        sources: Vec::new(),
        is_scaled_out: !between.is_empty(),
        between,
    };
    let settings = Job::new(job)
        .exactly_once(Commit::every(Duration::ZERO))
        .settings;
    given_up.begin_anew(log, settings.transaction_timeout)
}

/// The topics between the instances of a job, if it is scaled out.
fn topics_of(
    log: &Log,
    job: &str,
    topology: &Topology,
    is_scaled_out: bool,
) -> Result<BTreeMap<TopicName, TopicMetadata>, JobError> {
    let transport = log.transport();
    match is_scaled_out {
        true => topics_between(&transport, job, topology, &read_kept(&transport, job)?),
        false => Ok(BTreeMap::new()),
    }
}

/// The parts of a job that are given up.
struct GivenUp<'a> {
    job: &'a str,
    stores: Vec<String>,
    /// The sources that are no topics.
    sources: Vec<String>,
    between: BTreeMap<TopicName, TopicMetadata>,
    is_scaled_out: bool,
}

impl GivenUp<'_> {
    fn begin_anew(&self, log: &Log, timeout: Duration) -> Result<Restored, JobError> {
        let job = self.job;
        let _claim = log.claim(job)?;
        let transport = log.transport();
        if self.is_scaled_out
            && let Some(why) = members(&transport, job)?
        {
            let job = job.to_owned();
            return Err(JobError::Incompatible { job, why });
        }
        // I4: nobody changes what is read from here on.
        let writers = init_writers(&transport, job, timeout)?;
        let positions = positions_topic(job)?;
        if wait(transport.topic(&positions))?.is_none() {
            return Ok(Restored {
                rows: 0,
                positions: 0,
            });
        }
        let path = Path::new("");
        let mut writing = Writing::new(log.env(), job, path, &writers, timeout)?;
        if self.is_scaled_out {
            let before = read_positions(&transport, &positions)?;
            hold_instances_off(&transport, job, &before, path, &mut writing)?;
        }
        let kept = read_positions(&transport, &positions)?;
        let given_up = self.give_up(log.env(), &transport, &kept, &mut writing);
        let decided = given_up.and_then(|positions| {
            let rows = writing.decide(&kept)?;
            Ok(Restored { rows, positions })
        });
        decided.map_err(|e| writing.failed(e))
    }

    /// Deletes the rows of all stores, and sets all positions to the beginning; returns how many those are.
    fn give_up(
        &self,
        env: &Env,
        transport: &Arc<dyn Transport>,
        kept: &Kept,
        writing: &mut Writing<'_>,
    ) -> Result<usize, JobError> {
        for store in &self.stores {
            let topic = changelog_topic(self.job, store)?;
            let found = wait(transport.topic(&topic))?;
            if found.is_none() && kept.has_source_changelog(store) {
                return Err(JobError::Incompatible {
                    job: self.job.to_owned(),
                    why: format!(
                        "the topic that the table {store:?} is made of is its only changelog (`reuse_source_topics`), and the rows of it \
                         cannot be given up: begin anew under another name"
                    ),
                });
            }
            for partition in 0..found.map_or(0, |it| it.partitions_count) {
                let place = TopicPartition::new(topic.clone(), partition);
                let target = writing.open(&place);
                let (start, end) = bounds(transport, &place)?;
                for_each_key(
                    transport,
                    &place,
                    start,
                    end,
                    writing,
                    &mut |key, writing| writing.push(target, key, None),
                )?;
                writing.finish_rows()?;
            }
        }
        let mut count = 0;
        for (name, part) in kept.positions.names() {
            if self.sources.contains(name) {
                writing.positions.forget(0, name, part)?;
                count += 1;
            }
        }
        let mut offsets = write_between(env, transport, &self.between, None, writing)?;
        for place in committed_places(transport, self.job)? {
            if self.between.contains_key(&place.topic) {
                continue;
            }
            let (offset, _) = bounds(transport, &place)?;
            let committed = CommittedOffset {
                offset,
                leader_epoch: -1,
                metadata: String::new(),
            };
            offsets.push((place, committed));
        }
        Ok(count + send_committed(self.job, writing.writer(), offsets)?)
    }
}
