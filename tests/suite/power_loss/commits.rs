//! The commit protocol of a broker through every power loss: transactions are all there or not at all.

use std::time::Duration;

use onceflow::broker::{Broker, BrokerError};
use onceflow::internals::protocol::messages::TransactionResult;
use onceflow::testing::{PowerLoss, Recording, Replay, SimulatedWorld};
use onceflow::types::{Offset, TopicName, TopicPartition};

use super::driver::{
    CHANGELOG, Transactor, View, assert_settled, commit_plainly, create_topic, is_refused, open,
    partition, produce_plain, read_partition,
};
use super::{ALL_MODES, Met, at_every_change, at_every_state};
use crate::support::records::Seen;

/// Change that a call made for readers, once it was answered.
#[derive(Debug, Clone)]
enum Effect {
    /// Nothing that readers see.
    None,
    Topic {
        name: String,
        partitions_count: i32,
    },
    NoTopic {
        name: String,
    },
    Transaction {
        records: Vec<(TopicPartition, Vec<Seen>)>,
        positions: Vec<(TopicPartition, i64)>,
    },
    Record(TopicPartition, Seen),
    Position(TopicPartition, i64),
    RecordsDeleted {
        partition: TopicPartition,
        before: Offset,
    },
}

impl Effect {
    fn apply(&self, view: &mut View) {
        match self {
            Self::None => {}
            Self::Topic {
                name,
                partitions_count,
            } => {
                view.topics.insert(name.clone(), *partitions_count);
            }
            Self::NoTopic { name } => {
                view.topics.remove(name);
                view.records
                    .retain(|partition, _| partition.topic.as_str() != name);
                view.positions
                    .retain(|partition, _| partition.topic.as_str() != name);
            }
            Self::Transaction { records, positions } => {
                for (partition, seen) in records {
                    view.insert(partition, seen);
                }
                view.positions.extend(positions.iter().cloned());
            }
            Self::Record(partition, seen) => view.insert(partition, std::slice::from_ref(seen)),
            Self::Position(partition, offset) => {
                view.positions.insert(partition.clone(), *offset);
            }
            Self::RecordsDeleted { partition, before } => {
                if let Some(records) = view.records.get_mut(partition) {
                    records.retain(|seen| seen.offset >= *before);
                }
                view.records.retain(|_, records| !records.is_empty());
            }
        }
    }
}

/// A call: before `asked_at` changes it had done nothing, after `told_at` it was acknowledged.
struct Noted {
    asked_at: usize,
    told_at: usize,
    effect: Effect,
}

/// A recorded run of the commit protocol, and what it was told when.
struct Script {
    recording: Recording,
    noted: Vec<Noted>,
}

impl Script {
    /// Returns the views after so many changes: the first is certain, the second is what readers see if the call that
    /// was under way had its effect.
    fn expected(&self, changes_count: usize) -> (View, View) {
        let mut certain = View::default();
        for noted in self
            .noted
            .iter()
            .filter(|noted| noted.told_at <= changes_count)
        {
            noted.effect.apply(&mut certain);
        }
        let mut possible = certain.clone();
        let is_under_way =
            |noted: &&Noted| noted.asked_at < changes_count && changes_count < noted.told_at;
        let mut under_way = self.noted.iter().filter(is_under_way);
        if let Some(noted) = under_way.next() {
            noted.effect.apply(&mut possible);
        }
        assert!(
            under_way.next().is_none(),
            "the script makes one call at a time"
        );
        (certain, possible)
    }

    /// After how many calls what readers must see stands, and whether one more is under way: where two moments
    /// agree in this, so does [`Script::expected`].
    fn progress(&self, changes_count: usize) -> (usize, bool) {
        let told = self.noted.iter().filter(|it| it.told_at <= changes_count);
        let mut pending = self.noted.iter().filter(|it| it.told_at > changes_count);
        let is_under_way = pending.any(|it| it.asked_at < changes_count);
        (told.count(), is_under_way)
    }
}

/// Runs the script, and notes what it is told.
struct Runner {
    world: SimulatedWorld,
    broker: Broker,
    noted: Vec<Noted>,
}

