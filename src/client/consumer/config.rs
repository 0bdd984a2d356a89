//! `ConsumerConfig`: a consumer's settings, with Kafka's names and defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::ClientError;
use crate::client::settings::{Setting, Settings, settings};
use crate::types::{GroupId, Isolation};

/// Where a reader begins that has no position and whose group has committed none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// Nowhere: the read fails, and the reader seeks.
    None,
    /// At the first record.
    Earliest,
    /// Behind the last record, so that only later ones are read.
    #[default]
    Latest,
}

impl Setting for OffsetReset {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "none" => Ok(Self::None),
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => Err("none, earliest or latest is needed".to_owned()),
        }
    }
}

/// By which protocol a consumer is a member of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// The members' leader assigns partitions; every broker knows it.
    #[default]
    Classic,
    /// The broker assigns partitions (KIP-848), and only members that are concerned notice a rebalance.
    Consumer,
}

impl Setting for GroupProtocol {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "classic" => Ok(Self::Classic),
            "consumer" => Ok(Self::Consumer),
            _ => Err("classic or consumer is needed".to_owned()),
        }
    }
}

/// Strategy by which a classic group's leader assigns partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignmentStrategy {
    /// Of each topic a contiguous range for each member. Every rebalance stops all members.
    Range,
    /// Evenly, moving as little as possible; members go on with what they keep.
    CooperativeSticky,
}

impl AssignmentStrategy {
    /// Kafka's name of the strategy.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// The strategy of that name, which may be that of Kafka's class, too.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim() {
            "range" | "org.apache.kafka.clients.consumer.RangeAssignor" => Some(Self::Range),
            "cooperative-sticky"
            | "org.apache.kafka.clients.consumer.CooperativeStickyAssignor" => {
                Some(Self::CooperativeSticky)
            }
            _ => None,
        }
    }
}

/// Strategies, the preferred one first; the group uses one that all members know. Members go on during a rebalance
/// only if all of their strategies are cooperative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentStrategies(pub Vec<AssignmentStrategy>);

impl From<AssignmentStrategy> for AssignmentStrategies {
    fn from(strategy: AssignmentStrategy) -> Self {
        Self(vec![strategy])
    }
}

impl Setting for AssignmentStrategies {
    fn parse(text: &str) -> Result<Self, String> {
        let strategies = text.split(',').map(AssignmentStrategy::from_name);
        let strategies: Option<Vec<_>> = strategies.collect();
        let strategies = strategies.map(Self);
        strategies.ok_or_else(|| "range, cooperative-sticky or both are needed".to_owned())
    }
}

settings! {
    /// A consumer's settings. Fields have Kafka's defaults, but for two: records of open and aborted
    /// transactions are not shown unless asked for, and positions are committed only by a call
    /// unless `enable.auto.commit` is set.
    /// Every field has a setter of its name.
    pub struct ConsumerConfig {
        /// Under which name positions are committed; without one they are not.
        group_id: Option<GroupId> = None, "group.id";
        /// Which records are shown.
        isolation: Isolation = Isolation::ReadCommitted, "isolation.level";
        /// Where to begin without a position. A position that retention overtook is an error under
        /// every policy: nothing is skipped unless the reader seeks (S14).
        auto_offset_reset: OffsetReset = OffsetReset::Latest, "auto.offset.reset";
        /// A poll returns at most so many records; the rest is kept for the next one.
        max_poll_records: usize = 500, "max.poll.records";
        /// A fetch waits for so many bytes…
        fetch_min_bytes: usize = 1, "fetch.min.bytes";
        /// …or for so long.
        fetch_max_wait: Duration = Duration::from_millis(500), "fetch.max.wait.ms";
        /// A fetch returns at most so many bytes, but at least one batch.
        fetch_max_bytes: usize = 52_428_800, "fetch.max.bytes";
        /// A fetch returns at most so many bytes of a partition, but at least one batch.
        max_partition_fetch_bytes: usize = 1_048_576, "max.partition.fetch.bytes";
        /// Name of the consumer towards its group.
        client_id: String = "onceflow".to_owned(), "client.id";
        /// By which protocol a subscribed consumer is a member of its group.
        group_protocol: GroupProtocol = GroupProtocol::Classic, "group.protocol";
        /// A name that outlives the consumer: it comes back to its partitions without a rebalance if it does so within
        /// its session. Two consumers of one name fence each other.
        group_instance_id: Option<String> = None, "group.instance.id";
        /// The broker's assignor, with `group.protocol=consumer`; without it the broker chooses.
        group_remote_assignor: Option<String> = None, "group.remote.assignor";
        /// Assignment strategies of the leader, with `group.protocol=classic`.
        partition_assignment_strategy: AssignmentStrategies = AssignmentStrategies(vec![
            AssignmentStrategy::Range,
            AssignmentStrategy::CooperativeSticky,
        ]), "partition.assignment.strategy";
        /// A classic member that is not heard of for so long is removed from its group.
        session_timeout: Duration = Duration::from_secs(45), "session.timeout.ms";
        /// Heartbeat interval of a classic member; the broker says it with `group.protocol=consumer`.
        heartbeat_interval: Duration = Duration::from_secs(3), "heartbeat.interval.ms";
        /// A consumer that does not poll for so long leaves its group. A rebalance waits so long for it.
        max_poll_interval: Duration = Duration::from_secs(300), "max.poll.interval.ms";
        /// The leader of a classic group looks so often for new partitions.
        metadata_max_age: Duration = Duration::from_secs(300), "metadata.max.age.ms";
        /// Whether polls commit the positions of what earlier polls returned, from time to time and before partitions
        /// are given up.
        enable_auto_commit: bool = false, "enable.auto.commit";
        /// Auto-commit interval.
        auto_commit_interval: Duration = Duration::from_secs(5), "auto.commit.interval.ms";
    }
}

impl ConsumerConfig {
    /// Defaults, changed by settings with Kafka's names and values.
    ///
    /// # Errors
    /// If a name is unknown or a value does not parse.
    pub fn from_map<N: AsRef<str>, V: AsRef<str>>(
        settings: &[(N, V)],
    ) -> Result<Self, ClientError> {
        let map: BTreeMap<_, _> = settings
            .iter()
            .map(|(n, v)| (n.as_ref().to_owned(), v.as_ref().to_owned()))
            .collect();
        Self::parse_map(&map)
    }
}
