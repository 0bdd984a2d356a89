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

settings! {
    /// A consumer's settings. Fields have Kafka's defaults, but for two: records of open and aborted
    /// transactions are not shown unless asked for, and positions are committed only by a call.
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