/// Time until every open transaction is over its own.
const LONGER_THAN_A_TRANSACTION: Duration = Duration::from_secs(61);

/// A transaction that is not ended yet.
struct Open {
    transactor: Transactor,
    records: Vec<(TopicPartition, Vec<Seen>)>,
    positions: Vec<(TopicPartition, i64)>,
}

impl Open {
    fn new(transactor: Transactor) -> Self {
        Self {
            transactor,
            records: Vec::new(),
            positions: Vec::new(),
        }
    }

    fn produce(&mut self, broker: &Broker, partition: &TopicPartition, values: &[String]) {
        let seen = self.transactor.produce(broker, partition, values).unwrap();
        self.records.push((partition.clone(), seen));
    }

    fn send_offset(&mut self, broker: &Broker, partition: &TopicPartition, offset: i64) {
        self.transactor
            .send_offset(broker, partition, offset)
            .unwrap();
        self.positions.push((partition.clone(), offset));
    }
}

impl Runner {
    fn note<T>(
        &mut self,
        call: impl FnOnce(&Broker) -> Result<T, BrokerError>,
        effect: impl FnOnce(&T) -> Effect,
    ) -> T {
        let asked_at = self.world.changes_count();
        let result = call(&self.broker).unwrap();
        self.noted.push(Noted {
            asked_at,
            told_at: self.world.changes_count(),
            effect: effect(&result),
        });
        result
    }

    fn create_topic(&mut self, name: &str, partitions_count: i32) {
        let effect = Effect::Topic {
            name: name.to_owned(),
            partitions_count,
        };
        self.note(
            |broker| create_topic(broker, name, partitions_count),
            |()| effect,
        );
    }

    fn end(&mut self, open: &mut Open, result: TransactionResult) {
        let records = std::mem::take(&mut open.records);
        let positions = std::mem::take(&mut open.positions);
        let effect = match result {
            TransactionResult::Commit => Effect::Transaction { records, positions },
            TransactionResult::Abort => Effect::None,
        };
        self.note(|broker| open.transactor.end(broker, result), |()| effect);
    }

    fn plain(&mut self, partition: &TopicPartition, value: &str) {
        self.note(
            |broker| produce_plain(broker, partition, value),
            |seen| Effect::Record(partition.clone(), seen.clone()),
        );
    }

    /// Two transactions side by side, over two topics, with positions and records outside them.
    fn round(&mut self, round: usize, a: &mut Open, b: &mut Open) {
        let (orders, totals) = (partition("orders", 0), partition("totals", 1));
        let value = |name: &str| format!("{name}{round}.{}", "v".repeat(round * 20));
        a.produce(&self.broker, &orders, &[value("a"), value("aa")]);
        b.produce(&self.broker, &orders, &[value("b")]);
        a.produce(&self.broker, &totals, &[value("a")]);
        let position = i64::try_from(round).unwrap();
        a.send_offset(&self.broker, &partition("input", 0), 10 + position);
        b.produce(
            &self.broker,
            &partition("orders", 1),
            &[value("b"), value("bb"), value("bbb")],
        );
        b.send_offset(&self.broker, &partition("input", 1), 100 + position);
        let changelog = partition(CHANGELOG, 0);
        let change = |key: &str| format!("{key}={}", value("s"));
        a.produce(&self.broker, &changelog, &[change("one"), change("all")]);
        b.produce(&self.broker, &changelog, &[change("two"), change("all")]);
        self.plain(&totals, &value("plain"));
        let (commit, abort) = (TransactionResult::Commit, TransactionResult::Abort);
        self.end(a, if round % 3 == 1 { abort } else { commit });
        a.produce(&self.broker, &partition("totals", 0), &[value("next")]);
        self.end(b, if round % 3 == 2 { abort } else { commit });
        self.end(a, commit);
    }

