//! Sources that wait for each other, so that what is kept for the slower ones stays bounded.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{
    Emit, Emitted, JobContext, Key, Launch, Raw, Read, Source, Split, SplitReader, Unkeyed,
    Upstream,
};
use onceflow::types::{Offset, Timestamp};
use proptest::prelude::*;

use super::support::{
    Click, DISORDER, any_clicks, any_cut, any_runs, click, feed, late, launch, ms, parse, results,
    run_cut, topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, committed, run, until};

const DAY_SECONDS: i64 = 86_400;

/// The rows that a step keeps: now, and at most so far.
#[derive(Default)]
struct Kept {
    now: AtomicI64,
    most: AtomicI64,
}

impl Kept {
    fn change(&self, by: i64) {
        let now = self.now.fetch_add(by, Ordering::SeqCst) + by;
        self.most.fetch_max(now, Ordering::SeqCst);
    }
}

/// A file of clicks that covers a day, evenly.
fn a_day(place: &Place, name: &str, clicks: i64) -> PathBuf {
    let mut text = String::new();
    for number in 0..clicks {
        let time = number * DAY_SECONDS * 1_000 / clicks;
        writeln!(text, "u{} {time}", number % 5).unwrap();
    }
    place.file(name, text)
}

/// Puts the clicks of both files in order, and notes how many are kept meanwhile.
fn in_order(
    place: &Place,
    watermarks: Watermarks,
    is_one_source: bool,
    kept: &Arc<Kept>,
) -> Launch {
    // A minute of the one is three clicks, and of the other 42.
    let sparse = a_day(place, "sparse", 4_000);
    let dense = a_day(place, "dense", 60_000);
    let job = Job::new("days");
    let (came, went) = (Arc::clone(kept), Arc::clone(kept));
    let clicks = |source| clicks_of(&job, source, watermarks);
    let clicks = match is_one_source {
        true => clicks(lines([sparse, dense])).boxed(),
        false => {
            let sparse = clicks(lines([sparse]).named("sparse"));
            let dense = clicks(lines([dense]).named("dense"));
            sparse.merge(dense).boxed()
        }
    };
    let (in_order, late) = clicks
        .key_by_ref(|(user, _): &Click| user)
        .partitioned("by-user")
        .inspect(move |_: &Click| came.change(1))
        .sorted_by_time("in-order");
    late.sink(topic("late"));
    in_order
        .inspect(move |_: &Click| went.change(-1))
        .sink(topic("out"));
    job.exactly_once(Commit::every(ms(50)))
}

fn clicks_of(
    job: &Job,
    source: onceflow::runtime::Lines,
    watermarks: Watermarks,
) -> Stream<Click, impl Upstream<Unkeyed, Click> + use<>> {
    job.source(source)
        .try_map(parse)
        .event_time(|(_, time): &Click| *time, watermarks)
}

#[test]
fn t6_a_source_that_is_ahead_waits_and_what_is_kept_for_the_slower_one_stays_bounded() {
    let ten_minutes = Watermarks::default().align_within(ms(600_000));
    for (is_one_source, workers) in [(true, 1), (true, 2), (false, 1), (false, 2)] {
        let most = |watermarks| {
            let place = Place::new();
            let (log, kept) = (place.log(), Arc::new(Kept::default()));
            let launch = in_order(&place, watermarks, is_one_source, &kept);
            let summary = run(launch.workers(workers), &log).unwrap();
            assert_eq!(summary.records, 64_000);
            assert_eq!(committed(&log, "late").len(), 0);
            assert_eq!(
                kept.now.load(Ordering::SeqCst),
                0,
                "all come out in the end"
            );
            kept.most.load(Ordering::SeqCst)
        };
        let (aligned, not) = (most(ten_minutes), most(Watermarks::default()));
        eprintln!("{is_one_source} {workers}: {aligned} of {not}");
        // Ten minutes are 28 clicks of the one, 417 of the other, and some are on their way between workers.
        assert!(
            aligned < 1_500,
            "{aligned} were kept, and {not} without alignment"
        );
        assert!(not > 3_000 || workers > 1, "{not}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// I16: splits wait, and nothing else changes; no bound makes them wait for each other in a circle.
    #[test]
    fn aligned_splits_come_to_their_ends_and_give_what_they_give_without(
        partitions in any_clicks(),
        runs in any_runs(),
        cut in any_cut(),
        bound in 0u64..40,
    ) {
        let windows = FixedWindows::tumbling(ms(10));
        let place = Place::new();
        let log = place.log();
        let aligned = || launch(windows, watermarks().align_within(ms(bound)));
        run_cut(aligned, &partitions, &runs, cut, &log);
        let mut expected = std::collections::BTreeMap::new();
        for (user, time) in partitions.iter().flatten() {
            let start = time.div_euclid(10) * 10;
            *expected.entry((user.clone(), start, start + 10)).or_insert(0) += 1;
        }
        prop_assert_eq!(results(&log), expected);
        prop_assert_eq!(late(&log), vec![], "within {} ms of disorder", DISORDER);
    }
}

/// Passes on the clicks of two partitions, whatever time it is behind them.
fn passes(watermarks: Watermarks, times: &Arc<Mutex<Vec<i64>>>) -> Launch {
    let job = Job::new("passes");
    let times = Arc::clone(times);
    job.source(topic::<str>("in"))
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks)
        .inspect(move |(_, time): &Click| times.lock().unwrap().push(*time))
        .sink(topic("out"));
    job.exactly_once(Commit::every(ms(2))).workers(2)
}

#[test]
fn u14_a_split_that_is_at_its_end_holds_nobody_after_a_restart_either() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 2);
    feed(&log, "in", 0, &[click("a", 0)]);
    let aligned = Watermarks::default().align_within(ms(10));
    let times = Arc::<Mutex<Vec<i64>>>::default();
    for run in 0..3 {
        let clicks: Vec<Click> = (0..5).map(|n| click("b", run * 1_000 + n * 100)).collect();
        feed(&log, "in", 1, &clicks);
        let running = passes(aligned, &times).start(&log).unwrap();
        let all = 1 + 5 * (usize::try_from(run).unwrap() + 1);
        until("all are read", || committed(&log, "out").len() == all);
        wait(running.stop()).unwrap();
    }
}

