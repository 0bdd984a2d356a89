//! Records as they lie in the log, and what came of one: told by the command, and compared with what the job was made to do.

use std::time::Duration;

use onceflow::broker::BrokerConfig;
use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset};
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::{CommittedOffset, GroupMember, TransactionalWriter, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::prelude::*;
use onceflow::testing::Env;
use onceflow::types::{Durability, GroupId, Offset, TopicName, TopicPartition, TransactionalId};
use serde_json::{Value, json};

use super::{Cli, onceflow};
use crate::support::peers;
use crate::time::scaled_kafka::{cluster, until_led};

const LINES: i64 = 40;
/// The looks after which markers are given up.
const ATTEMPTS_MAX: u32 = 60;

fn name(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

/// The log of the command's directory, in this process.
fn open(cli: &Cli) -> Log {
    let config = BrokerConfig {
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    Log::in_env(Env::real(), &cli.data(), config).unwrap()
}

/// Counts words that come one by one, each in a transaction of its own: the n-th line is at offset n.
fn count_one_by_one(log: &Log) {
    let lines = name("lines");
    let job = Job::new("count");
    job.source(topic::<str>("lines"))
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    let launch = job.exactly_once(Commit::every(Duration::from_millis(2)));
    let running = launch.start(log).unwrap();
    let producer =
        Producer::<str, str>::new(log.transport(), log.producer_config().unwrap()).unwrap();
    let query = running.query();
    for n in 0..LINES {
        let word = format!("word-{n}");
        let record = ProducerRecord::new(&lines).value(&*word).partition(0);
        let sent = wait(async { producer.send(record).await?.await }).unwrap();
        assert_eq!(sent.offset, Some(Offset(n)));
        wait(query.processed(&sent.partition, Offset(n))).unwrap();
    }
    wait(running.stop()).unwrap();
}

fn parts<'a>(told: &'a Value, role: &str) -> Vec<&'a Value> {
    let parts = told["wrote"].as_array().unwrap().iter();
    parts.filter(|part| part["role"] == role).collect()
}

/// Checks what came of the n-th line: its word, once, in the results and in the state, and one step of the position.
fn assert_came_of(told: &Value, n: i64) {
    let word = format!("word-{n}");
    assert_eq!(told["record"]["value"]["decoded"], word, "{told}");
    let [position] = &told["positions"].as_array().unwrap()[..] else {
        panic!("{told}");
    };
    assert_eq!(position["topic"], "lines");
    assert_eq!(
        (&position["partition"], &position["to"]),
        (&json!(0), &json!(n + 1))
    );
    // On Kafka a job commits where it begins.
    let is_first = n == 0 && position["from"].is_null();
    assert!(is_first || position["from"] == n, "{told}");
    assert_eq!(told["not_searched"], json!([]));
    for role in ["output", "state"] {
        let parts = parts(told, role);
        let [part] = &parts[..] else {
            panic!("{role}: {told}");
        };
        assert_eq!(
            (&part["count"], &part["is_whole"]),
            (&json!(1), &json!(true)),
            "{part}"
        );
        assert_eq!(part["marker"]["kind"], "commit");
        let record = &part["records"][0];
        assert_eq!(record["key"]["decoded"], word, "{part}");
        assert_eq!(record["value"]["decoded"], "1");
        assert_eq!(record["offset"], part["first_offset"]);
        assert_eq!(record["producer_id"], told["transaction"]["producer_id"]);
    }
    assert_eq!(parts(told, "output")[0]["topic"], "word-counts");
    assert_eq!(parts(told, "state")[0]["of"], "counts");
}

fn follow(cli: &Cli, n: i64) -> Value {
    let line = format!("records follow lines --offset {n} --job count --output json");
    serde_json::from_str(&cli.ok(&line)).unwrap()
}

#[test]
fn a_record_is_followed_to_what_its_transaction_wrote_and_to_nothing_else() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    let log = open(&cli);
    count_one_by_one(&log);
    drop(log);
    let mut epochs = Vec::new();
    for n in 0..LINES {
        let told = follow(&cli, n);
        assert_came_of(&told, n);
        epochs.push(told["transaction"].to_string());
    }
    let count = epochs.len();
    epochs.sort();
    epochs.dedup();
    assert_eq!(
        epochs.len(),
        count,
        "each line had a transaction of its own"
    );
    let table = cli.ok("records follow lines --offset 7 --job count");
    for said in [
        "count consumed offset 7 of lines-0",
        "state changes of counts",
        "output: word-counts-",
        "word-7",
    ] {
        assert!(table.contains(said), "{said}: {table}");
    }
    let narrow =
        cli.ok("records follow lines --offset 7 --job count --topic word-counts --output json");
    let narrow: Value = serde_json::from_str(&narrow).unwrap();
    assert_eq!(narrow["wrote"].as_array().unwrap().len(), 1);
}