    fn administer(&mut self, round: usize) {
        match round {
            0 => self.create_topic("scratch", 1),
            1 => {
                self.plain(&partition("scratch", 0), "soon gone");
                let effect = Effect::Topic {
                    name: "scratch".to_owned(),
                    partitions_count: 3,
                };
                let scratch = TopicName::new("scratch").unwrap();
                self.note(|broker| broker.create_partitions(&scratch, 3), |()| effect);
            }
            _ => {
                let scratch = TopicName::new("scratch").unwrap();
                let name = "scratch".to_owned();
                self.note(
                    |broker| broker.delete_topic(&scratch),
                    |()| Effect::NoTopic { name },
                );
                let orders = partition("orders", 0);
                let before = Offset(5);
                let effect = Effect::RecordsDeleted {
                    partition: orders.clone(),
                    before,
                };
                self.note(|broker| broker.delete_records(&orders, before), |_| effect);
                let input = partition("input", 2);
                let effect = Effect::Position(input.clone(), 7);
                self.note(|broker| commit_plainly(broker, &input, 7), |()| effect);
                self.compact();
            }
        }
    }

    /// Housekeeping, which must find superseded changes to leave out.
    fn compact(&self) {
        let changes = || read_partition(&self.broker, &partition(CHANGELOG, 0)).len();
        let before = changes();
        self.broker.housekeep();
        assert!(changes() < before, "the changelog was to be compacted");
    }

    /// A transaction is left open for too long: it is aborted, and its end comes too late.
    fn expire(&self, open: &mut Open) {
        open.produce(&self.broker, &partition("orders", 0), &["late".to_owned()]);
        open.send_offset(&self.broker, &partition("input", 0), 998);
        self.world.advance(LONGER_THAN_A_TRANSACTION);
        self.broker.housekeep();
        let ended = open.transactor.end(&self.broker, TransactionResult::Commit);
        assert!(ended.is_err(), "it was aborted by then");
    }
}

/// Two topics of two partitions and a changelog; two transactional producers whose transactions overlap,
/// commits, aborts and one that expires; positions; topics that come and go; segments that roll;
/// compaction and the rest of housekeeping; an orderly close with a restart; a transaction left open at the end.
fn run_script() -> Script {
    let world = SimulatedWorld::new(11);
    world.start_recording();
    let broker = open(&world).unwrap();
    let mut runner = Runner {
        world: world.clone(),
        broker,
        noted: Vec::new(),
    };
    runner.create_topic("orders", 2);
    runner.create_topic("totals", 2);
    runner.create_topic(CHANGELOG, 1);
    let init = |broker: &Broker, id: &str| Open::new(Transactor::init(broker, id).unwrap());
    let (mut a, mut b) = (init(&runner.broker, "a"), init(&runner.broker, "b"));
    for round in 0..3 {
        runner.administer(round);
        runner.round(round, &mut a, &mut b);
    }
    runner.expire(&mut init(&runner.broker, "c"));
    runner.broker.close().unwrap();
    runner.broker = open(&world).unwrap();
    // An identity from before the restart is good for nothing any more; its successor goes on.
    let orders = partition("orders", 0);
    assert!(is_refused(&runner.broker, &mut a.transactor, &orders));
    let (mut a, mut b) = (init(&runner.broker, "a"), init(&runner.broker, "b"));
    runner.round(3, &mut a, &mut b);
    let mut successor = init(&runner.broker, "b");
    assert!(is_refused(&runner.broker, &mut b.transactor, &orders));
    successor.produce(
        &runner.broker,
        &partition("orders", 1),
        &["left open".to_owned()],
    );
    successor.send_offset(&runner.broker, &partition("input", 1), 999);
    drop(runner.broker);
    Script {
        recording: world.stop_recording().unwrap(),
        noted: runner.noted,
    }
}

/// Checks that the rest opens, shows exactly what it must, and goes on. Going on is tried once for each disk that a recovery
/// leaves, which is seldom a new one: `recovered` knows them.
fn check(script: &Script, replay: &Replay<'_>, loss: PowerLoss, recovered: &Met<(usize, bool)>) {
    let world = replay.after_power_loss(loss);
    let broker = open(&world).unwrap();
    let view = check_view(script, &broker, replay.done_count());
    let durable = without_what_is_pending(&world);
    if !recovered.is_new(&[&world, &durable], script.progress(replay.done_count())) {
        return;
    }
    let expected = go_on(&broker, view);
    assert_eq!(View::read(&broker), expected);
    drop(broker);
    // What was just told is durable too, and so is everything that the recovery relied on.
    let broker = open(&world.after_power_loss(PowerLoss::STRICT)).unwrap();
    assert_eq!(View::read(&broker), expected, "after one more power loss");
    assert_settled(&broker);
}

