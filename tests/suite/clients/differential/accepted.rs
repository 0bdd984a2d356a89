//! The differences that are known, each with the reason why it stands.

use onceflow::types::TimestampType;

use super::batches::{BatchPlan, Lie};
use super::generate::special;
use super::run::Difference;
use super::steps::Ask;

/// A difference that does not fail the test.
pub(super) struct Accepted {
    pub(super) name: &'static str,
    /// Why it stands.
    pub(super) reason: &'static str,
    /// Whether both sides are in the same state afterwards, so that the round may go on.
    pub(super) goes_on: bool,
    covers: fn(&Difference) -> bool,
}

/// The first entry that covers a difference.
pub(super) fn find(difference: &Difference) -> Option<&'static Accepted> {
    ACCEPTED.iter().find(|it| (it.covers)(difference))
}

pub(super) const ACCEPTED: &[Accepted] = &[
    Accepted {
        name: "a batch without a transaction under a transactional id",
        reason: "Kafka writes it outside any transaction; whoever names a transactional id means one, so it is refused",
        goes_on: false,
        covers: |it| {
            let is_outside =
                |batch: &BatchPlan| !batch.producer.is_some_and(|it| it.is_transactional);
            matches!(
                asked(it),
                Some(Ask::Produce {
                    transactional: Some(_),
                    ..
                })
            ) && it.ours.contains("InvalidRequest")
                && has_batch(it, is_outside)
        },
    },
    Accepted {
        name: "a request that both refuse",
        reason: "both refuse it, and change nothing; which of several faults is named first is nobody's promise",
        goes_on: true,
        covers: |it| {
            let is_write = matches!(
                asked(it),
                Some(
                    Ask::CreateTopic { .. }
                        | Ask::CommitOffsets { .. }
                        | Ask::Produce { .. }
                        | Ask::AlterConfig { .. }
                        | Ask::ReplaceConfigs { .. }
                )
            );
            is_write && is_refused(&it.kafka) && is_refused(&it.ours)
        },
    },
    Accepted {
        name: "one of several partitions is at fault",
        reason: "Kafka refuses the whole request for some faults of one batch in it; here each partition is answered for itself",
        goes_on: false,
        covers: |it| {
            let is_several =
                matches!(asked(it), Some(Ask::Produce { partitions, .. }) if partitions.len() > 1);
            is_several && it.lines().iter().all(|(kafka, _)| !is_taken(kafka))
        },
    },
    Accepted {
        name: "a batch that says that the broker stamped its time",
        reason: "Kafka writes it as the topic has it; only brokers stamp, so a client that says so is refused",
        goes_on: false,
        covers: |it| {
            let says_so = |batch: &BatchPlan| {
                batch.timestamp_type == TimestampType::LogAppendTime
                    || batch.lies.contains(&Lie::Attributes(1 << 3))
            };
            has_batch(it, says_so) && ours_is_stricter(it)
        },
    },
    Accepted {
        name: "a length or a count of more than 32 bits",
        reason: "Kafka drops the upper bits and goes on; here it is no length",
        goes_on: false,
        covers: |it| {
            let is_long = |lie: &Lie| {
                matches!(
                    lie,
                    Lie::RecordLength(_, BEYOND)
                        | Lie::KeyLength(_, BEYOND)
                        | Lie::ValueLength(_, BEYOND)
                        | Lie::HeadersCount(_, BEYOND)
                )
            };
            has_batch(it, |batch| batch.lies.iter().any(is_long)) && ours_is_stricter(it)
        },
    },
    Accepted {
        name: "offsets with gaps",
        reason: "Kafka numbers the records anew, or keeps the gap; no client sends such, so it is refused",
        goes_on: false,
        covers: |it| {
            let has_gap = |lie: &Lie| matches!(lie, Lie::OffsetDelta(..));
            has_batch(it, |batch| batch.lies.iter().any(has_gap)) && ours_is_stricter(it)
        },
    },
    Accepted {
        name: "a first offset other than 0",
        reason: "Kafka refuses it; here it is written over, as is every offset that a client sends",
        goes_on: false,
        covers: |it| {
            let is_such = |lie: &Lie| matches!(lie, Lie::BaseOffset(_));
            has_batch(it, |batch| batch.lies.iter().any(is_such))
                && it.lines().iter().all(|(kafka, _)| !is_taken(kafka))
        },
    },
    Accepted {
        name: "preallocate=true",
        reason: "files are not allocated ahead here, and docs/broker.md says so; a setting without its effect is refused",
        goes_on: false,
        covers: |it| {
            let is_set = match asked(it) {
                Some(Ask::AlterConfig { name, .. }) => *name == "preallocate",
                Some(Ask::ReplaceConfigs { settings, .. } | Ask::CreateTopic { settings, .. }) => {
                    settings.iter().any(|(name, _)| *name == "preallocate")
                }
                _ => false,
            };
            is_set && it.ours.starts_with("InvalidConfig")
        },
    },
    Accepted {
        name: "the largest timestamp, where a marker or a deleted record has it",
        reason: "Kafka names the marker or the record that is gone; here it is the newest record that a reader gets",
        goes_on: true,
        covers: |it| {
            let is_largest = |line: &str| line.starts_with("  -3 is at ");
            match asked(it) {
                Some(Ask::ListOffsets { time, .. }) => *time == special(-3),
                Some(_) => false,
                None => it
                    .lines()
                    .iter()
                    .all(|(kafka, ours)| is_largest(kafka) && is_largest(ours)),
            }
        },
    },
    Accepted {
        name: "a topic that a request for metadata creates",
        reason: "Kafka answers that there is none, and creates it behind the answer; here it is there at once",
        goes_on: true,
        covers: |it| {
            matches!(asked(it), Some(Ask::Metadata)) && it.kafka.contains("UnknownTopicOrPartition")
        },
    },
    Accepted {
        name: "the end of a transaction without anything in it",
        reason: "Kafka refuses it below version 5 and takes it from there on; here it is always taken, and changes nothing",
        goes_on: false,
        covers: |it| {
            matches!(asked(it), Some(Ask::EndTransaction { .. }))
                && it.kafka.starts_with("InvalidTxnState")
                && it.ours.starts_with("ok")
        },
    },
    Accepted {
        name: "a committed position below 0",
        reason: "Kafka keeps it, and answers as if there were none; here it is refused, since nobody can read from there",
        goes_on: false,
        covers: |it| {
            matches!(asked(it), Some(Ask::CommitOffsets { offset: ..0, .. }))
                && it.ours == "InvalidRequest\n"
        },
    },
    Accepted {
        name: "a batch that says that its base time is a delete horizon",
        reason: "only the cleaner writes that bit (6), and readers take the base time for something else then: a client that sets it is refused",
        goes_on: false,
        covers: |it| {
            const DELETE_HORIZON: i16 = 1 << 6;
            let is_set =
                |lie: &Lie| matches!(lie, Lie::Attributes(bits) if bits & DELETE_HORIZON != 0);
            has_batch(it, |batch| batch.lies.iter().any(is_set)) && ours_is_stricter(it)
        },
    },
    Accepted {
        name: "the time of a repeated batch",
        reason: "Kafka answers a repeated batch with that batch's own time, where the topic stamps none; here the answer is as for the first",
        goes_on: true,
        covers: |it| {
            let lines = it.lines();
            let is_repeated = |batch: &BatchPlan| batch.producer.is_some();
            has_batch(it, is_repeated)
                && lines.iter().all(|(kafka, ours)| {
                    is_taken(kafka) && is_taken(ours) && ours.contains("time none")
                })
        },
    },
    Accepted {
        name: "a producer id beside an epoch below 0",
        reason: "Kafka writes it, and nobody can go on behind it; no producer is given such an epoch, so it is refused",
        goes_on: false,
        covers: |it| {
            let is_below = |batch: &BatchPlan| batch.producer.is_some_and(|it| it.epoch < 0);
            has_batch(it, is_below) && ours_is_stricter(it)
        },
    },
    Accepted {
        name: "the source of min.insync.replicas",
        reason: "a Kafka cluster with eligible leader replicas sets it for itself, as if an operator had; here it is the default",
        goes_on: true,
        covers: |it| {
            let lines = it.lines();
            lines.iter().all(|(kafka, ours)| {
                kafka.contains("min.insync.replicas=Some(\"1\"), source 3")
                    && ours.contains("min.insync.replicas=Some(\"1\"), source 5")
            })
        },
    },
];

/// The addition of a lie that makes a number that 32 bits cannot hold.
const BEYOND: i64 = 1 << 31;

/// Whether one line of an answer says that a batch was written.
fn is_taken(line: &str) -> bool {
    line.contains(": ok,")
}

/// Whether nothing of an answer says that something was done.
fn is_refused(text: &str) -> bool {
    text.lines()
        .all(|line| !is_taken(line) && !line.starts_with("ok"))
}

/// Whether Kafka wrote each batch that the two disagree about, and our broker refused it.
fn ours_is_stricter(difference: &Difference) -> bool {
    let lines = difference.lines();
    lines
        .iter()
        .all(|(kafka, ours)| is_taken(kafka) && !is_taken(ours))
}

fn asked(difference: &Difference) -> Option<&Ask> {
    difference.step.as_ref().map(|step| &step.ask)
}

/// Whether a batch of the request is such.
fn has_batch(difference: &Difference, is: impl Fn(&BatchPlan) -> bool) -> bool {
    let Some(Ask::Produce { partitions, .. }) = asked(difference) else {
        return false;
    };
    let batches = partitions
        .iter()
        .filter_map(|(_, batches)| batches.as_ref());
    batches.flatten().any(is)
}
