//! A job with windows, sessions, timers of event time and of the wall clock, an interval join, a join of tables, calls of the world
//! outside, and effects on it; and all that it gives, by the definition.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use onceflow::broker::{BrokerConfig, BrokerError};
use onceflow::client::wait;
use onceflow::internals::env::Env;
use onceflow::internals::protocol::batch::BatchProducer;
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::prelude::*;
use onceflow::runtime::{Due, Headers, Launch, Meta, Origin, Upstream};
use onceflow::types::{Durability, Timestamp, TopicName, TopicPartition};

use super::support::{
    Click, PerWindow, late_of, left_in_store, ms, parse, results_of, topic_of_clicks,
};
use super::timers::{ABSENT_AFTER, Absent};
use crate::jobs::support::{Seen, committed, committed_by_key, run, until};
use crate::support::records::batch_at;

/// Most that clicks are behind the newest, unless they are late.
const DISORDER: i64 = 20;
const LENGTH: i64 = 50;
const GAP: i64 = 12;
const GRACE: i64 = 5;
/// Most between the times of two clicks of a user that belong together.
const NEAR: i64 = 6;
/// More than any click is late by: pairs leave none out.
const GRACE_OF_PAIRS: i64 = 100;
/// Rings of an alarm.
const RINGS: u64 = 3;
/// A timer that is cancelled before its time.
const FAR: Timestamp = Timestamp(4_102_444_800_000);

/// Rings three times for each key, by the wall clock, and cancels a timer that is far away.
struct Alarm {
    store: TimedStore<u64>,
    now: Timestamp,
    due: Due,
}

impl Operator<u64, u64> for Alarm {
    type OutKey = u64;
    type Out = u64;
    const KEEPS_KEY: bool = true;
    const USES_CLOCK: bool = true;

    fn process(&mut self, record: Record<'_, u64, u64>, _out: &mut impl Output<u64, u64>) -> Flow {
        self.store.set_timer(record.key, FAR)?;
        self.store.set_timer(record.key, self.now.plus_millis(15))
    }

    fn on_clock(&mut self, now: Timestamp, out: &mut impl Output<u64, u64>) -> Flow {
        self.now = now;
        while self.store.next_due(now, &mut self.due)?.is_some() {
            let key = self.due.key::<u64>();
            let rung = self.store.update(key, |rung| {
                let next = rung.unwrap_or(0) + 1;
                *rung = Some(next).filter(|next| *next < RINGS);
                next
            })?;
            if rung < RINGS {
                self.store
                    .set_timer(self.due.key::<u64>(), now.plus_millis(15))?;
            } else {
                assert!(self.store.cancel_timer(self.due.key::<u64>(), FAR)?);
            }
            out.push(Record {
                key: self.due.key(),
                value: &rung,
                meta: Meta {
                    timestamp: self.due.time,
                    origin: Origin::TIME,
                },
                headers: Headers::NONE,
            })?;
        }
        Ok(())
    }
}

/// Whether nobody can be told of a click.
fn is_undeliverable(time: i64) -> bool {
    time % 3 == 0
}

/// Asks about each click, tells somebody of it, pairs even with odd ones that are near, and keeps a joined table of how many there are.
fn asked_paired_and_joined(clicks: Keyed<String, Click, impl Upstream<String, Click>>) {
    let clicks = clicks.partitioned("by-user");
    let (asked, clicks) = clicks.tee();
    let call = |call: Call<String, Click>| async move {
        let (_, time) = call.value;
        tokio::time::sleep(ms(time.rem_euclid(7).unsigned_abs())).await;
        Ok::<_, String>(time)
    };
    let (answers, _) = asked.map_async("asked", CallPolicy::ordered(40), call);
    answers.sink(topic("answers"));
    let (told, clicks) = clicks.tee();
    let target = |effect: Effect<String, Click>| async move {
        tokio::time::sleep(ms(effect.value.1.rem_euclid(5).unsigned_abs())).await;
        match is_undeliverable(effect.value.1) {
            true => Delivery::never("nobody is there"),
            false => Delivery::Done,
        }
    };
    told.effect("told", EffectPolicy::parallel(20), target)
        .map(|(_, time): &Click| *time)
        .sink(topic("undeliverable"));
    let (paired, counted) = clicks.tee();
    let (even, odd) = paired.map(|(_, time): &Click| *time).tee();
    let (even, odd) = (
        even.filter(|time| time % 2 == 0),
        odd.filter(|time| time % 2 != 0),
    );
    let near = ms(NEAR.unsigned_abs());
    even.join("pairs", odd)
        .within(near, near)
        .grace(ms(GRACE_OF_PAIRS.unsigned_abs()))
        .left(|even, odd| (*even, odd.copied()))
        .sink(topic("pairs"));
    let (all, odd) = counted.map(|(_, time): &Click| *time).tee();
    let odd = odd.filter(|time| time % 2 != 0).count("odd");
    all.count("all")
        .left_join("both", odd, |all, odd| (*all, odd.copied().unwrap_or(0)))
        .changes()
        .sink(topic("both"));
}

