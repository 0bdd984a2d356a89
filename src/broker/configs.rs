//! The settings of a topic, by Kafka's names, with Kafka's defaults.

use std::collections::BTreeMap;

use super::BrokerError;
use crate::log::{CleanupPolicy, LogConfig};
use crate::protocol::ErrorCode;
use crate::protocol::batch::Compression;
use crate::protocol::messages::ConfigEntry;
use crate::types::TimestampType;

/// Settings by name, as somebody gave them.
pub(super) type Configs = BTreeMap<String, String>;

struct Setting {
    name: &'static str,
    default: &'static str,
    documentation: &'static str,
    apply: fn(&mut LogConfig, &str) -> Result<(), String>,
}

/// Every setting there is, by name.
static SETTINGS: &[Setting] = &[
    Setting {
        name: "cleanup.policy",
        default: "delete",
        documentation: "What happens to old records: delete, compact, both (compact,delete), or nothing (empty).",
        apply: |config, value| cleanup_policy(value).map(|policy| config.cleanup = policy),
    },
    Setting {
        name: "compression.gzip.level",
        default: "-1",
        documentation: "The level at which compression.type=gzip compresses, from 1 to 9; -1 is gzip's own.",
        apply: |config, value| match value {
            "-1" => {
                config.gzip_level = None;
                Ok(())
            }
            _ => number(value, 1, 9).map(|n| config.gzip_level = Some(n)),
        },
    },
    Setting {
        name: "compression.lz4.level",
        default: "9",
        documentation: "The level of lz4, from 1 to 17. There is one level: the value is kept, and changes nothing.",
        apply: |_, value| number::<i32>(value, 1, 17).map(drop),
    },
    Setting {
        name: "compression.type",
        default: "producer",
        documentation: "How batches are stored: as the producer sent them (producer), uncompressed, or by gzip, snappy, lz4 or zstd, which costs the broker the work.",
        apply: |config, value| compression(value).map(|it| config.compression = it),
    },
    Setting {
        name: "compression.zstd.level",
        default: "3",
        documentation: "The level at which compression.type=zstd compresses, from -131072 to 22.",
        apply: |config, value| number(value, -131_072, 22).map(|n| config.zstd_level = Some(n)),
    },
    Setting {
        name: "delete.retention.ms",
        default: "86400000",
        documentation: "How long a tombstone outlives its first compaction, in milliseconds.",
        apply: |config, value| number(value, 0, i64::MAX).map(|n| config.delete_retention_ms = n),
    },
    Setting {
        name: "file.delete.delay.ms",
        default: "60000",
        documentation: "How long a deleted segment's file stays. It goes at once, which no reader notices: the value is kept, and changes nothing.",
        apply: |_, value| number::<i64>(value, 0, i64::MAX).map(drop),
    },
    Setting {
        name: "flush.messages",
        default: UNLIMITED,
        documentation: "After so many records a partition is synced to the disk, whoever waits for them or not.",
        apply: |config, value| number(value, 1, i64::MAX).map(|n| config.flush_messages = n),
    },
    Setting {
        name: "flush.ms",
        default: UNLIMITED,
        documentation: "So long after an append a partition is synced to the disk, in milliseconds; log.flush.interval.ms of the broker if that is sooner.",
        apply: |config, value| number(value, 0, i64::MAX).map(|n| config.flush_ms = n),
    },
    Setting {
        name: "index.interval.bytes",
        default: "4096",
        documentation: "How many bytes of records lie between two entries of the offset index.",
        apply: |config, value| {
            number(value, 0, i64::from(i32::MAX)).map(|n| config.index_interval_bytes = n)
        },
    },
    Setting {
        name: "max.compaction.lag.ms",
        default: UNLIMITED,
        documentation: "Records older than this are compacted whatever the ratio, in milliseconds.",
        apply: |config, value| number(value, 1, i64::MAX).map(|n| config.max_compaction_lag_ms = n),
    },
    Setting {
        name: "max.message.bytes",
        default: "1048588",
        documentation: "The largest record batch that a producer may send, in bytes, compressed.",
        apply: |config, value| {
            number(value, 0, i64::from(i32::MAX)).map(|n| config.max_message_bytes = n)
        },
    },
    Setting {
        name: "message.timestamp.after.max.ms",
        default: "3600000",
        documentation: "How far a record's timestamp may lie ahead of the clock, in milliseconds.",
        apply: |config, value| {
            number(value, 0, i64::MAX).map(|n| config.timestamp_after_max_ms = n)
        },
    },
    Setting {
        name: "message.timestamp.before.max.ms",
        default: UNLIMITED,
        documentation: "How far a record's timestamp may lie behind the clock, in milliseconds.",
        apply: |config, value| {
            number(value, 0, i64::MAX).map(|n| config.timestamp_before_max_ms = n)
        },
    },
    Setting {
        name: "message.timestamp.type",
        default: "CreateTime",
        documentation: "Who sets record timestamps: the producer (CreateTime) or the log (LogAppendTime).",
        apply: |config, value| timestamp_type(value).map(|kind| config.timestamp_type = kind),
    },
    Setting {
        name: "min.cleanable.dirty.ratio",
        default: "0.5",
        documentation: "The share of never compacted bytes at which compaction begins, from 0 to 1.",
        apply: |config, value| ratio(value).map(|n| config.min_cleanable_dirty_ratio = n),
    },
    Setting {
        name: "min.compaction.lag.ms",
        default: "0",
        documentation: "Records younger than this are not compacted, in milliseconds.",
        apply: |config, value| number(value, 0, i64::MAX).map(|n| config.min_compaction_lag_ms = n),
    },
    Setting {
        name: "min.insync.replicas",
        default: "1",
        documentation: "How many copies must be written before a write is acknowledged. There is one broker, and one copy.",
        apply: |_, value| fixed(value, "1"),
    },
    Setting {
        name: "preallocate",
        default: "false",
        documentation: "Whether segment files are made at full size at once. They grow.",
        apply: |_, value| fixed(value, "false"),
    },
    Setting {
        name: "retention.bytes",
        default: "-1",
        documentation: "The oldest segments are deleted while a partition is larger than this, in bytes; -1 keeps them.",
        apply: |config, value| limit(value).map(|n| config.retention_bytes = n),
    },
    Setting {
        name: "retention.ms",
        default: "604800000",
        documentation: "Segments whose records are all older than this are deleted, in milliseconds; -1 keeps them.",
        apply: |config, value| limit(value).map(|n| config.retention_ms = n),
    },
    Setting {
        name: "segment.bytes",
        default: "1073741824",
        documentation: "The size at which a new segment file is begun, in bytes.",
        apply: |config, value| {
            number(value, SEGMENT_BYTES_MIN, i64::from(i32::MAX)).map(|n| config.segment_bytes = n)
        },
    },
    Setting {
        name: "segment.index.bytes",
        default: "10485760",
        documentation: "The size of an offset index at which a new segment file is begun, in bytes.",
        apply: |config, value| {
            number(value, 4, i64::from(i32::MAX)).map(|n| config.segment_index_bytes = n)
        },
    },
    Setting {
        name: "segment.jitter.ms",
        default: "0",
        documentation: "By how much the time at which a segment is begun is spread, in milliseconds: segment.ms less a random part of this.",
        apply: |config, value| number(value, 0, i64::MAX).map(|n| config.segment_jitter_ms = n),
    },
    Setting {
        name: "segment.ms",
        default: "604800000",
        documentation: "The span of record timestamps at which a new segment file is begun, in milliseconds.",
        apply: |config, value| number(value, 1, i64::MAX).map(|n| config.segment_ms = n),
    },
    Setting {
        name: "unclean.leader.election.enable",
        default: "false",
        documentation: "Whether a copy that lacks acknowledged records may lead. There is one copy.",
        apply: |_, value| fixed(value, "false"),
    },
];