#[test]
fn a_split_that_has_records_again_is_waited_for() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 2);
    // The second is an hour ahead when the first begins.
    let early: Vec<Click> = (0..5_000).map(|n| click("a", n)).collect();
    feed(&log, "in", 1, &[click("b", 3_600_000)]);
    let aligned = Watermarks::default().align_within(ms(10));
    let times = Arc::<Mutex<Vec<i64>>>::default();
    let running = passes(aligned, &times).start(&log).unwrap();
    until("it is read", || committed(&log, "out").len() == 1);
    wait(running.stop()).unwrap();
    feed(&log, "in", 1, &[click("b", 3_600_001)]);
    feed(&log, "in", 0, &early);
    let running = passes(aligned, &times).workers(1).start(&log).unwrap();
    until("all are read", || committed(&log, "out").len() == 5_002);
    wait(running.stop()).unwrap();
    let last = times.lock().unwrap().last().copied();
    assert_eq!(
        last,
        Some(3_600_001),
        "it waited for those that were behind"
    );
}

/// A source of one's own: of a remote store, say. Its second split does not answer before it is told to.
struct Remote(Arc<AtomicBool>);

struct RemoteSplit {
    times: Vec<i64>,
    position: Offset,
    answers: Option<Arc<AtomicBool>>,
}

impl Source for Remote {
    type Key = Unkeyed;
    type Value = i64;
    type Reader = RemoteSplit;

    fn name(&self) -> String {
        "remote".to_owned()
    }

    fn splits(&self, _context: &JobContext) -> Result<Vec<Split>, JobError> {
        let split = |name: &str| Split::Named {
            source: self.name(),
            name: name.to_owned(),
        };
        Ok(vec![split("answers"), split("is asked")])
    }

    fn open(
        &self,
        split: &Split,
        position: Option<Offset>,
        _context: &JobContext,
    ) -> Result<RemoteSplit, JobError> {
        let is_slow = split.to_string() == "is asked";
        Ok(RemoteSplit {
            times: if is_slow { vec![5] } else { vec![0, 100] },
            position: position.unwrap_or_default(),
            answers: is_slow.then(|| Arc::clone(&self.0)),
        })
    }
}

impl SplitReader<Unkeyed, i64> for RemoteSplit {
    fn read(
        &mut self,
        _waker: &Waker,
        emit: &mut impl Emit<Unkeyed, i64>,
    ) -> Result<Read, JobError> {
        if !self.has_caught_up() {
            return Ok(Read::Later(ms(1)));
        }
        let offset = self.position;
        let Some(time) = self.times.get(usize::try_from(offset.0).unwrap()) else {
            return Ok(match self.answers {
                Some(_) => Read::Exhausted,
                None => Read::Later(ms(1)),
            });
        };
        self.position = offset.plus(1);
        let _pace = emit.emit(Emitted {
            record: Ok((Key::none(), time)),
            timestamp: Timestamp(*time),
            offset,
            raw: Raw::Encode(&|_| Ok(())),
        })?;
        Ok(Read::Progress)
    }

    fn has_caught_up(&self) -> bool {
        let mut answers = self.answers.iter();
        answers.all(|answers| answers.load(Ordering::SeqCst))
    }

    fn position(&self) -> Offset {
        self.position
    }
}

#[test]
fn t6_a_split_that_was_asked_and_has_not_answered_is_not_idle() {
    let place = Place::new();
    let log = place.log();
    let answers = Arc::new(AtomicBool::new(false));
    let job = Job::new("remote");
    let (windows, late) = job
        .source(Remote(Arc::clone(&answers)))
        .watermarks(Watermarks::default().idle_after(ms(20)))
        .key_by(|_: &i64| "all".to_owned())
        .window(FixedWindows::tumbling(ms(10)))
        .late();
    late.sink(topic("late"));
    windows.count("per-window").sink(topic("counts"));
    let launch = job.exactly_once(Commit::every(ms(2))).workers(1);
    let running = launch.start(&log).unwrap();
    until("one has answered", || running.progress().records == 2);
    std::thread::sleep(ms(100));
    answers.store(true, Ordering::SeqCst);
    until("the window is closed", || {
        !committed(&log, "counts").is_empty()
    });
    wait(running.stop()).unwrap();
    let of_first = ("all".to_owned(), 0, 10);
    assert_eq!(results(&log), [(of_first, 2)].into());
    assert_eq!(committed(&log, "late").len(), 0);
}