/// The job, which goes on after the end of its input, or not.
pub(super) fn launch(is_endless: bool) -> Launch {
    let job = Job::new("everything");
    let source = |name: &str| {
        let source = topic::<str>(name);
        if is_endless {
            source
        } else {
            source.until_end()
        }
    };
    let clicks = job
        .source(source("in"))
        .try_map(parse)
        .event_time(
            |(_, time)| *time,
            Watermarks::out_of_order(ms(DISORDER.unsigned_abs())),
        )
        .key_by(|(user, _): &Click| user.clone());
    let (tumbling, clicks) = clicks.tee();
    let (sessions, clicks) = clicks.tee();
    let (absent, clicks) = clicks.tee();
    asked_paired_and_joined(clicks);
    let windows = FixedWindows::tumbling(ms(LENGTH.unsigned_abs()));
    let (tumbling, late) = tumbling.window(windows).late();
    late.sink(topic("late"));
    tumbling.count("tumbling").sink(topic("tumbling"));
    let windows = SessionWindows::gap(ms(GAP.unsigned_abs())).grace(ms(GRACE.unsigned_abs()));
    let (sessions, late) = sessions.window(windows).late();
    late.sink(topic("late-for-sessions"));
    sessions.count("sessions").sink(topic("sessions"));
    absent
        .with_timed_store::<i64>("last")
        .process("absent", |context| {
            Ok(Absent {
                store: context.timed_store("last")?,
                due: Due::default(),
            })
        })
        .sink(topic("absent"));
    job.source(source("keys"))
        .try_map(|text: &str| text.parse::<u64>())
        .key_by(|key| *key)
        .with_timed_store::<u64>("alarms")
        .process("alarm", |context| {
            Ok(Alarm {
                store: context.timed_store("alarms")?,
                now: Timestamp(0),
                due: Due::default(),
            })
        })
        .sink(topic("alarms"));
    job.exactly_once(Commit::every(ms(10)))
        .state_partitions(4)
        .changelog_tail_bytes_max(2_000)
}

/// A log that rolls segments and keeps house often.
pub(super) fn open(env: Env, data: &Path, durability: Durability) -> Result<Log, BrokerError> {
    let config = BrokerConfig {
        durability,
        housekeeping_interval: ms(20),
        topic_defaults: [("segment.bytes".to_owned(), "8000".to_owned())].into(),
        ballast_bytes: 8 << 10,
        ..BrokerConfig::default()
    };
    Log::in_env(env, data, config)
}

/// The input of the job, which is fed in parts.
pub(super) struct Input {
    state: u64,
    /// Whether some clicks come later than the job waits for.
    pub(super) has_late: bool,
    newest: i64,
    pub(super) clicks: Vec<Click>,
    keys: Vec<u64>,
    next_key: u64,
}