/// No limit, as Kafka writes it.
const UNLIMITED: &str = "9223372036854775807";
/// The smallest segment, in bytes: room for a batch header and a record. Kafka's own minimum was 14.
const SEGMENT_BYTES_MIN: i64 = 128;

/// The log settings that `configs` mean, on top of `base`.
///
/// # Errors
/// `InvalidConfig`, naming the setting, the value and what is allowed.
pub(super) fn log_config(base: &LogConfig, configs: &Configs) -> Result<LogConfig, BrokerError> {
    let mut config = base.clone();
    for (name, value) in configs {
        let setting = find(name)?;
        (setting.apply)(&mut config, value.trim()).map_err(|why| {
            invalid(format!(
                "the setting {name}={value:?} is not valid: {why}. {}",
                setting.documentation
            ))
        })?;
    }
    check_lags(&config)?;
    Ok(config)
}

/// A record cannot be due for compaction before it may be compacted.
fn check_lags(config: &LogConfig) -> Result<(), BrokerError> {
    let (min, max) = (config.min_compaction_lag_ms, config.max_compaction_lag_ms);
    match max < min {
        true => Err(invalid(format!(
            "max.compaction.lag.ms={max} is less than min.compaction.lag.ms={min}: set both, the first one no lower"
        ))),
        false => Ok(()),
    }
}

