//! `Setting`: a setting as DescribeConfigs shows it, with Kafka's numbers for types and sources.

/// Types of values.
pub(super) const BOOLEAN: i8 = 1;
pub(super) const STRING: i8 = 2;
pub(super) const INT: i8 = 3;
pub(super) const LONG: i8 = 5;
pub(super) const DOUBLE: i8 = 6;
pub(super) const LIST: i8 = 7;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(super) enum Source {
    /// It was set on the topic.
    OnTopic = 1,
    /// It was given when the broker was started.
    AtStart = 4,
    /// Nobody set it.
    Default = 5,
}

impl Source {
    /// Kafka's number.
    pub(super) fn number(self) -> i8 {
        self as i8
    }
}

/// A setting, with the value in force.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) kind: i8,
    pub(super) is_read_only: bool,
    /// Every value that it has somewhere, by the name that it has there; the first one is in force.
    pub(super) synonyms: Vec<(String, String, Source)>,
    pub(super) documentation: String,
}

impl Setting {
    /// Where the value in force comes from.
    pub(super) fn source(&self) -> Source {
        let first = self.synonyms.first();
        first.map_or(Source::AtStart, |(_, _, source)| *source)
    }
}

/// The type of a topic's setting.
pub(super) fn of_topic_setting(name: &str) -> i8 {
    match name {
        "cleanup.policy" => LIST,
        "min.cleanable.dirty.ratio" => DOUBLE,
        "preallocate" | "unclean.leader.election.enable" => BOOLEAN,
        "min.insync.replicas" => INT,
        "retention.bytes" | "flush.messages" => LONG,
        name if name.starts_with("compression.") && name.ends_with(".level") => INT,
        name if name.ends_with(".ms") => LONG,
        name if name.ends_with(".bytes") => INT,
        _ => STRING,
    }
}

/// The broker's name for the default of a topic's setting.
pub(in crate::server) fn broker_synonym(topic_setting: &str) -> &str {
    match topic_setting {
        "cleanup.policy" => "log.cleanup.policy",
        "delete.retention.ms" => "log.cleaner.delete.retention.ms",
        "file.delete.delay.ms" => "log.segment.delete.delay.ms",
        "flush.messages" => "log.flush.interval.messages",
        // `log.flush.interval.ms` is the broker's own interval here.
        "flush.ms" => "log.flush.scheduler.interval.ms",
        "index.interval.bytes" => "log.index.interval.bytes",
        "max.compaction.lag.ms" => "log.cleaner.max.compaction.lag.ms",
        "max.message.bytes" => "message.max.bytes",
        "message.timestamp.after.max.ms" => "log.message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms" => "log.message.timestamp.before.max.ms",
        "message.timestamp.type" => "log.message.timestamp.type",
        "min.cleanable.dirty.ratio" => "log.cleaner.min.cleanable.ratio",
        "min.compaction.lag.ms" => "log.cleaner.min.compaction.lag.ms",
        "preallocate" => "log.preallocate",
        "retention.bytes" => "log.retention.bytes",
        "retention.ms" => "log.retention.ms",
        "segment.bytes" => "log.segment.bytes",
        "segment.index.bytes" => "log.index.size.max.bytes",
        "segment.jitter.ms" => "log.roll.jitter.ms",
        "segment.ms" => "log.roll.ms",
        // The `compression` settings, `min.insync.replicas` and `unclean.leader.election.enable` have one name.
        same => same,
    }
}