/// A reader that commits its position by itself.
fn commit_without_transaction(log: &Log, place: TopicPartition) {
    let config = ConsumerConfig::default()
        .group_id(GroupId::new("reader").unwrap())
        .auto_offset_reset(OffsetReset::Earliest);
    let mut reader: Consumer<str, str> = Consumer::new(log.transport(), config);
    reader.assign([place]);
    assert!(
        !wait(reader.poll(Duration::from_secs(10)))
            .unwrap()
            .is_empty()
    );
    wait(reader.commit()).unwrap();
}

#[test]
fn what_cannot_be_followed_is_refused_with_the_reason() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    let log = open(&cli);
    count_one_by_one(&log);
    let place = TopicPartition::new(name("lines"), 0);
    wait(log.admin().delete_records(&place, Offset(5))).unwrap();
    commit_without_transaction(&log, place);
    drop(log);
    cli.ok_with_input("produce lines", b"later\n");
    for (line, said) in [
        (
            "follow none --offset 0 --job count",
            "there is no topic none",
        ),
        (
            "follow lines --offset 0 --partition 3 --job count",
            "its partitions are 0 to 0",
        ),
        (
            "follow lines --offset 4 --job count",
            "offset 4 of lines-0 was deleted",
        ),
        ("follow lines --offset 41 --job count", "is not written yet"),
        (
            "follow lines --offset 40 --job count",
            "has not committed offset 40 of lines-0 yet: its position is 40",
        ),
        (
            "follow lines --offset 7 --job nobody",
            "nobody has committed no position in lines-0",
        ),
        (
            "follow lines --offset 7 --job count --topic gone",
            "there is no topic gone",
        ),
        ("browse none", "there is no topic none"),
        ("browse lines --from 4", "offset 4 of lines-0 was deleted"),
        ("browse lines --from 41", "ends before 41"),
        ("browse lines --partition 1", "its partitions are 0 to 0"),
    ] {
        let message = cli.fails(&format!("records {line}"));
        assert!(message.contains(said), "{line}: {message}");
    }
    for line in [
        "records browse lines --max 0",
        "records follow lines --offset x --job count",
        "records follow lines --job count",
    ] {
        let done = cli.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(done.code, 2, "{line}: {done:?}");
    }
    let plain = cli.ok("records follow lines --offset 7 --job reader --output json");
    let plain: Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(
        (&plain["transaction"], &plain["wrote"]),
        (&Value::Null, &json!([]))
    );
    assert!(
        plain["untold"]
            .as_str()
            .unwrap()
            .contains("without a transaction"),
        "{plain}"
    );
}

#[test]
fn a_record_of_an_open_transaction_is_not_followed() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    cli.ok_with_input("produce lines", b"a\nb\n");
    let log = open(&cli);
    let config = ProducerConfig::default().transactional_id(TransactionalId::new("mover").unwrap());
    let producer = Producer::<str, str>::new(log.transport(), config).unwrap();
    let position = CommittedOffset {
        offset: Offset(2),
        leader_epoch: -1,
        metadata: String::new(),
    };
    let place = TopicPartition::new(name("lines"), 0);
    wait(async {
        producer.init_transactions().await?;
        producer.begin_transaction()?;
        let group = GroupId::new("movers").unwrap();
        producer
            .send_offsets(group, GroupMember::default(), vec![(place, position)])
            .await
    })
    .unwrap();
    let served = log.listen("127.0.0.1:0").unwrap();
    let place = format!("kafka://{}", served.address());
    let follow = [
        "records", "follow", "lines", "--offset", "1", "--job", "movers", "--log", &place,
    ];
    let done = super::finish(onceflow(&follow), b"");
    // Over the network nobody is told of pending positions: it is the committed one that is missing.
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.err
            .contains("movers has committed no position in lines-0"),
        "{done:?}"
    );
    let outcome = wait(producer.commit_transaction()).unwrap();
    assert_eq!(outcome, onceflow::client::CommitOutcome::Committed);
    let done = super::finish(onceflow(&follow), b"");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("in the transaction of mover"), "{done:?}");
}

fn writer(log: &Log, id: &str) -> TransactionalWriter {
    let id = TransactionalId::new(id).unwrap();
    let timeout = Duration::from_secs(600);
    wait(TransactionalWriter::init(log.transport(), id, timeout)).unwrap()
}