impl Input {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            has_late: true,
            newest: -500,
            clicks: Vec::new(),
            keys: Vec::new(),
            next_key: 0,
        }
    }

    /// More input for what the log has already.
    pub(super) fn behind(log: &Log, seed: u64) -> Self {
        let mut input = Self::new(seed);
        input.read_again(log);
        let newest = input.clicks.iter().map(|(_, time)| *time).max();
        input.newest = newest.unwrap_or(input.newest);
        input.next_key = input.keys.iter().max().map_or(0, |key| key + 1);
        input
    }

    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    fn click(&mut self) -> Click {
        self.newest += self.random(4).cast_signed();
        let behind = match self.random(10) {
            0 if self.has_late => DISORDER + 1 + self.random(40).cast_signed(),
            _ => self.random(DISORDER.unsigned_abs() + 1).cast_signed(),
        };
        let user = format!("user-{}", self.random(25));
        (user, self.newest - behind)
    }

    /// Appends clicks, and keys of new alarms; `false` if the log did not take them for certain.
    pub(super) fn feed(&mut self, log: &Log, clicks_count: usize, keys_count: u64) -> bool {
        let clicks: Vec<Click> = (0..clicks_count).map(|_| self.click()).collect();
        let lines: Vec<String> = clicks.iter().map(line).collect();
        let keys = self.next_key..self.next_key + keys_count;
        self.next_key = keys.end;
        let names: Vec<String> = keys.clone().map(|key| key.to_string()).collect();
        if !append(log, "in", &lines) || !append(log, "keys", &names) {
            return false;
        }
        self.clicks.extend(clicks);
        self.keys.extend(keys);
        true
    }

    /// Appends a click that is behind all windows, sessions and pairs of the others.
    pub(super) fn end(&mut self, log: &Log, user: &str) -> bool {
        let click = (user.to_owned(), self.newest + 10_000);
        let is_taken = append(log, "in", &[line(&click)]);
        self.clicks.push(click);
        is_taken
    }

    /// Takes note of what the log has of it: all that it took for certain, and maybe more.
    pub(super) fn read_again(&mut self, log: &Log) {
        let clicks = committed_lines(log, "in");
        let clicks: Vec<Click> = clicks.iter().map(|line| parse(line).unwrap()).collect();
        assert!(
            clicks.starts_with(&self.clicks),
            "acknowledged clicks are lost"
        );
        self.clicks = clicks;
        let keys = committed_lines(log, "keys");
        let keys: Vec<u64> = keys.iter().map(|line| line.parse().unwrap()).collect();
        assert!(keys.starts_with(&self.keys), "acknowledged keys are lost");
        self.keys = keys;
    }

    /// Appends all of it to another log, in the same order.
    pub(super) fn copy_to(&self, log: &Log) {
        let lines: Vec<String> = self.clicks.iter().map(line).collect();
        assert!(lines.chunks(100).all(|lines| append(log, "in", lines)));
        let names: Vec<String> = self.keys.iter().map(u64::to_string).collect();
        assert!(append(log, "keys", &names));
    }

    /// Counts its records.
    pub(super) fn records(&self) -> u64 {
        (self.clicks.len() + self.keys.len()) as u64
    }

    /// Counts the rings of all alarms.
    pub(super) fn rings(&self) -> usize {
        self.keys.len() * usize::try_from(RINGS).unwrap()
    }
}

/// The topics of the input, with one partition: the order of all clicks is known.
pub(super) fn create_topics(log: &Log) {
    topic_of_clicks(log, "in", 1);
    topic_of_clicks(log, "keys", 1);
}

fn committed_lines(log: &Log, topic: &str) -> Vec<String> {
    let text = |seen: &Seen| String::from_utf8(seen.value.clone().unwrap()).unwrap();
    committed(log, topic).iter().map(text).collect()
}

fn line((user, time): &Click) -> String {
    format!("{user} {time}")
}

fn append(log: &Log, topic: &str, lines: &[String]) -> bool {
    let records = || batch_at(log.env().clock.wall(), BatchProducer::Plain, lines).into();
    lines.is_empty()
        || wait(log.transport().produce(ProduceRequest {
            partition: TopicPartition::new(TopicName::new(topic).unwrap(), 0),
            records: records(),
            acks: Acks::All,
            transactional_id: None,
        }))
        .is_ok()
}

/// Output of the job once its input has ended.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Given {
    tumbling: PerWindow<u64>,
    late: Vec<Click>,
    sessions: PerWindow<u64>,
    late_for_sessions: Vec<Click>,
    absent: BTreeMap<String, Vec<i64>>,
    alarms: BTreeMap<u64, Vec<u64>>,
    answers: BTreeMap<String, Vec<i64>>,
    undeliverable: BTreeMap<String, Vec<i64>>,
    pairs: BTreeMap<String, Vec<(i64, Option<i64>)>>,
    both: BTreeMap<String, Vec<Option<(u64, u64)>>>,
}

impl Given {
    /// Of all clicks, one by one, with the time that stood before each of them.
    pub(super) fn expected(input: &Input) -> Self {
        let mut given = Self::default();
        let mut sessions = BTreeMap::<String, Vec<(i64, i64, u64)>>::new();
        let mut last = BTreeMap::<String, i64>::new();
        let mut watermark = i64::MIN;
        for (user, time) in &input.clicks {
            let start = time.div_euclid(LENGTH) * LENGTH;
            match start + LENGTH <= watermark {
                true => given.late.push((user.clone(), *time)),
                false => {
                    let window = (user.clone(), start, start + LENGTH);
                    *given.tumbling.entry(window).or_default() += 1;
                }
            }
            let open = sessions.entry(user.clone()).or_default();
            if !join(open, *time, watermark) {
                given.late_for_sessions.push((user.clone(), *time));
            }
            given.answers.entry(user.clone()).or_default().push(*time);
            if is_undeliverable(*time) {
                let undeliverable = given.undeliverable.entry(user.clone());
                undeliverable.or_default().push(*time);
            }
            given.count(user, *time);
            let last_click = last.entry(user.clone()).or_insert(*time);
            *last_click = (*last_click).max(*time);
            watermark = watermark.max(time - DISORDER);
            given.close(&mut sessions, &mut last, watermark);
        }
        given.close(&mut sessions, &mut last, i64::MAX);
        given.late.sort();
        given.late_for_sessions.sort();
        given.pair();
        let rings = |key: &u64| (*key, (1..=RINGS).collect());
        given.alarms = input.keys.iter().map(rings).collect();
        given
    }

