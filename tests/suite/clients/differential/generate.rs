//! Random rounds: mostly what clients do, and often enough what none of them should.

use std::ops::RangeInclusive;

use onceflow::internals::protocol::wire::ApiKey;
use onceflow::types::TimestampType;

use super::batches::{BatchPlan, Lie, ProducerPlan, RecordPlan, SequencePlan};
use super::dice::Dice;
use super::steps::{Ask, IDEMPOTENT, PARTITIONS, PRODUCERS, Place, Round, Step};

/// The most steps of a round.
const STEPS_MAX: usize = 24;

/// The round of a seed.
pub(super) fn round(seed: u64) -> Round {
    let mut dice = Dice::new(seed);
    let settings = settings(&mut dice);
    let steps = 4 + dice.below(STEPS_MAX - 3);
    // Each round has a few subjects, so that its steps meet.
    let subjects: Vec<usize> = (0..3).map(|_| dice.below(5)).collect();
    let steps = (0..steps).map(|_| {
        let subject = dice.pick(&subjects);
        step(&mut dice, subject)
    });
    Round {
        settings,
        steps: steps.collect(),
    }
}

fn settings(dice: &mut Dice) -> Vec<(&'static str, String)> {
    let known: [(&str, &[&str]); 8] = [
        ("cleanup.policy", &["compact", "compact,delete", "delete"]),
        ("message.timestamp.type", &["LogAppendTime", "CreateTime"]),
        ("max.message.bytes", &["120", "400", "2000"]),
        ("message.timestamp.before.max.ms", &["1000", "3600000"]),
        ("message.timestamp.after.max.ms", &["1000", "3600000"]),
        (
            "compression.type",
            &["producer", "uncompressed", "gzip", "zstd", "lz4", "snappy"],
        ),
        ("retention.ms", &["-1", "604800000"]),
        ("flush.messages", &["1", "100"]),
    ];
    let mut settings = Vec::new();
    for (name, values) in known {
        if dice.one_in(7) {
            settings.push((name, dice.pick(values).to_owned()));
        }
    }
    settings
}

fn step(dice: &mut Dice, subject: usize) -> Step {
    match subject {
        // Records of nobody in particular, and lies.
        0 => match dice.below(8) {
            0..=3 => produce(dice, None),
            4 => fetch(dice),
            5 => list_offsets(dice),
            6 => delete_records(dice),
            _ if dice.one_in(2) => epoch_end(dice),
            _ => describe(dice),
        },
        // Idempotent producers.
        1 => match dice.below(8) {
            0 | 1 => init(dice, 0),
            2..=5 => {
                let slot = below(dice, IDEMPOTENT);
                produce(dice, Some(slot))
            }
            6 => describe(dice),
            _ => list_offsets(dice),
        },
        // Transactions.
        2 => transactional(dice),
        // Positions of groups.
        3 => match dice.below(7) {
            0..=2 => commit_offsets(dice),
            3 | 4 => fetch_offsets(dice),
            5 => delete_offsets(dice),
            _ => produce(dice, None),
        },
        // Administration.
        _ => administration(dice),
    }
}

fn below(dice: &mut Dice, end: u8) -> u8 {
    u8::try_from(dice.below(usize::from(end))).unwrap()
}

fn transactional_slot(dice: &mut Dice) -> u8 {
    IDEMPOTENT + below(dice, PRODUCERS - IDEMPOTENT)
}

fn of(dice: &mut Dice, api: ApiKey, ask: Ask) -> Step {
    let (first, last) = versions(api).into_inner();
    let version =
        first + i16::try_from(dice.below(usize::try_from(last - first).unwrap() + 1)).unwrap();
    Step { version, ask }
}

/// The versions that both brokers serve and that the tests can write.
fn versions(api: ApiKey) -> RangeInclusive<i16> {
    let (known, served) = (api.known(), api.served());
    *known.start().max(served.start())..=*known.end().min(served.end())
}

fn partition(dice: &mut Dice) -> i32 {
    match dice.below(30) {
        0 => PARTITIONS,
        1 => -1,
        2..=8 => 1,
        _ => 0,
    }
}