fn append(writer: &TransactionalWriter, value: &[u8]) {
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.push(onceflow::types::Timestamp(7), Some(b"key"), Some(value));
    let place = TopicPartition::new(name("lines"), 0);
    writer.partition(&place).append(&mut batch).unwrap();
}

/// The kind of each row, the fate of its transaction, and whether readers are shown it.
fn fates(page: &Value) -> Vec<(Value, Value, Value)> {
    let fate = |row: &Value| {
        let part = |name: &str| row[name].clone();
        (part("kind"), part("transaction"), part("is_visible"))
    };
    page["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(fate)
        .collect()
}

#[test]
fn a_page_shows_what_readers_are_not_shown() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    cli.ok_with_input("produce lines", b"plain\n");
    let log = open(&cli);
    let (kept, dropped, open) = (
        writer(&log, "kept"),
        writer(&log, "dropped"),
        writer(&log, "open"),
    );
    append(&kept, b"\x03tea");
    append(&dropped, b"\xff\xfe");
    let _ = wait(dropped.abort()).unwrap();
    let _ = wait(kept.commit()).unwrap();
    append(&open, b"nobody sees it yet");
    let served = log.listen("127.0.0.1:0").unwrap();
    let place = format!("kafka://{}", served.address());
    let browse = |more: &[&str]| {
        let line = [
            &[
                "records", "browse", "lines", "--log", &place, "--output", "json",
            ],
            more,
        ]
        .concat();
        let done = super::finish(onceflow(&line), b"");
        assert_eq!(done.code, 0, "{done:?}");
        serde_json::from_str::<Value>(&done.out).unwrap()
    };
    let page = browse(&[]);
    let rows = fates(&page);
    let row = |kind: &str, transaction: &str, is_visible: bool| {
        (json!(kind), json!(transaction), json!(is_visible))
    };
    assert_eq!(
        rows,
        [
            row("record", "none", true),
            row("record", "committed", true),
            row("record", "aborted", false),
            row("marker", "none", false),
            row("marker", "none", false),
            row("record", "open", false),
        ]
    );
    assert_eq!(
        (&page["last_stable_offset"], &page["high_watermark"]),
        (&json!(5), &json!(6))
    );
    assert_eq!(
        page["records"][1]["value"]["format"],
        "text behind its length"
    );
    assert_eq!(page["records"][1]["value"]["decoded"], "tea");
    assert_eq!(page["records"][2]["value"]["decoded"], Value::Null);
    assert_eq!(page["records"][2]["value"]["hex"], "0xfffe");
    assert_eq!(
        (&page["records"][3]["marker"], &page["records"][4]["marker"]),
        (&json!("abort"), &json!("commit"))
    );
    assert_eq!(page["next"], Value::Null);
    let page = browse(&["--from", "1", "--max", "2"]);
    let (first, second) = (&page["records"][0]["offset"], &page["records"][1]["offset"]);
    assert_eq!(
        (first, second, &page["next"]),
        (&json!(1), &json!(2), &json!(3))
    );
    let last = browse(&["--from", "-1"]);
    assert_eq!(last["records"][0]["value"]["text"], "nobody sees it yet");
}

#[test]
fn on_kafka_a_record_is_followed_by_the_same_command() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    // A cluster of its own: the job has a name that others use, too.
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let settings = KafkaSettings::new(&cluster.bootstrap())
        .and_then(|it| it.with("state.dir", &folder.path().display().to_string()));
    let log = Log::kafka_with(settings.unwrap()).unwrap();
    wait(log.admin().create_topic(&name("lines"), 1)).unwrap();
    until_led(&log, "lines", 1);
    count_one_by_one(&log);
    let place = format!("kafka://{}", cluster.bootstrap());
    for n in [0, 1, 17, LINES - 1] {
        let offset = n.to_string();
        let line = [
            "records", "follow", "lines", "--job", "count", "--output", "json", "--log", &place,
            "--offset", &offset,
        ];
        let mut told = Value::Null;
        // Kafka writes markers after it has said that a transaction is committed.
        for attempt in 0.. {
            let done = super::finish(onceflow(&line), b"");
            told = serde_json::from_str(&done.out).unwrap_or_default();
            let parts = told["wrote"].as_array();
            if parts.is_some_and(|parts| parts.iter().all(|part| part["is_whole"] == true)) {
                break;
            }
            assert!(attempt < ATTEMPTS_MAX, "{n}: {done:?}");
        }
        assert_came_of(&told, n);
    }
}