/// Every setting with the value in force: that of `configs`, else that of `defaults`, else Kafka's.
pub(super) fn describe(configs: &Configs, defaults: &Configs) -> Vec<ConfigEntry> {
    let entry = |setting: &Setting| {
        let set = configs.get(setting.name);
        let fallback = defaults
            .get(setting.name)
            .map_or(setting.default, String::as_str);
        ConfigEntry {
            name: setting.name.to_owned(),
            value: set.map_or(fallback, String::as_str).to_owned(),
            is_default: set.is_none(),
            documentation: setting.documentation.to_owned(),
        }
    };
    SETTINGS.iter().map(entry).collect()
}

/// Every topic setting with Kafka's default, or with what is true here where nothing else can be.
#[must_use]
pub(crate) fn topic_defaults() -> Vec<ConfigEntry> {
    describe(&Configs::new(), &Configs::new())
}

fn find(name: &str) -> Result<&'static Setting, BrokerError> {
    let found = SETTINGS.iter().find(|setting| setting.name == name);
    found.ok_or_else(|| {
        let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        invalid(format!(
            "there is no topic setting {name:?}; there are: {}",
            known.join(", ")
        ))
    })
}

fn invalid(message: String) -> BrokerError {
    BrokerError::new(ErrorCode::InvalidConfig, message)
}

fn number<N: TryFrom<i64>>(value: &str, min: i64, max: i64) -> Result<N, String> {
    let parsed = value.parse::<i64>().ok();
    parsed
        .filter(|n| (min..=max).contains(n))
        .and_then(|n| N::try_from(n).ok())
        .ok_or_else(|| match max {
            i64::MAX => format!("it must be a whole number from {min} on"),
            _ => format!("it must be a whole number from {min} to {max}"),
        })
}

/// A setting that tells how things are, and may be set to nothing else.
fn fixed(value: &str, only: &str) -> Result<(), String> {
    match value == only {
        true => Ok(()),
        false => Err(format!("only {only} is possible here")),
    }
}

fn limit(value: &str) -> Result<Option<i64>, String> {
    match number(value, -1, i64::MAX)? {
        -1 => Ok(None),
        n => Ok(Some(n)),
    }
}

fn ratio(value: &str) -> Result<f64, String> {
    let parsed = value.parse::<f64>().ok();
    parsed
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "it must be a number from 0 to 1".to_owned())
}

