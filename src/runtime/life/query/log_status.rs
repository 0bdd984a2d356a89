//! The view of a log without a job: topics, groups, and the transactions that keep readers waiting. Plain data, and where it comes from.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::client::{ClientError, GroupDescription, OffsetSpec, PartitionDescription, Transport};
use crate::env::{Env, Instant};
use crate::runtime::life::status::{OpenTransaction, open_in};
use crate::types::{GroupId, Isolation, Timestamp, TopicName, TopicPartition};

/// However many look, the log is asked at most this often.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// The most topics, and the most groups, of a view: the command line has the others.
const TOPICS_MAX: usize = 500;
const GROUPS_MAX: usize = 200;
/// The most positions of a group in a view.
const POSITIONS_MAX: usize = 500;

/// A log at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LogStatus {
    /// Tells it from the view of a job.
    kind: &'static str,
    /// Where the log is.
    log: String,
    version: &'static str,
    now: Timestamp,
    topics: Vec<TopicStatus>,
    groups: Vec<GroupStatus>,
    /// The open transactions before which readers wait: hanging ones first, then the oldest.
    transactions: Vec<OpenTransaction>,
    /// The topics and groups that are not in this view, because there are too many.
    topics_left_out: usize,
    groups_left_out: usize,
    /// The error of the log, if it could not be asked.
    log_error: Option<String>,
}

/// A topic with its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct TopicStatus {
    topic: String,
    is_internal: bool,
    size_bytes: u64,
    partitions: Vec<PartitionStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PartitionStatus {
    partition: i32,
    log_start_offset: i64,
    last_stable_offset: i64,
    high_watermark: i64,
    size_bytes: u64,
    offline: Option<String>,
}

impl From<PartitionDescription> for PartitionStatus {
    fn from(described: PartitionDescription) -> Self {
        Self {
            partition: described.partition,
            log_start_offset: described.log_start_offset.0,
            last_stable_offset: described.last_stable_offset.0,
            high_watermark: described.high_watermark.0,
            size_bytes: described.size_bytes,
            offline: described.offline,
        }
    }
}

/// A group with its positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct GroupStatus {
    group: String,
    #[serde(rename = "type")]
    kind: &'static str,
    state: String,
    members: usize,
    /// The offsets that all its positions are behind; `None` where no topic of theirs is left.
    lag: Option<u64>,
    positions: Vec<PositionStatus>,
    positions_left_out: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PositionStatus {
    topic: String,
    partition: i32,
    position: i64,
    /// The last stable offset; `None` if there is no such partition (any more).
    end: Option<i64>,
    lag: Option<u64>,
    /// Whether an open transaction has another position for it.
    is_pending: bool,
}

/// Looks at a log.
pub(super) struct LogWatcher {
    transport: Arc<dyn Transport>,
    name: String,
    last: tokio::sync::Mutex<Option<(Instant, Arc<str>)>>,
}

impl LogWatcher {
    pub(super) fn new(transport: Arc<dyn Transport>, name: String) -> Self {
        Self {
            transport,
            name,
            last: tokio::sync::Mutex::new(None),
        }
    }

    pub(super) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn env(&self) -> &Env {
        self.transport.env()
    }

    /// The view as JSON, as it is now or was less than half a second ago; one who asks at a time has the log asked.
    pub(super) async fn json(&self) -> Arc<str> {
        let mut last = self.last.lock().await;
        if let Some((at, json)) = &*last
            && self.env().clock.now().since(*at) < ASK_EVERY
        {
            return Arc::clone(json);
        }
        let status = self.look().await;
        // Strings and numbers only: there is nothing that could fail.
        let json: Arc<str> = serde_json::to_string(&status).unwrap_or_default().into();
        *last = Some((self.env().clock.now(), Arc::clone(&json)));
        json
    }

    async fn look(&self) -> LogStatus {
        let mut status = LogStatus {
            kind: "log",
            log: self.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            now: self.env().clock.wall(),
            topics: Vec::new(),
            groups: Vec::new(),
            transactions: Vec::new(),
            topics_left_out: 0,
            groups_left_out: 0,
            log_error: None,
        };
        if let Err(error) = self.ask(&mut status).await {
            status.log_error = Some(error.to_string());
        }
        status
    }

