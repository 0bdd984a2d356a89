//! Requests that random rounds do not make, asked of both brokers; and Kafka's own tool for transactions that hang.

use std::time::{Duration, Instant};

use onceflow::internals::protocol::wire::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use onceflow::internals::protocol::wire::messages::find_coordinator::FindCoordinatorRequest;
use onceflow::types::TimestampType;

use super::batches::{BatchPlan, ProducerPlan, RecordPlan, SequencePlan};
use super::side::{NOW_AFTER, Side};
use super::steps::{Ask, IDEMPOTENT, Round, Step};
use super::{Served, world};
use crate::support::peers;

/// Longest time for a group to share partitions out.
const PATIENCE: Duration = Duration::from_secs(30);

fn sides(served: &Served) -> [Side; 2] {
    let base_time = super::now() - NOW_AFTER;
    [world::kafka(), served.address()].map(|address| Side::new(&address, base_time))
}

/// Counts the topics that a member of the consumer protocol is given for `expression`.
fn topics_of_a_member(side: &mut Side, group: &str, expression: &str) -> usize {
    let coordinator = FindCoordinatorRequest {
        coordinator_keys: vec![group.to_owned()],
        ..FindCoordinatorRequest::default()
    };
    // Which creates the topic.
    side.ask_until(4, &coordinator, |it| it.coordinators[0].error_code);
    let mut request = ConsumerGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: "member".to_owned(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_regex: Some(expression.to_owned()),
        server_assignor: Some("uniform".to_owned()),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = side.ask_until(1, &request, |it| it.error_code).unwrap();
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let given = answer.assignment.map_or(0, |it| it.topic_partitions.len());
        if given > 0 || Instant::now() > deadline {
            return given;
        }
        request = ConsumerGroupHeartbeatRequest {
            group_id: group.to_owned(),
            member_id: "member".to_owned(),
            member_epoch: answer.member_epoch,
            ..ConsumerGroupHeartbeatRequest::default()
        };
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn x16_a_member_whose_expression_names_an_internal_topic_gets_it() {
    if !world::has_kafka() {
        return;
    }
    let served = Served::start();
    for mut side in sides(&served) {
        let group = format!("internal-{}", std::process::id());
        let given = topics_of_a_member(&mut side, &group, "__consumer_off.*");
        assert_eq!(given, 1, "{}", side.address());
    }
    served.stop();
}

/// A transaction with one record, left open.
fn open_transaction() -> Round {
    let record = RecordPlan {
        time: 0,
        key: None,
        value: Some("open".to_owned()),
        headers: Vec::new(),
    };
    let batch = BatchPlan {
        records: vec![record],
        compression: 0,
        producer: Some(ProducerPlan {
            slot: IDEMPOTENT,
            sequence: SequencePlan::Next,
            epoch: 0,
            is_transactional: true,
        }),
        timestamp_type: TimestampType::CreateTime,
        lies: Vec::new(),
    };
    let init = Ask::InitProducer {
        slot: IDEMPOTENT,
        timeout_ms: 600_000,
        current: None,
    };
    let produce = Ask::Produce {
        acks: -1,
        transactional: Some(IDEMPOTENT),
        partitions: vec![(0, Some(vec![batch]))],
    };
    let step = |version, ask| Step { version, ask };
    Round {
        settings: Vec::new(),
        steps: vec![step(5, init), step(12, produce)],
    }
}

#[test]
fn x16_kafkas_own_tool_ends_an_open_transaction() {
    if !world::has_kafka() {
        return;
    }
    let served = Served::start();
    let round = open_transaction();
    for mut side in sides(&served) {
        side.begin(&round, &format!("-tool-{}", std::process::id()));
        for step in &round.steps {
            let answer = side.run(step);
            assert!(answer.contains("ok"), "{answer}");
        }
        let read = side.outcome();
        assert!(
            read.contains("end 1, stable 0"),
            "{}: {read}",
            side.address()
        );
        let mut java = peers::java();
        java.arg("org.apache.kafka.tools.TransactionsCommand")
            .args(["--bootstrap-server", side.address(), "abort"])
            .args(["--topic", &side.topic(), "--partition", "0"])
            .args(["--start-offset", "0"]);
        peers::output_of(&mut java);
        let read = side.outcome();
        assert!(
            read.contains("end 2, stable 2"),
            "{}: {read}",
            side.address()
        );
    }
    served.stop();
}

/// The answers to a group's positions, and to its addition, under an epoch that is no longer the transaction's, version by
/// version: a newer producer took the id over (`is_replaced`), or the transaction ran into its timeout.
fn positions_under_an_earlier_epoch(side: &mut Side, is_replaced: bool) -> [Vec<String>; 2] {
    let (slot, group) = (IDEMPOTENT, 0);
    let init = Ask::InitProducer {
        slot,
        timeout_ms: if is_replaced { 60_000 } else { 1000 },
        current: None,
    };
    let add = |epoch| Ask::AddOffsets { slot, group, epoch };
    let nothing = Round {
        settings: Vec::new(),
        steps: Vec::new(),
    };
    side.begin(
        &nothing,
        &format!("-earlier-{is_replaced}-{}", std::process::id()),
    );
    let mut run = |version, ask| side.run(&Step { version, ask });
    run(3, init.clone());
    assert_eq!(run(2, add(0)), "ok\n");
    if is_replaced {
        run(3, init);
        assert_eq!(run(2, add(0)), "ok\n");
    } else {
        let deadline = Instant::now() + PATIENCE;
        while !run(0, Ask::DescribeTransaction { slot }).contains("CompleteAbort") {
            assert!(Instant::now() < deadline, "the timeout does not end it");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let epoch = if is_replaced { -1 } else { 0 };
    let commit = Ask::TxnOffsets {
        slot,
        group,
        epoch,
        partition: 0,
        offset: 1,
    };
    let committed = (0..=5).map(|version| run(version, commit.clone()));
    let committed = committed.collect();
    [
        committed,
        (0..=4).map(|version| run(version, add(epoch))).collect(),
    ]
}

#[test]
fn x15_positions_under_an_earlier_epoch_are_answered_as_kafka_answers_them() {
    if !world::has_kafka() {
        return;
    }
    let served = Served::start();
    let of_both = |is_replaced| {
        sides(&served).map(|mut side| positions_under_an_earlier_epoch(&mut side, is_replaced))
    };
    let [kafka, ours] = of_both(true);
    assert_eq!(kafka, ours);
    let [[kafka, _], [ours, added]] = of_both(false);
    let final_code = "InvalidProducerEpoch\n";
    assert_eq!(kafka, [final_code; 6]);
    // Older clients know no code that would make them abort; the others get the one that is not final.
    let not_final = "TransactionAbortable\n";
    assert_eq!(ours[..4], [final_code; 4]);
    assert_eq!(ours[4..], [not_final; 2]);
    // Clients abort and go on after this one, but not after `ProducerFenced`, which Kafka says.
    assert_eq!(added, ["InvalidProducerEpoch\n"; 5]);
    served.stop();
}