fn cleanup_policy(value: &str) -> Result<CleanupPolicy, String> {
    let mut words: Vec<_> = value.split(',').map(str::trim).collect();
    words.sort_unstable();
    match words.as_slice() {
        ["delete"] => Ok(CleanupPolicy::Delete),
        ["compact"] => Ok(CleanupPolicy::Compact),
        ["compact", "delete"] => Ok(CleanupPolicy::CompactAndDelete),
        [""] => Ok(CleanupPolicy::None),
        _ => Err("it must be delete, compact, compact,delete or empty".to_owned()),
    }
}

fn compression(value: &str) -> Result<Option<Compression>, String> {
    match value {
        "producer" => Ok(None),
        "uncompressed" => Ok(Some(Compression::None)),
        "gzip" => Ok(Some(Compression::Gzip)),
        "snappy" => Ok(Some(Compression::Snappy)),
        "lz4" => Ok(Some(Compression::Lz4)),
        "zstd" => Ok(Some(Compression::Zstd)),
        _ => Err("it must be producer, uncompressed, gzip, snappy, lz4 or zstd".into()),
    }
}

fn timestamp_type(value: &str) -> Result<TimestampType, String> {
    match value {
        "CreateTime" => Ok(TimestampType::CreateTime),
        "LogAppendTime" => Ok(TimestampType::LogAppendTime),
        _ => Err("it must be CreateTime or LogAppendTime".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> Configs {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    #[test]
    fn the_defaults_described_are_those_in_force() {
        let all: Configs = SETTINGS
            .iter()
            .map(|s| (s.name.to_owned(), s.default.to_owned()))
            .collect();
        let base = LogConfig::default();
        assert_eq!(log_config(&base, &all).unwrap(), base);
    }

    #[test]
    fn settings_mean_what_kafka_means_by_them() {
        let set = configs(&[
            ("cleanup.policy", "compact, delete"),
            ("retention.ms", "-1"),
            ("segment.bytes", "4096"),
            ("message.timestamp.type", "LogAppendTime"),
        ]);
        let config = log_config(&LogConfig::default(), &set).unwrap();
        assert_eq!(config.cleanup, CleanupPolicy::CompactAndDelete);
        assert_eq!(config.retention_ms, None);
        assert_eq!(config.segment_bytes, 4096);
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
        let described = describe(&set, &configs(&[("segment.ms", "5")]));
        let value = |name: &str| {
            let entry = described.iter().find(|entry| entry.name == name).unwrap();
            (entry.value.as_str(), entry.is_default)
        };
        assert_eq!(value("retention.ms"), ("-1", false));
        assert_eq!(value("segment.ms"), ("5", true));
        assert_eq!(value("retention.bytes"), ("-1", true));
    }

    #[test]
    fn x16_a_record_that_is_due_before_it_may_be_compacted_is_refused() {
        let lags = |min, max| {
            let set = [
                ("min.compaction.lag.ms", min),
                ("max.compaction.lag.ms", max),
            ];
            log_config(&LogConfig::default(), &configs(&set))
        };
        assert!(lags("1000", "1000").is_ok());
        let error = lags("1000", "1").unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.message.contains("set both"), "{}", error.message);
    }

    #[test]
    fn a_wrong_setting_is_refused_with_what_is_allowed() {
        for (name, value, says) in [
            ("retention.ms", "-2", "from -1 on"),
            ("retention.ms", "soon", "whole number"),
            ("segment.bytes", "1", "from 128 to 2147483647"),
            ("min.cleanable.dirty.ratio", "1.5", "from 0 to 1"),
            ("cleanup.policy", "compress", "compact,delete"),
            ("compression.type", "none", "producer, uncompressed, gzip"),
            ("no.such.setting", "1", "there are: cleanup.policy"),
        ] {
            let error = log_config(&LogConfig::default(), &configs(&[(name, value)])).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.message.contains(says), "{}", error.message);
        }
    }
}
