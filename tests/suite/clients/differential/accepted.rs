//! The differences that are known, each with the reason why it stands.

use onceflow::types::TimestampType;

use super::batches::{BatchPlan, Lie, SequencePlan};
use super::generate::special;
use super::run::Difference;
use super::steps::{Ask, PARTITIONS, Step};

/// A difference that does not fail the test.
pub(super) struct Accepted {
    pub(super) name: &'static str,
    /// The reason.
    pub(super) reason: &'static str,
    /// Whether both sides are in the same state afterwards, so that the round may go on.
    pub(super) goes_on: bool,
    covers: fn(&Difference) -> bool,
}

/// The entries that cover a difference, partition by partition; or the one about a request as a whole.
pub(super) fn find(difference: &Difference) -> Option<Vec<(&'static Accepted, Difference)>> {
    let entry = |part: Difference| {
        let entry = ACCEPTED.iter().find(|it| (it.covers)(&part))?;
        Some((entry, part))
    };
    let by_parts: Option<Vec<_>> = difference.parts().into_iter().map(entry).collect();
    let is_whole = (WHOLE.covers)(difference);
    by_parts.or_else(|| is_whole.then(|| vec![(&WHOLE, difference.clone())]))
}

/// Whether the two may be in different states though they gave the same answer: Kafka lets a partition join a transaction
/// before it looks at the batch, and ends the transaction there too though the batch was refused.
pub(super) fn may_differ_behind(step: &Step, answer: &str) -> bool {
    const JOINS_FROM: i16 = 12;
    matches!(
        &step.ask,
        Ask::Produce {
            transactional: Some(_),
            ..
        }
    ) && step.version >= JOINS_FROM
        && answer.lines().any(|line| !is_taken(line))
}

/// All entries.
pub(super) fn all() -> impl Iterator<Item = &'static Accepted> {
    std::iter::once(&WHOLE).chain(ACCEPTED)
}

/// The entry for a request as a whole.
static WHOLE: Accepted = Accepted {
    name: "one of several partitions is at fault",
    reason: "Kafka refuses the whole request where it cannot read one batch in it; here each partition is answered for itself",
    goes_on: false,
    covers: |it| {
        let is_several =
            matches!(asked(it), Some(Ask::Produce { partitions, .. }) if partitions.len() > 1);
        let of_all = |code: &str| {
            let mut partitions = it.kafka.lines().filter(|it| it.starts_with("partition "));
            partitions.all(|line| line.contains(code))
        };
        let is_unreadable = [
            ": CorruptMessage,",
            ": UnknownServerError,",
            ": TransactionalIdAuthorizationFailed,",
        ]
        .into_iter()
        .any(of_all);
        is_several && is_unreadable && it.ours.lines().any(|it| !is_taken(it))
    },
};