fn place(dice: &mut Dice) -> Place {
    match dice.below(3) {
        0 => Place::FromEnd(dice.pick(&[-2, -1, 0, 0, 1, 5])),
        _ => Place::At(dice.pick(&[0, 0, 1, 2, 3, 5, 8, -1, -2, i64::MAX])),
    }
}

fn produce(dice: &mut Dice, slot: Option<u8>) -> Step {
    let mut numbers = vec![partition(dice)];
    if dice.one_in(5) && numbers[0] != 1 {
        numbers.push(1);
    }
    let mut partitions = Vec::new();
    for number in numbers {
        let batches = match dice.below(40) {
            0 => Vec::new(),
            1 => vec![batch(dice, slot), batch(dice, slot)],
            _ => vec![batch(dice, slot)],
        };
        // Null for the records is left out: Kafka closes the connection, and takes seconds for it.
        partitions.push((number, Some(batches)));
    }
    let is_transactional = slot.is_some_and(|slot| slot >= IDEMPOTENT);
    let transactional = match dice.below(25) {
        0 if is_transactional => None,
        1 if !is_transactional => Some(IDEMPOTENT),
        _ => slot.filter(|_| is_transactional),
    };
    // Kafka adds the partitions to the transaction even where it refuses the acks.
    let acks = match dice.one_in(25) {
        true if is_transactional => 1,
        true => dice.pick(&[1, 2, -2]),
        false => -1,
    };
    let ask = Ask::Produce {
        acks,
        transactional,
        partitions,
    };
    of(dice, ApiKey::Produce, ask)
}