/// Copies what a power loss would surely leave of the world's disk; the world goes on.
fn without_what_is_pending(world: &SimulatedWorld) -> SimulatedWorld {
    world.start_recording();
    let recording = world.stop_recording().unwrap();
    recording.replay().after_power_loss(PowerLoss::STRICT)
}

/// Checks what readers see, and returns it.
fn check_view(script: &Script, broker: &Broker, changes_count: usize) -> View {
    assert_settled(broker);
    let view = View::read(broker);
    let (certain, possible) = script.expected(changes_count);
    if view != possible {
        assert_eq!(view, certain);
    }
    view
}

/// Both producers come back, and finish a transaction each; returns what readers must see then.
fn go_on(broker: &Broker, mut view: View) -> View {
    for (id, result) in [
        ("a", TransactionResult::Commit),
        ("b", TransactionResult::Abort),
    ] {
        let mut transactor = Transactor::init(broker, id).unwrap();
        let names: Vec<String> = view.topics.keys().cloned().collect();
        let mut records = Vec::new();
        for name in names {
            let partition = partition(&name, 0);
            let seen = transactor.produce(broker, &partition, &["more=1"]).unwrap();
            records.push((partition, seen));
        }
        let input = partition("input", 0);
        transactor.send_offset(broker, &input, 5000).unwrap();
        transactor.end(broker, result).unwrap();
        if result == TransactionResult::Commit {
            let positions = vec![(input, 5000)];
            Effect::Transaction { records, positions }.apply(&mut view);
        }
    }
    view
}

#[test]
fn c1_c2_c3_c4_c5_c6_c7_c8_c10_transactions_survive_power_loss_at_every_change() {
    let script = run_script();
    let progress = |changes_count| script.progress(changes_count);
    let recovered = Met::new();
    at_every_state(&script.recording, progress, |replay, loss| {
        check(&script, replay, loss, &recovered);
    });
    println!("{} different disks after recovery", recovered.count());
}

/// Opens the broker of `world` up to five times, each time losing power again somewhere on the way.
fn interrupt_opening(mut world: SimulatedWorld, seed: u64) -> SimulatedWorld {
    for attempt in 0..5 {
        world.start_recording();
        drop(open(&world).unwrap());
        let recording = world.stop_recording().unwrap();
        let steps_count = (seed + attempt * 7) % (recording.changes_count() as u64 + 1);
        let mut replay = recording.replay();
        for _ in 0..steps_count {
            assert!(replay.step());
        }
        let nth = usize::try_from((seed * 11 + attempt * 5) % ALL_MODES as u64).unwrap();
        let mut modes = PowerLoss::every_mode(seed ^ attempt);
        world = replay.after_power_loss(modes.nth(nth).unwrap());
    }
    world
}

#[test]
fn c9_power_lost_again_while_the_broker_opens_changes_nothing() {
    let script = run_script();
    at_every_change(&script.recording, 1, |replay, loss| {
        let seed = replay.done_count() as u64 * 3;
        let world = interrupt_opening(replay.after_power_loss(loss), seed);
        let broker = open(&world).unwrap();
        check_view(&script, &broker, replay.done_count());
    });
}

#[test]
fn a_killed_process_loses_nothing_that_it_was_told() {
    let script = run_script();
    let mut replay = script.recording.replay();
    loop {
        let broker = open(&replay.after_kill()).unwrap();
        check_view(&script, &broker, replay.done_count());
        if !replay.step() {
            break;
        }
    }
}

#[test]
fn the_script_runs_the_same_way_twice() {
    let (one, other) = (run_script(), run_script());
    assert_eq!(
        one.recording.changes_count(),
        other.recording.changes_count()
    );
    let told = |script: &Script| {
        script
            .noted
            .iter()
            .map(|noted| noted.told_at)
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&one), told(&other));
}