    async fn ask(&self, status: &mut LogStatus) -> Result<(), ClientError> {
        let transport = &*self.transport;
        let topics = transport.topics().await?;
        status.topics_left_out = topics.len().saturating_sub(TOPICS_MAX);
        let mut held = Vec::new();
        for topic in topics.into_iter().take(TOPICS_MAX) {
            // It may be deleted between the two questions.
            let Ok(described) = transport.describe_partitions(&topic.name).await else {
                continue;
            };
            held.extend(held_in(&topic.name, &described));
            status.topics.push(TopicStatus {
                topic: topic.name.to_string(),
                is_internal: topic.is_internal,
                size_bytes: described.iter().map(|it| it.size_bytes).sum(),
                partitions: described.into_iter().map(PartitionStatus::from).collect(),
            });
        }
        status.transactions = open_in(transport, held).await?;
        let groups = transport.list_groups().await?;
        status.groups_left_out = groups.len().saturating_sub(GROUPS_MAX);
        for group in groups.iter().take(GROUPS_MAX) {
            if let Some(group) = self.group(group).await? {
                status.groups.push(group);
            }
        }
        Ok(())
    }

    /// A group; `None` if it is gone since it was listed.
    async fn group(&self, group: &GroupId) -> Result<Option<GroupStatus>, ClientError> {
        let Ok(described) = self.transport.describe_group(group).await else {
            return Ok(None);
        };
        let mut ends = Vec::new();
        for (place, _) in described.offsets.iter().take(POSITIONS_MAX) {
            // The topic may be gone, or the position may name none (a source that is a file).
            let isolation = Isolation::ReadCommitted;
            let end = self
                .transport
                .list_offset(place, OffsetSpec::Latest, isolation);
            ends.push(end.await.ok().flatten().map(|listed| listed.offset.0));
        }
        Ok(Some(GroupStatus::of(&described, &ends)))
    }
}

/// The partitions in which readers wait.
fn held_in(topic: &TopicName, described: &[PartitionDescription]) -> Vec<TopicPartition> {
    let held = described.iter();
    let held = held.filter(|it| it.last_stable_offset < it.high_watermark);
    held.map(|it| TopicPartition::new(topic.clone(), it.partition))
        .collect()
}

impl GroupStatus {
    /// A group whose first positions have these ends.
    fn of(described: &GroupDescription, ends: &[Option<i64>]) -> Self {
        let is_pending = |place: &TopicPartition| {
            let mut pending = described.pending.iter();
            pending.any(|(_, of, _)| of == place)
        };
        let positions = described.offsets.iter().zip(ends);
        let positions: Vec<PositionStatus> = positions
            .map(|((place, committed), end)| {
                let behind = end.map(|end| end.saturating_sub(committed.offset.0));
                PositionStatus {
                    topic: place.topic.to_string(),
                    partition: place.partition,
                    position: committed.offset.0,
                    end: *end,
                    lag: behind.map(|behind| u64::try_from(behind).unwrap_or(0)),
                    is_pending: is_pending(place),
                }
            })
            .collect();
        Self {
            group: described.group.to_string(),
            kind: described.group_type.name(),
            state: described.state.clone(),
            members: described.members.len(),
            lag: positions
                .iter()
                .filter_map(|it| it.lag)
                .reduce(|all, lag| all + lag),
            positions_left_out: described.offsets.len() - positions.len(),
            positions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::CommittedOffset;
    use crate::protocol::messages::groups::GroupType;
    use crate::types::{Offset, ProducerId};

    fn committed(offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset: Offset(offset),
            leader_epoch: -1,
            metadata: String::new(),
        }
    }

    #[test]
    fn the_lag_of_a_group_is_that_of_the_partitions_that_are_there() {
        let group = GroupId::new("shop").unwrap();
        let mut described =
            GroupDescription::new(group, GroupType::Classic, "Empty".to_owned(), Vec::new());
        let place = |partition| TopicPartition::new(TopicName::new("orders").unwrap(), partition);
        for (partition, position) in [(0, 5), (1, 9), (2, 30)] {
            described
                .offsets
                .push((place(partition), committed(position)));
        }
        described
            .pending
            .push((ProducerId(1), place(1), committed(12)));
        let status = GroupStatus::of(&described, &[Some(12), Some(3), None]);
        let lags: Vec<_> = status
            .positions
            .iter()
            .map(|it| (it.lag, it.is_pending))
            .collect();
        assert_eq!(lags, [(Some(7), false), (Some(0), true), (None, false)]);
        assert_eq!(status.lag, Some(7));
        let cut = GroupStatus::of(&described, &[None]);
        assert_eq!(
            (cut.lag, cut.positions.len(), cut.positions_left_out),
            (None, 1, 2)
        );
    }
}
