//! Beginning a job anew: its state and the positions of its sources are given up, once.

use std::path::Path;
use std::sync::Arc;

use super::restoring::{Restored, bounds, committed_places, for_each_key, send_committed};
use super::writing::Writing;
use crate::client::{Transport, wait};
use crate::protocol::messages::CommittedOffset;
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::job::Launch;
use crate::runtime::life::kept::{identity, init_writers};
use crate::runtime::life::log_handle::Log;
use crate::runtime::life::start::refuse_to_run_alone;
use crate::runtime::task::changelog::changelog_topic;
use crate::runtime::topics::positions::{Kept, positions_topic, read_positions};
use crate::types::TopicPartition;

impl Launch {
    /// Gives up the job's state, timers and times, and the positions of its sources: the next start reads all of the input again, with
    /// empty stores. It happens once, here; the job's program has no part of it, so starts after that one go on as always. Whoever runs the
    /// job elsewhere is fenced first. What is in sinks stays there, and marks of sinks stay with it; effects that are
    /// not delivered yet are given up.
    ///
    /// # Errors
    /// If the job runs in this process, or is or was scaled out over several; if the log fails. Nothing is changed then, unless the error
    /// says that a part is.
    pub fn begin_anew(&self, log: &Log) -> Result<Restored, JobError> {
        let (job, topology) = (&self.name, self.graph.topology(&self.name)?);
        let _claim = log.claim(job)?;
        let transport = log.transport();
        if self.settings.scale_out.is_some() {
            let why = "the job is scaled out: give it another name to begin anew".to_owned();
            let job = job.clone();
            return Err(JobError::Incompatible { job, why });
        }
        refuse_to_run_alone(&transport, job, &topology)?;
        // I4: nobody changes what is read from here on.
        let timeout = self.settings.transaction_timeout;
        let writers = init_writers(&transport, &identity(job, &self.settings)?, timeout)?;
        let positions = positions_topic(job)?;
        if wait(transport.topic(&positions))?.is_none() {
            return Ok(Restored {
                rows: 0,
                positions: 0,
            });
        }
        let kept = read_positions(&transport, &positions)?;
        let mut writing = Writing::new(log.env(), job, Path::new(""), &writers, timeout)?;
        let given_up = give_up(&transport, job, &topology, &kept, &mut writing);
        let decided = given_up.and_then(|positions| {
            let rows = writing.decide(&kept)?;
            Ok(Restored { rows, positions })
        });
        decided.map_err(|e| writing.failed(e))
    }
}

/// Deletes the rows of all stores, and sets all positions to the beginning; returns how many those are.
fn give_up(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: &Topology,
    kept: &Kept,
    writing: &mut Writing<'_>,
) -> Result<usize, JobError> {
    for store in topology.stores.keys() {
        let topic = changelog_topic(job, store)?;
        let found = wait(transport.topic(&topic))?;
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
        if topology.sources.iter().any(|source| source.name == *name) {
            writing.positions.forget(0, name, part)?;
            count += 1;
        }
    }
    let mut offsets = Vec::new();
    for place in committed_places(transport, job)? {
        let (offset, _) = bounds(transport, &place)?;
        let committed = CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        offsets.push((place, committed));
    }
    Ok(count + send_committed(job, writing.writer(), offsets)?)
}
