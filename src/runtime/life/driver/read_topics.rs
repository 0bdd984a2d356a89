//! The topics that a job reads, as its driver knows them from the start.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::Split;
use crate::runtime::task::context::JobContext;
use crate::runtime::task::progress::Progress;
use crate::runtime::task::splits::SplitPlan;
use crate::runtime::topics::source_topics::{SourceTopics, require_read_topics};
use crate::types::TopicName;

/// Remembers who the topics are that the job reads. Call it before anything runs beside the driver: if one of them is
/// another by now, nothing is left to be stopped.
///
/// # Errors
/// As [`SourceTopics::new`].
pub(crate) fn source_topics(
    job: &JobContext,
    progress: &Arc<Progress>,
) -> Result<SourceTopics, JobError> {
    if job.is_spread {
        // Its plan was made when the process began.
        require_read_topics(job, progress)?;
    }
    let splits = job.splits.all();
    let plans = splits.iter().map(|(_, plan)| plan);
    let read: BTreeSet<&TopicName> = plans.filter_map(source_topic).collect();
    let reads_all = !job.is_spread;
    SourceTopics::new(job, progress, read, reads_all)
}

/// The topic behind a split, unless it is one between the job's own processes.
pub(super) fn source_topic(plan: &SplitPlan) -> Option<&TopicName> {
    match (&plan.split, plan.state_partition) {
        (Split::Partition(partition), None) => Some(&partition.topic),
        _ => None,
    }
}