fn batch(dice: &mut Dice, slot: Option<u8>) -> BatchPlan {
    let count = dice.pick(&[1, 1, 1, 2, 2, 3, 3, 5, 9]);
    let base = dice.pick(&[
        0, 0, 0, 100, -50, -1_000_000, -7_200_000, 3_000_000, 5_400_000,
    ]);
    let records: Vec<RecordPlan> = (0..count).map(|_| record(dice, base)).collect();
    let compression = dice.pick(&[0, 0, 0, 0, 0, 1, 2, 3, 4]);
    let producer = slot.map(|slot| producer(dice, slot));
    let lies = match dice.below(10) {
        0..=5 => Vec::new(),
        6..=8 => vec![lie(dice, count)],
        _ => vec![lie(dice, count), lie(dice, count)],
    };
    BatchPlan {
        records,
        compression,
        producer,
        timestamp_type: match dice.below(20) {
            0 => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        lies,
    }
}

fn record(dice: &mut Dice, base: i64) -> RecordPlan {
    let value = match dice.below(12) {
        0 => None,
        1 => Some(String::new()),
        2 => Some("v".repeat(dice.pick(&[100, 500, 3000]))),
        _ => Some(format!("v{}", dice.below(100))),
    };
    let headers = match dice.below(8) {
        0 => vec![("h", Some("1")), ("h", None)],
        1 => vec![("", Some(""))],
        _ => Vec::new(),
    };
    RecordPlan {
        time: base + dice.pick(&[0, 0, 1, 2, 5, -1, -10]),
        key: dice.pick(&[Some("a"), Some("b"), Some("c"), Some("d"), Some(""), None]),
        value,
        headers,
    }
}

fn producer(dice: &mut Dice, slot: u8) -> ProducerPlan {
    let sequence = match dice.below(12) {
        0 => SequencePlan::Again,
        1 => SequencePlan::Ahead(dice.pick(&[1, 3, -1])),
        2 => SequencePlan::Exactly(dice.pick(&[0, -1, 7, i32::MAX, -2])),
        _ => SequencePlan::Next,
    };
    let is_transactional = (slot >= IDEMPOTENT) != dice.one_in(25);
    ProducerPlan {
        slot,
        sequence,
        epoch: if dice.one_in(12) {
            dice.pick(&[-1, 1])
        } else {
            0
        },
        is_transactional,
    }
}

fn lie(dice: &mut Dice, count: usize) -> Lie {
    let at = dice.below(count);
    match dice.below(20) {
        0 => Lie::Count(dice.pick(&[1, -1, -100, 1000, i32::MAX - 9])),
        1 => Lie::LastDelta(dice.pick(&[1, -1, -100, 1000, i32::MAX - 9])),
        2 => Lie::CountAndLastDelta(dice.pick(&[1, -1, 3, i32::MAX - 9])),
        3 => Lie::MaxTime(dice.pick(&[1, 1000, -1000, -100_000_000, 100_000_000])),
        4 => Lie::BaseOffset(dice.pick(&[1, 5, -1, i64::MAX])),
        5 => Lie::LeaderEpoch(dice.pick(&[0, 7, i32::MAX])),
        6 => Lie::Magic(dice.pick(&[0, 1, 3, 255])),
        7 => Lie::Crc,
        8 => Lie::Attributes(dice.pick(&[5, 7, 1 << 3, 1 << 4, 1 << 5, 1 << 6, 1 << 7, i16::MIN])),
        9 => Lie::Length(dice.pick(&[1, -1, -60, 1000, i32::MIN])),
        10 => Lie::OffsetDelta(at, dice.pick(&[1, -1, 5])),
        11 => Lie::RecordLength(at, dice.pick(&[1, -1, -100, 100, 1 << 31])),
        12 => Lie::KeyLength(at, dice.pick(&[1, -1, -3, 100, 1 << 31])),
        13 => Lie::ValueLength(at, dice.pick(&[1, -1, -3, 100, 1 << 31])),
        14 => Lie::HeadersCount(at, dice.pick(&[1, -1, 100, 1 << 31])),
        15 => Lie::RecordAttributes(at, dice.pick(&[1, 255])),
        16 => Lie::Behind(dice.pick(&[1, 20])),
        17 => Lie::Cut(dice.pick(&[1, 3, 1000])),
        18 => Lie::Garbage,
        _ => Lie::Truncated(dice.pick(&[1, 20, 60, 1000])),
    }
}

fn fetch(dice: &mut Dice) -> Step {
    let ask = Ask::Fetch {
        partition: partition(dice),
        from: place(dice),
        isolation: dice.pick(&[0, 1]),
        max_bytes: dice.pick(&[1 << 20, 1 << 20, 1 << 20, 1]),
    };
    of(dice, ApiKey::Fetch, ask)
}

fn list_offsets(dice: &mut Dice) -> Step {
    let time = match dice.below(3) {
        0 => dice.pick(&[0, 1, 2, 5, 100, -50, -1_000_000, 3_000_001]),
        _ => dice.pick(&[-1, -2, -3].map(special)),
    };
    let ask = Ask::ListOffsets {
        partition: partition(dice),
        time,
        isolation: dice.pick(&[0, 1]),
    };
    of(dice, ApiKey::ListOffsets, ask)
}

/// One of Kafka's special times, kept apart from times before the run's.
pub(super) const fn special(number: i64) -> i64 {
    i64::MIN - number
}

fn delete_records(dice: &mut Dice) -> Step {
    let ask = Ask::DeleteRecords {
        partition: partition(dice),
        before: place(dice),
    };
    of(dice, ApiKey::DeleteRecords, ask)
}

fn epoch_end(dice: &mut Dice) -> Step {
    let ask = Ask::EpochEnd {
        partition: partition(dice),
        epoch: dice.pick(&[Some(0), Some(0), Some(1), Some(7), None]),
        current: dice.pick(&[None, Some(0), Some(1)]),
    };
    of(dice, ApiKey::OffsetForLeaderEpoch, ask)
}

fn describe(dice: &mut Dice) -> Step {
    let ask = Ask::DescribeProducers {
        partition: partition(dice),
    };
    of(dice, ApiKey::DescribeProducers, ask)
}

fn init(dice: &mut Dice, slot: u8) -> Step {
    let slot = slot + below(dice, 2);
    let ask = Ask::InitProducer {
        slot,
        timeout_ms: if dice.one_in(20) {
            dice.pick(&[0, -1, i32::MAX])
        } else {
            60_000
        },
        current: if dice.one_in(4) {
            Some(dice.pick(&[0, 0, -1, 1]))
        } else {
            None
        },
    };
    of(dice, ApiKey::InitProducerId, ask)
}

fn transactional(dice: &mut Dice) -> Step {
    let slot = transactional_slot(dice);
    let epoch = if dice.one_in(15) {
        dice.pick(&[-1, 1])
    } else {
        0
    };
    match dice.below(16) {
        0..=2 => init(dice, IDEMPOTENT),
        3..=6 => produce(dice, Some(slot)),
        7 => {
            let partitions = vec![partition(dice)];
            let ask = Ask::AddPartitions {
                slot,
                partitions,
                epoch,
            };
            of(dice, ApiKey::AddPartitionsToTxn, ask)
        }
        8 => {
            let group = below(dice, 2);
            of(
                dice,
                ApiKey::AddOffsetsToTxn,
                Ask::AddOffsets { slot, group, epoch },
            )
        }
        9 => {
            let ask = Ask::TxnOffsets {
                slot,
                group: below(dice, 2),
                epoch,
                partition: partition(dice),
                offset: dice.pick(&[0, 1, 5, 100]),
            };
            of(dice, ApiKey::TxnOffsetCommit, ask)
        }
        10..=12 => {
            let is_commit = dice.one_in(2);
            let ask = Ask::EndTransaction {
                slot,
                epoch,
                is_commit,
            };
            of(dice, ApiKey::EndTxn, ask)
        }
        13 => of(
            dice,
            ApiKey::DescribeTransactions,
            Ask::DescribeTransaction { slot },
        ),
        14 => fetch(dice),
        _ => fetch_offsets(dice),
    }
}

fn commit_offsets(dice: &mut Dice) -> Step {
    let metadata = match dice.below(8) {
        0 => None,
        1 => Some("m".repeat(4097)),
        _ => Some("m".to_owned()),
    };
    let ask = Ask::CommitOffsets {
        group: below(dice, 2),
        partition: partition(dice),
        offset: dice.pick(&[0, 1, 5, 100, -1]),
        metadata,
        generation: if dice.one_in(8) {
            dice.pick(&[0, 1])
        } else {
            -1
        },
        member: if dice.one_in(8) { "somebody" } else { "" },
    };
    of(dice, ApiKey::OffsetCommit, ask)
}

fn delete_offsets(dice: &mut Dice) -> Step {
    let ask = Ask::DeleteOffsets {
        group: below(dice, 3),
        partitions: dice.pick(&[vec![0], vec![1, 0], vec![PARTITIONS], vec![]]),
    };
    of(dice, ApiKey::OffsetDelete, ask)
}

fn fetch_offsets(dice: &mut Dice) -> Step {
    let partitions = match dice.below(4) {
        0 => None,
        _ => Some(vec![partition(dice), 0]),
    };
    let ask = Ask::FetchOffsets {
        group: below(dice, 3),
        partitions,
        is_stable: dice.one_in(3),
    };
    let mut step = of(dice, ApiKey::OffsetFetch, ask);
    // Older versions cannot ask so.
    if let Ask::FetchOffsets {
        partitions,
        is_stable,
        ..
    } = &mut step.ask
    {
        *is_stable &= step.version >= 7;
        if step.version < 2 {
            partitions.get_or_insert_with(|| vec![0]);
        }
    }
    step
}

fn administration(dice: &mut Dice) -> Step {
    match dice.below(10) {
        0..=2 => alter(dice),
        9 => {
            let settings = (0..dice.below(3)).map(|_| {
                let (name, values) = dice.pick(SETTINGS);
                let value = (!dice.one_in(15)).then(|| dice.pick(values).to_owned());
                (name, value)
            });
            let ask = Ask::ReplaceConfigs {
                settings: settings.collect(),
                is_validation: dice.one_in(4),
            };
            of(dice, ApiKey::AlterConfigs, ask)
        }
        3 => {
            let names = vec![dice.pick(SETTINGS).0, "segment.bytes"];
            of(
                dice,
                ApiKey::DescribeConfigs,
                Ask::DescribeConfigs { names },
            )
        }
        4 | 5 => {
            let settings = match dice.below(3) {
                0 => Vec::new(),
                _ => {
                    let (name, values) = dice.pick(SETTINGS);
                    vec![(name, Some(dice.pick(values).to_owned()))]
                }
            };
            let ask = Ask::CreateTopic {
                suffix: dice.pick(&["-more", "-more", "", "/bad", ".dotted", "_low", "é"]),
                partitions: dice.pick(&[1, 1, 3, 0, -1, -2]),
                replication: dice.pick(&[1, 1, -1, 0, 3]),
                settings,
                is_validation: dice.one_in(3),
            };
            of(dice, ApiKey::CreateTopics, ask)
        }
        6 => {
            let ask = Ask::GrowTopic {
                to: dice.pick(&[1, 2, 3, 0, -1]),
                is_validation: dice.one_in(2),
            };
            of(dice, ApiKey::CreatePartitions, ask)
        }
        7 if dice.one_in(3) => {
            let ask = Ask::DeleteTopic {
                suffix: dice.pick(&["-more", "-more", "", "-missing", "/bad"]),
                is_by_id: dice.one_in(3),
            };
            of(dice, ApiKey::DeleteTopics, ask)
        }
        7 => of(dice, ApiKey::Metadata, Ask::Metadata),
        _ => produce(dice, None),
    }
}

fn alter(dice: &mut Dice) -> Step {
    let (name, values) = dice.pick(SETTINGS);
    let operation = dice.pick(&[0, 0, 0, 0, 1, 2, 3]);
    let value = match operation {
        1 => None,
        _ if dice.one_in(15) => None,
        _ => Some(dice.pick(values).to_owned()),
    };
    let ask = Ask::AlterConfig {
        name,
        operation,
        value,
        is_validation: dice.one_in(4),
    };
    of(dice, ApiKey::IncrementalAlterConfigs, ask)
}

/// Settings of topics with values, some of which are none.
const SETTINGS: &[(&str, &[&str])] = &[
    (
        "cleanup.policy",
        &["compact", "delete", "compact,delete", "", "shred"],
    ),
    (
        "compression.type",
        &["producer", "zstd", "uncompressed", "gzip", "none", "brotli"],
    ),
    ("compression.gzip.level", &["-1", "1", "9", "10", "0"]),
    ("compression.lz4.level", &["1", "17", "18"]),
    ("compression.zstd.level", &["3", "22", "23"]),
    ("delete.retention.ms", &["0", "1000", "-1"]),
    ("file.delete.delay.ms", &["0", "60000", "-1"]),
    ("flush.messages", &["1", "0", "9223372036854775807"]),
    ("flush.ms", &["0", "1000", "-1"]),
    ("index.interval.bytes", &["0", "4096", "-1"]),
    ("max.compaction.lag.ms", &["1", "0", "1000"]),
    // Not 0: Kafka then tries for ever to write the markers of a transaction that ends.
    ("max.message.bytes", &["100", "100", "1048588", "-1"]),
    ("message.timestamp.after.max.ms", &["0", "1000", "-1"]),
    ("message.timestamp.before.max.ms", &["0", "1000", "-1"]),
    (
        "message.timestamp.type",
        &["CreateTime", "LogAppendTime", "NoTime"],
    ),
    ("min.cleanable.dirty.ratio", &["0", "0.5", "1", "1.1", "x"]),
    ("min.compaction.lag.ms", &["0", "1000", "-1"]),
    ("min.insync.replicas", &["1", "0"]),
    ("preallocate", &["false", "true", "maybe"]),
    ("retention.bytes", &["-1", "1000000", "x"]),
    ("retention.ms", &["-1", "604800000", "-2"]),
    ("segment.bytes", &["1048576", "1", "13", "104857600"]),
    ("segment.index.bytes", &["4", "1000000", "3"]),
    ("segment.jitter.ms", &["0", "1000", "-1"]),
    ("segment.ms", &["1", "0", "604800000"]),
    ("unclean.leader.election.enable", &["false", "true"]),
    ("no.such.setting", &["1"]),
];