    /// The table's changes by a click.
    fn count(&mut self, user: &str, time: i64) {
        let both = self.both.entry(user.to_owned()).or_default();
        let (all, odd) = both.last().copied().flatten().unwrap_or((0, 0));
        both.push(Some((all + 1, odd)));
        if time % 2 != 0 {
            both.push(Some((all + 1, odd + 1)));
        }
    }

    /// All that was answered, even with odd.
    fn pair(&mut self) {
        for (user, times) in &self.answers {
            let (even, odd): (Vec<i64>, Vec<i64>) = times.iter().partition(|time| *time % 2 == 0);
            let mut pairs = Vec::new();
            for even in even {
                let near = odd.iter().filter(|odd| (*odd - even).abs() <= NEAR);
                let near: Vec<_> = near.map(|odd| (even, Some(*odd))).collect();
                match near.is_empty() {
                    true => pairs.push((even, None)),
                    false => pairs.extend(near),
                }
            }
            pairs.sort_unstable();
            if !pairs.is_empty() {
                self.pairs.insert(user.clone(), pairs);
            }
        }
    }

    fn close(
        &mut self,
        sessions: &mut BTreeMap<String, Vec<(i64, i64, u64)>>,
        last: &mut BTreeMap<String, i64>,
        watermark: i64,
    ) {
        for (user, open) in sessions {
            let is_open = |session: &(i64, i64, u64)| session.1 + GAP + 1 + GRACE > watermark;
            for &(first, last, count) in open.iter().filter(|it| !is_open(it)) {
                let window = (user.clone(), first, last + GAP + 1);
                assert_eq!(self.sessions.insert(window, count), None);
            }
            open.retain(is_open);
        }
        last.retain(|user, last| {
            let is_absent = *last + ABSENT_AFTER <= watermark;
            if is_absent {
                self.absent.entry(user.clone()).or_default().push(*last);
            }
            !is_absent
        });
    }

    pub(super) fn found(log: &Log) -> Self {
        Self {
            tumbling: results_of(log, "tumbling"),
            late: late_of(log, "late"),
            sessions: results_of(log, "sessions"),
            late_for_sessions: late_of(log, "late-for-sessions"),
            absent: committed_by_key::<String, i64>(log, "absent"),
            alarms: committed_by_key::<u64, u64>(log, "alarms"),
            answers: committed_by_key::<String, i64>(log, "answers"),
            undeliverable: committed_by_key::<String, i64>(log, "undeliverable"),
            pairs: sorted(committed_by_key::<String, (i64, Option<i64>)>(log, "pairs")),
            both: committed_by_key::<String, Option<(u64, u64)>>(log, "both"),
        }
    }

    /// Adds what came before.
    pub(super) fn behind(mut self, before: Self) -> Self {
        self.tumbling.extend(before.tumbling);
        self.sessions.extend(before.sessions);
        self.late.extend(before.late);
        self.late.sort();
        self.late_for_sessions.extend(before.late_for_sessions);
        self.late_for_sessions.sort();
        for (user, times) in before.absent {
            self.absent.entry(user).or_default().splice(0..0, times);
        }
        for (key, rings) in before.alarms {
            self.alarms.entry(key).or_default().splice(0..0, rings);
        }
        for (user, answers) in before.answers {
            self.answers.entry(user).or_default().splice(0..0, answers);
        }
        for (user, times) in before.undeliverable {
            let undeliverable = self.undeliverable.entry(user).or_default();
            undeliverable.splice(0..0, times);
        }
        for (user, pairs) in before.pairs {
            self.pairs.entry(user).or_default().extend(pairs);
        }
        self.pairs = sorted(self.pairs);
        for (user, both) in before.both {
            self.both.entry(user).or_default().splice(0..0, both);
        }
        self
    }

