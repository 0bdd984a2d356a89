//! The differences that are known: each with the reason why it stands, or with the number of the item that mends it.

use super::batches::BatchPlan;
use super::run::Difference;
use super::steps::Ask;

/// A difference that does not fail the test.
pub(super) struct Accepted {
    pub(super) name: &'static str,
    /// Why it stands; `until x2` where it is to be mended.
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
        name: "message.timestamp.before.max.ms and after.max.ms",
        reason: "until x13",
        goes_on: false,
        covers: |it| {
            it.kafka.contains("message.timestamp.") && it.ours.contains("InvalidConfig")
                || sets(it, |name| name.starts_with("message.timestamp."))
        },
    },
    Accepted {
        name: "times beyond the default of message.timestamp.after.max.ms",
        reason: "until x13",
        goes_on: false,
        covers: |it| it.kafka.contains("InvalidTimestamp"),
    },
    Accepted {
        name: "a batch that lies about itself",
        reason: "until x1 and x2",
        goes_on: false,
        covers: |it| has_batch(it, |batch| !batch.lies.is_empty()),
    },
    Accepted {
        name: "several batches for one partition in one request",
        reason: "until x16",
        goes_on: false,
        covers: |it| {
            let several =
                |batches: &Option<Vec<BatchPlan>>| batches.as_ref().is_some_and(|it| it.len() != 1);
            matches!(asked(it), Some(Ask::Produce { partitions, .. }) if partitions.iter().any(|it| several(&it.1)))
        },
    },
    Accepted {
        name: "records of a refused batch are named",
        reason: "until x16",
        goes_on: true,
        covers: |it| {
            let named = |text: &str| {
                text.lines()
                    .filter(|line| !line.ends_with(" is bad"))
                    .collect::<String>()
            };
            matches!(asked(it), Some(Ask::Produce { .. })) && named(&it.kafka) == named(&it.ours)
        },
    },
    Accepted {
        name: "an unknown producer begins with a sequence other than 0",
        reason: "until x14",
        goes_on: false,
        covers: |it| it.ours.contains("UnknownProducerId"),
    },
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
        name: "a request with several faults",
        reason: "both refuse it; which fault is named first is nobody's promise",
        goes_on: true,
        covers: |it| {
            let is_refused = |text: &str| !text.contains("ok");
            let may_have_several = matches!(
                asked(it),
                Some(Ask::CreateTopic { .. } | Ask::CommitOffsets { .. })
            );
            may_have_several && is_refused(&it.kafka) && is_refused(&it.ours)
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
];

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

/// Whether the request sets, or asks for, a setting of such a name.
fn sets(difference: &Difference, is: impl Fn(&str) -> bool) -> bool {
    match asked(difference) {
        Some(Ask::AlterConfig { name, .. }) => is(name),
        Some(Ask::ReplaceConfigs { settings, .. } | Ask::CreateTopic { settings, .. }) => {
            settings.iter().any(|(name, _)| is(name))
        }
        Some(Ask::DescribeConfigs { names }) => names.iter().any(|name| is(name)),
        _ => false,
    }
}