pub(super) static ACCEPTED: &[Accepted] = &[
    Accepted {
        name: "a batch without a transaction under a transactional id",
        reason: "Kafka writes it outside any transaction; whoever names a transactional id means one, so it is refused",
        goes_on: false,
        covers: |it| {
            let is_outside = |batch: &BatchPlan| {
                let is_turned = batch.lies.contains(&Lie::Attributes(1 << 4));
                batch.producer.is_some_and(|it| it.is_transactional) == is_turned
            };
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
        name: "one of several faults of a batch",
        reason: "both refuse it; which of its faults is looked for first is nobody's promise",
        goes_on: true,
        covers: |it| refusals(it).is_some() && faults_count_max(it) > 1,
    },
    Accepted {
        name: "a batch that Kafka cannot read",
        reason: "both refuse it; Kafka does so with an error that it did not expect",
        goes_on: true,
        covers: |it| refusals(it).is_some_and(|(kafka, _)| kafka == "UnknownServerError"),
    },
    Accepted {
        name: "a whole batch in front of one that is cut off",
        reason: "Kafka writes the first, drops the rest without a word and says that all went well; here neither is taken",
        goes_on: false,
        covers: |it| {
            let is_cut = |batch: &BatchPlan| {
                let lies = batch.lies.iter();
                lies.filter(|it| matches!(it, Lie::Length(_) | Lie::Truncated(_)))
                    .count()
                    > 0
            };
            batches(it).len() > 1 && batches(it).into_iter().any(is_cut) && ours_is_stricter(it)
        },
    },
    Accepted {
        name: "a batch of no format, or that does not end where it says",
        reason: "both refuse it; Kafka looks at the checksum of the second first, and calls only some formats unknown",
        goes_on: true,
        covers: |it| {
            let is_cut =
                |lie: &Lie| matches!(lie, Lie::Magic(_) | Lie::Length(_) | Lie::Truncated(_));
            refusals(it) == Some(("CorruptMessage", "InvalidRecord"))
                && has_batch(it, |batch| batch.lies.iter().any(is_cut))
        },
    },
    Accepted {
        name: "which records of a bad batch are named",
        reason: "both refuse it; ours names no records where the whole batch is at fault besides",
        goes_on: true,
        covers: |it| {
            let is_named = |line: &str| line.starts_with("  record ") || line == "(nothing)";
            matches!(asked(it), Some(Ask::Produce { .. }))
                && is_refused(&it.kafka)
                && is_refused(&it.ours)
                && it.lines().iter().all(|it| is_named(it.0) && is_named(it.1))
        },
    },
    Accepted {
        name: "the fault of an alteration that is named",
        reason: "both refuse it, and it has two faults: the topic is gone, or the operation needs a list, and the value is none",
        goes_on: true,
        covers: |it| {
            let is_alteration = matches!(
                asked(it),
                Some(Ask::AlterConfig { .. } | Ask::ReplaceConfigs { .. })
            );
            let codes = (it.kafka.trim(), it.ours.trim());
            let known = [
                ("InvalidConfig", "UnknownTopicOrPartition"),
                ("InvalidRequest", "UnknownTopicOrPartition"),
                ("InvalidRequest", "InvalidConfig"),
            ];
            is_alteration && known.contains(&codes)
        },
    },
    Accepted {
        name: "a commit of a member to a group that is not there",
        reason: "from version 9 on Kafka says that there is no group; here it is the generation that is none, in each version: clients join anew after both",
        goes_on: true,
        covers: |it| {
            matches!(asked(it), Some(Ask::CommitOffsets { .. }))
                && it.kafka == "GroupIdNotFound\n"
                && it.ours == "IllegalGeneration\n"
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
        covers: |it| is_refused_setting(it, "preallocate"),
    },
    Accepted {
        name: "unclean.leader.election.enable=true",
        reason: "there is one copy and nobody to elect, and docs/broker.md says so; a setting without its effect is refused",
        goes_on: false,
        covers: |it| is_refused_setting(it, "unclean.leader.election.enable"),
    },
    Accepted {
        name: "a marker's time, and a lookup by time that finds a marker or a deleted record",
        reason: "Kafka names the marker, or the record that is gone; here it is a record that a reader gets, or none (A7). Markers have the time that the broker gave them, whatever the topic stamps",
        goes_on: true,
        covers: |it| {
            let lines = it.lines();
            match asked(it) {
                Some(Ask::ListOffsets { time, .. }) => {
                    let is_largest = *time == special(-3);
                    let is_lookup = is_largest || *time > i64::MIN + 10;
                    let is_other = |it: &(&str, &str)| is_other_record(is_largest, it.0, it.1);
                    is_lookup && lines.iter().all(is_other)
                }
                Some(_) => false,
                None => lines.iter().all(|(kafka, ours)| {
                    if kafka.contains(", control, ") {
                        return kafka.replace("LogAppendTime", "CreateTime") == *ours;
                    }
                    let of = |line| str::trim(line).split_once(" is at ");
                    let Some(((time, kafka), (_, ours))) = of(kafka).zip(of(ours)) else {
                        return false;
                    };
                    !matches!(time, "-1" | "-2") && is_other_record(time == "-3", kafka, ours)
                }),
            }
        },
    },
    Accepted {
        name: "zstd for a reader of an early version",
        reason: "Kafka refuses it only where the topic compresses so, and sends the rest to a client that cannot read it; here it is refused where zstd begins",
        goes_on: true,
        covers: |it| {
            let is_early = it.step.as_ref().is_some_and(|step| step.version < 10);
            is_early
                && matches!(asked(it), Some(Ask::Fetch { .. }))
                && it.kafka.contains(", zstd, ")
                && !it.ours.contains(", zstd, ")
        },
    },
    Accepted {
        name: "lengths that are below 0, or in compressed records",
        reason: "Kafka does not read a compressed record's length, and takes any below 0 for null; what readers could not read, or no client sends, is refused",
        goes_on: false,
        covers: |it| {
            has_batch(it, |batch| {
                batch.lies.iter().any(|lie| match lie {
                    Lie::RecordLength(..) => batch.compression != 0,
                    Lie::KeyLength(at, ..0) => batch.records[*at].key.is_none_or(str::is_empty),
                    Lie::ValueLength(at, ..0) => batch.records[*at]
                        .value
                        .as_deref()
                        .is_none_or(str::is_empty),
                    _ => false,
                })
            }) && ours_is_stricter(it)
        },
    },
    Accepted {
        name: "attribute bits that mean nothing yet",
        reason: "Kafka writes them, for readers of a later time to take for something; no client sends them, so they are refused",
        goes_on: false,
        covers: |it| {
            let is_reserved = |lie: &Lie| matches!(lie, Lie::Attributes(bits) if bits & !0x7f != 0);
            has_batch(it, |batch| batch.lies.iter().any(is_reserved)) && ours_is_stricter(it)
        },
    },
    Accepted {
        name: "the description of a transaction that is over",
        reason: "Kafka keeps its start, and calls a producer without one aborted where it aborted nothing; here nothing is open, and nothing was",
        goes_on: false,
        covers: |it| {
            matches!(asked(it), Some(Ask::DescribeTransaction { .. }))
                && it.kafka.starts_with("ok, Complete")
                && it.ours == it.kafka.replace("started now", "started none")
                || it.kafka.starts_with("ok, CompleteAbort") && it.ours.starts_with("ok, Empty")
        },
    },
    Accepted {
        name: "an identity with an epoch that nobody has been given yet",
        reason: "Kafka ends the open transaction first, whose end gives out that epoch, and then takes the identity for good; here it is fenced",
        goes_on: false,
        covers: |it| {
            matches!(
                asked(it),
                Some(Ask::InitProducer {
                    current: Some(1..),
                    ..
                })
            ) && it.kafka.starts_with("ok, ")
                && it.ours.starts_with("ProducerFenced, ")
        },
    },
    Accepted {
        name: "the epoch of a holder that comes again and finds its transaction open",
        reason: "Kafka gives it the epoch that fenced the transaction; here it gets the one behind that, so that nobody has the one that fenced",
        goes_on: false,
        covers: |it| {
            let epoch = |answer: &str| -> Option<i16> {
                let (_, behind) = answer.split_once(", epoch ")?;
                behind.split(',').next()?.parse().ok()
            };
            matches!(
                asked(it),
                Some(Ask::InitProducer {
                    current: Some(0),
                    ..
                })
            ) && it.kafka.ends_with("new id: false\n")
                && it.ours.ends_with("new id: false\n")
                && epoch(&it.ours) == epoch(&it.kafka).map(|epoch| epoch + 1)
        },
    },
    Accepted {
        name: "positions under the epoch that its own holder, or a timeout, left behind",
        reason: "Kafka calls it fenced, which is final; clients abort and go on after the code that it gets here. One that was replaced is fenced here, too (the named test of X15)",
        goes_on: false,
        covers: |it| {
            matches!(asked(it), Some(Ask::AddOffsets { epoch: ..0, .. }))
                && it.kafka == "ProducerFenced\n"
                && it.ours == "InvalidProducerEpoch\n"
        },
    },
    Accepted {
        name: "a group without positions",
        reason: "Kafka forgets it some time after its last position was deleted, and here it is gone with it",
        goes_on: false,
        covers: |it| match asked(it) {
            Some(Ask::DeleteOffsets { .. }) => {
                it.kafka.starts_with("ok\n") && it.ours == "GroupIdNotFound\n"
            }
            Some(Ask::CommitOffsets { .. }) => {
                it.kafka == "UnknownMemberId\n" && it.ours == "IllegalGeneration\n"
            }
            _ => false,
        },
    },
    Accepted {
        name: "positions of a group that did not join the transaction, beside one that did",
        reason: "all groups' positions are in one partition here, and in Kafka only some share theirs",
        goes_on: false,
        covers: |it| {
            matches!(asked(it), Some(Ask::TxnOffsets { .. }))
                && matches!(it.kafka.trim(), "InvalidTxnState" | "TransactionAbortable")
                && it.ours == "ok\n"
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

/// The codes that both refused a write to one partition with.
fn refusals(difference: &Difference) -> Option<(&str, &str)> {
    if !matches!(asked(difference), Some(Ask::Produce { .. })) {
        return None;
    }
    let code = |text| -> Option<&str> {
        let line = str::lines(text).next()?;
        let code = line.split_once(": ")?.1.split_once(',')?.0;
        (code != "ok").then_some(code)
    };
    code(&difference.kafka).zip(code(&difference.ours))
}

/// Whether ours refuses a setting's `true` that Kafka takes.
fn is_refused_setting(difference: &Difference, setting: &str) -> bool {
    let is_set = match asked(difference) {
        Some(Ask::AlterConfig { name, value, .. }) => {
            *name == setting && value.as_deref() == Some("true")
        }
        Some(Ask::ReplaceConfigs { settings, .. } | Ask::CreateTopic { settings, .. }) => settings
            .iter()
            .any(|(name, value)| *name == setting && value.as_deref() == Some("true")),
        _ => false,
    };
    is_set && difference.ours.starts_with("InvalidConfig")
}

/// Whether two lookups by time went well and Kafka's found something; the largest time it may miss, where a transaction
/// that is open holds it.
fn is_other_record(is_largest: bool, kafka: &str, ours: &str) -> bool {
    let went_well = kafka.ends_with(", ok") && ours.ends_with(", ok");
    went_well && (is_largest || !kafka.starts_with("-1,"))
}

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

/// The batches of the request.
fn batches(difference: &Difference) -> Vec<&BatchPlan> {
    let Some(Ask::Produce { partitions, .. }) = asked(difference) else {
        return Vec::new();
    };
    let batches = partitions
        .iter()
        .filter_map(|(_, batches)| batches.as_ref());
    batches.flatten().collect()
}

/// Whether a batch of the request is such.
fn has_batch(difference: &Difference, is: impl FnMut(&BatchPlan) -> bool) -> bool {
    batches(difference).into_iter().any(is)
}

/// Returns the most faults of a request to write to one partition; some depend on what happened before, or on the topic.
fn faults_count_max(difference: &Difference) -> usize {
    let Some(Step {
        version,
        ask:
            Ask::Produce {
                acks,
                transactional,
                partitions,
            },
    }) = &difference.step
    else {
        return 0;
    };
    let batches = batches(difference);
    let is_missing = |(index, _): &(i32, _)| !(0..PARTITIONS).contains(index);
    // The topic may have been deleted in this round.
    let is_gone = difference.kafka.contains("UnknownTopicOrPartition");
    let has = |setting| difference.settings.iter().any(|it| it.starts_with(setting));
    let of_request = [
        !(-1..=1).contains(acks),
        transactional.is_some(),
        partitions.iter().any(is_missing) || is_gone,
        batches.len() != 1,
    ];
    let of_batch = |batch: &&BatchPlan| {
        let records = &batch.records;
        let of_batch = [
            batch.producer.is_some(),
            batch.producer.is_some_and(|it| it.epoch != 0),
            batch
                .producer
                .is_some_and(|it| it.sequence != SequencePlan::Next),
            batch.timestamp_type == TimestampType::LogAppendTime,
            batch.compression == 4 && *version < 7,
            records.iter().any(|it| it.time.abs() >= 3_000_000) || has("message.timestamp."),
            has("cleanup.policy") && records.iter().any(|it| it.key.is_none()),
            has("max.message.bytes"),
        ];
        batch.lies.len() + of_batch.into_iter().filter(|it| *it).count()
    };
    let of_request = of_request.into_iter().filter(|it| *it).count();
    of_request + batches.iter().map(of_batch).sum::<usize>()
}