    /// Counts all of it: windows, clicks that are late, sessions, clicks that are late for these, absences, rings, answers,
    /// effects that nobody was there for, pairs, changes of the table.
    pub(super) fn counts(&self) -> [usize; 10] {
        [
            self.tumbling.len(),
            self.late.len(),
            self.sessions.len(),
            self.late_for_sessions.len(),
            self.absent.values().map(Vec::len).sum(),
            self.alarms.values().map(Vec::len).sum(),
            self.answers.values().map(Vec::len).sum(),
            self.undeliverable.values().map(Vec::len).sum(),
            self.pairs.values().map(Vec::len).sum(),
            self.both.values().map(Vec::len).sum(),
        ]
    }

    /// All but what is of this user, and absences: they depend on how time goes on between two clicks.
    pub(super) fn without(mut self, user: &str) -> Self {
        self.tumbling.retain(|(of, ..), _| of != user);
        self.sessions.retain(|(of, ..), _| of != user);
        self.absent.clear();
        self.answers.remove(user);
        self.undeliverable.remove(user);
        self.pairs.remove(user);
        self.both.remove(user);
        self
    }

    /// All that is out already is right, and there once.
    pub(super) fn assert_begins(&self, expected: &Self) {
        for (found, expected) in [
            (&self.tumbling, &expected.tumbling),
            (&self.sessions, &expected.sessions),
        ] {
            let wrong = found.iter().find(|(at, it)| expected.get(*at) != Some(it));
            assert_eq!(wrong, None);
        }
        for (found, expected) in [
            (&self.late, &expected.late),
            (&self.late_for_sessions, &expected.late_for_sessions),
        ] {
            let expected: BTreeSet<_> = expected.iter().collect();
            assert!(found.iter().all(|late| expected.contains(late)));
        }
        for (user, times) in &self.absent {
            assert!(
                expected.absent[user].starts_with(times),
                "{user}: {times:?}"
            );
        }
        for (key, rings) in &self.alarms {
            assert!(expected.alarms[key].starts_with(rings), "{key}: {rings:?}");
        }
        for (found, expected) in [
            (&self.answers, &expected.answers),
            (&self.undeliverable, &expected.undeliverable),
        ] {
            for (user, times) in found {
                assert!(expected[user].starts_with(times), "{user}: {times:?}");
            }
        }
        for (user, pairs) in &self.pairs {
            let mut all = expected.pairs[user].iter();
            let is_found = |pair| all.any(|it| it == pair);
            assert!(pairs.iter().all(is_found), "{user}: {pairs:?}");
        }
        for (user, both) in &self.both {
            let all = &expected.both[user];
            assert!(all.starts_with(both), "{user}: {both:?}, not {all:?}");
        }
    }
}

fn sorted<T: Ord>(mut by_user: BTreeMap<String, Vec<T>>) -> BTreeMap<String, Vec<T>> {
    by_user.values_mut().for_each(|all| all.sort_unstable());
    by_user
}

/// Adds a click to the sessions of its user, unless it is too late for them.
fn join(open: &mut Vec<(i64, i64, u64)>, time: i64, watermark: i64) -> bool {
    let touches = |session: &(i64, i64, u64)| session.0 - GAP <= time && time <= session.1 + GAP;
    let touched: Vec<_> = open.iter().copied().filter(|it| touches(it)).collect();
    if touched.is_empty() && time + GAP + 1 + GRACE <= watermark {
        return false;
    }
    open.retain(|it| !touches(it));
    let one = touched.into_iter().fold((time, time, 1), |one, other| {
        (one.0.min(other.0), one.1.max(other.1), one.2 + other.2)
    });
    open.push(one);
    true
}

/// Processes what is left, and compares all of the output with the definition; nothing stays behind in the stores.
pub(super) fn finish(log: &Log, input: &Input) {
    let running = launch(true).workers(2).start(log).unwrap();
    until("all alarms rang", || {
        let rung = committed_by_key::<u64, u64>(log, "alarms");
        rung.values().map(Vec::len).sum::<usize>() >= input.rings() || running.is_finished()
    });
    wait(running.stop()).unwrap();
    run(launch(false).workers(3), log).unwrap();
    let (found, expected) = (Given::found(log), Given::expected(input));
    found.assert_begins(&expected);
    assert_eq!(found.counts(), expected.counts());
    assert!(found == expected);
    assert!(expected.counts().iter().all(|count| *count > 10));
    for store in ["tumbling", "sessions", "last", "alarms", "asked", "told"] {
        assert_eq!(left_in_store(log, "everything", store), 0, "{store}");
    }
}
