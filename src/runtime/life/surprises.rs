//! Starts that do something else than their user may expect: said loudly before they do it (X20).

use std::sync::Arc;

use super::source_tables::SourceChangelogs;
use crate::client::{Transport, wait};
use crate::env::warn;
use crate::protocol::messages::{OffsetFetchRequest, OffsetSpec};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::task::changelog::changelog_topic;
use crate::runtime::topics::positions::{positions_topic, read_positions};
use crate::types::{GroupId, Isolation, TopicName, TopicPartition};

/// Says what a start does that may not be meant: a step whose state begins empty in the middle of the input, and a job that
/// begins its input anew beside results that are there. To be called before the job's topics are created.
///
/// # Errors
/// If the log does not answer.
pub(crate) fn warn_of_surprises(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: &Topology,
    source_changelogs: &SourceChangelogs,
) -> Result<(), JobError> {
    match has_committed(transport, job)? {
        true => warn_of_empty_stores(transport, job, topology, source_changelogs),
        false => warn_of_other_results(transport, job, topology),
    }
}

/// Whether the job has committed anything in any run.
fn has_committed(transport: &Arc<dyn Transport>, job: &str) -> Result<bool, JobError> {
    let positions = positions_topic(job)?;
    if wait(transport.topic(&positions))?.is_none() {
        return Ok(false);
    }
    let kept = read_positions(transport, &positions)?;
    if !kept.positions.is_empty() || !kept.read_topics.is_empty() {
        return Ok(true);
    }
    // Positions of topics that an earlier release read.
    let request = OffsetFetchRequest {
        group: GroupId::new(job)?,
        partitions: None,
        require_stable: true,
    };
    let committed = wait(transport.offset_fetch(request))?;
    Ok(committed.iter().any(|(_, position)| position.is_some()))
}

fn warn_of_empty_stores(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: &Topology,
    source_changelogs: &SourceChangelogs,
) -> Result<(), JobError> {
    let own = topology.stores.keys();
    for store in own.filter(|store| !source_changelogs.contains_key(*store)) {
        if wait(transport.topic(&changelog_topic(job, store)?))?.is_none() {
            warn!(
                job,
                store,
                "the store is new and begins empty, but the job goes on behind its last commit: what it read before is not in \
                 the store. Give the job another name, and its sinks other topics, to have everything counted"
            );
        }
    }
    Ok(())
}

fn warn_of_other_results(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: &Topology,
) -> Result<(), JobError> {
    for topic in topology.sink_topics.keys() {
        if has_records(transport, topic)? {
            warn!(
                job,
                %topic,
                "the job has committed nothing yet and begins its sources from their start, but the topic that it writes has \
                 records already: if another job computed them from the same input, or this one under another name, they will \
                 be there twice. Write to another topic, or keep the job's name, if that is not meant"
            );
        }
    }
    Ok(())
}

fn has_records(transport: &Arc<dyn Transport>, topic: &TopicName) -> Result<bool, JobError> {
    let Some(found) = wait(transport.topic(topic))? else {
        return Ok(false);
    };
    for partition in 0..found.partitions_count {
        let place = TopicPartition::new(topic.clone(), partition);
        let list = |spec| wait(transport.list_offset(&place, spec, Isolation::ReadCommitted));
        let (first, end) = (list(OffsetSpec::Earliest)?, list(OffsetSpec::Latest)?);
        if let (Some(first), Some(end)) = (first, end)
            && end.offset > first.offset
        {
            return Ok(true);
        }
    }
    Ok(false)
}
