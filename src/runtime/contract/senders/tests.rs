//! Marks and clocks: their bytes, and random lives of tasks that send, move, fail and are heard again.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::runtime::contract::time::{News, SplitClock, Watermarks};

fn way(name: &str) -> Way {
    Way {
        from: Origin::Source,
        name: Arc::from(name),
        number: 0,
    }
}

fn senders(tasks_count: u32) -> [Senders; 1] {
    [Senders {
        way: way("clicks"),
        tasks_count,
    }]
}

fn mark(tasks: &[u32], watermark: i64, is_idle: bool) -> Mark {
    let mut some = Tasks::default();
    tasks.iter().for_each(|task| some.add(*task));
    Mark {
        way: way("clicks"),
        tasks: some,
        told: Advance {
            watermark: Timestamp(watermark),
            is_idle,
        },
    }
}

#[test]
fn a_mark_has_these_bytes() {
    let mut bytes = Vec::new();
    let mark = mark(&[0, 3, 9], -2, true);
    mark.encode(&mut bytes);
    let head = [1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
    let way = [0, 0, 0, 6, b'c', b'l', b'i', b'c', b'k', b's'];
    assert_eq!(bytes, [&head[..], &way, &[0b1001, 0b10]].concat());
    assert_eq!(Mark::decode(&bytes), Some(mark));
    bytes[0] = 2;
    assert_eq!(Mark::decode(&bytes), None, "another version");
    assert_eq!(Mark::decode(b"a value of somebody else"), None);
}

#[test]
fn clocks_have_these_bytes() {
    let mut clocks = SenderClocks::new(&senders(4), &[]);
    clocks.take(&mark(&[1], 1_000, false));
    clocks.take(&mark(&[2], 900, true));
    clocks.take(&mark(&[3], i64::MAX, false));
    let bytes = clocks.committed();
    let head = [1, 0, 0, 0, 0, 0, 0, 0x03, 0x84];
    let way = [0, 0, 0, 6, b'c', b'l', b'i', b'c', b'k', b's', 4];
    assert_eq!(bytes, [&head[..], &way, &[0, 0x91, 0x03, 2, 3]].concat());
    assert!(bytes.len() <= SenderClocks::committed_bytes_max(&senders(4)));
}

#[test]
fn t3_t10_a_sender_that_was_never_heard_of_holds_also_one_that_comes_later() {
    let mut clocks = SenderClocks::new(&senders(2), &[]);
    assert_eq!(clocks.take(&mark(&[0], 100, false)), None);
    assert_eq!(
        clocks.take(&mark(&[1], 40, false)).map(|it| it.watermark.0),
        Some(40)
    );
    // The source grew: the committed clocks know nothing of the third.
    let mut clocks = SenderClocks::new(&senders(3), &clocks.committed());
    assert_eq!(clocks.now().watermark, Timestamp::MIN);
    assert_eq!(clocks.take(&mark(&[0, 1], 200, false)), None);
    assert_eq!(
        clocks
            .take(&mark(&[2], 150, false))
            .map(|it| it.watermark.0),
        Some(150)
    );
}

#[test]
fn an_idle_sender_holds_nobody_also_after_a_restore_and_one_that_never_had_a_record() {
    let mut clocks = SenderClocks::new(&senders(3), &[]);
    clocks.take(&mark(&[0], 100, false));
    clocks.take(&mark(&[1], 50, true));
    clocks.take(&mark(&[2], i64::MIN, true));
    assert_eq!(clocks.now().watermark, Timestamp(100));
    let restored = SenderClocks::new(&senders(3), &clocks.committed());
    assert_eq!(restored.now(), clocks.now());
}

#[test]
fn a_way_that_is_gone_says_nothing() {
    let mut clocks = SenderClocks::new(&senders(1), &[]);
    let mut of_another = mark(&[0], 7, false);
    of_another.way.number = 1;
    assert_eq!(clocks.take(&of_another), None);
    clocks.take(&mark(&[0], 7, false));
    let other = [Senders {
        way: of_another.way,
        tasks_count: 1,
    }];
    let restored = SenderClocks::new(&other, &clocks.committed());
    assert_eq!(restored.now().watermark, Timestamp::MIN);
}

/// The most that records of a task are out of order.
const DISORDER: i64 = 5;

/// A task as it was committed: its next record, and its watermark.
#[derive(Debug, Clone, Copy, Default)]
struct Committed {
    next: usize,
    watermark: Option<Timestamp>,
}

#[derive(Debug, Clone)]
enum Entry {
    Record(i64),
    Mark(Vec<u8>),
}

/// A worker: a chain that several tasks share, as `source_time.rs` keeps its time.
struct Worker {
    tasks: Vec<usize>,
    clock: EventClock,
    splits: Vec<(SplitClock, usize)>,
    told: Option<Advance>,
}

impl Worker {
    /// Begins anew with what was committed, as after a restart, or where a task was added.
    fn begin(tasks: Vec<usize>, committed: &[Committed]) -> Self {
        let mut clock = EventClock::new(Timestamp::MIN);
        let watermarks = Watermarks::out_of_order(Duration::from_millis(5));
        let splits = tasks.iter().map(|&task| {
            let known = committed[task].watermark;
            let input = clock.add(known.unwrap_or(Timestamp::MIN));
            (SplitClock::new(watermarks, known), input)
        });
        let splits = splits.collect();
        clock.settle();
        Self {
            tasks,
            clock,
            splits,
            told: None,
        }
    }
}

struct World {
    records: Vec<Vec<i64>>,
    committed: Vec<Committed>,
    workers: Vec<Worker>,
    topic: Vec<Entry>,
    /// The receiver, and what of it is committed: how much it has read, and its clocks.
    clocks: SenderClocks,
    read: usize,
    kept: (usize, Vec<u8>),
}

impl World {
    fn new(records: Vec<Vec<i64>>) -> Self {
        let tasks = records.len();
        let committed = vec![Committed::default(); tasks];
        let clocks = SenderClocks::new(&senders(u32::try_from(tasks).unwrap()), &[]);
        let workers = [0, 1].map(|worker| {
            let own = (0..tasks).filter(|task| task % 2 == worker);
            Worker::begin(own.collect(), &committed)
        });
        Self {
            records,
            committed,
            workers: workers.into(),
            topic: Vec::new(),
            kept: (0, clocks.committed()),
            clocks,
            read: 0,
        }
    }

    /// One cycle of a worker: some records of each task, and a mark behind them; all of it is committed, or nothing.
    fn cycle(&mut self, number: usize, records: usize, is_committed: bool) {
        let worker = &mut self.workers[number];
        let mut sent = Vec::new();
        let mut moved = self.committed.clone();
        for (&task, (split, input)) in worker.tasks.iter().zip(&mut worker.splits) {
            for _ in 0..records {
                let Some(&time) = self.records[task].get(moved[task].next) else {
                    break;
                };
                moved[task].next += 1;
                sent.push(Entry::Record(time));
                let watermark = split.record(Timestamp(time));
                worker.clock.step(*input, News::Watermark(watermark));
                moved[task].watermark = Some(watermark);
            }
        }
        let told = worker.clock.now();
        if worker.told != Some(told) && told.watermark > Timestamp::MIN && !worker.tasks.is_empty()
        {
            worker.told = Some(told);
            let tasks: Vec<u32> = worker
                .tasks
                .iter()
                .map(|it| u32::try_from(*it).unwrap())
                .collect();
            let mut bytes = Vec::new();
            mark(&tasks, told.watermark.0, false).encode(&mut bytes);
            sent.push(Entry::Mark(bytes));
        }
        match is_committed {
            true => {
                self.committed = moved;
                self.topic.extend(sent);
            }
            false => {
                let tasks = std::mem::take(&mut worker.tasks);
                *worker = Worker::begin(tasks, &self.committed);
            }
        }
    }

    /// A task goes to the other worker, which begins anew with it.
    fn give(&mut self, task: usize) {
        let from = usize::from(!self.workers[0].tasks.contains(&task));
        let worker = &mut self.workers[from];
        let place = worker.tasks.iter().position(|it| *it == task).unwrap();
        worker.tasks.remove(place);
        let (_, input) = worker.splits.remove(place);
        worker.clock.remove(input);
        let mut tasks = std::mem::take(&mut self.workers[1 - from].tasks);
        tasks.push(task);
        self.workers[1 - from] = Worker::begin(tasks, &self.committed);
    }

    /// The receiver reads on. Nothing that it reads is late, and time does not go back.
    fn read(&mut self, entries: usize) -> Result<(), TestCaseError> {
        for _ in 0..entries {
            let Some(entry) = self.topic.get(self.read) else {
                break;
            };
            let now = self.clocks.now().watermark;
            match entry {
                Entry::Record(time) => prop_assert!(Timestamp(*time) >= now, "{time} at {now}"),
                Entry::Mark(bytes) => {
                    self.clocks.take(&Mark::decode(bytes).unwrap());
                    prop_assert!(self.clocks.now().watermark >= now);
                }
            }
            self.read += 1;
        }
        Ok(())
    }

    /// The receiver's partition goes to another owner, which has what was committed. What was read for good is deleted.
    fn restore(&mut self) {
        let tasks = u32::try_from(self.records.len()).unwrap();
        let (read, clocks) = &self.kept;
        self.read = *read;
        self.clocks = SenderClocks::new(&senders(tasks), clocks);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Cycle(usize, usize, bool),
    Give(usize),
    Read(usize),
    Commit,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..2, 0usize..6, prop::bool::weighted(0.8)).prop_map(|(w, n, c)| Step::Cycle(w, n, c)),
        1 => (0usize..4).prop_map(Step::Give),
        3 => (0usize..12).prop_map(Step::Read),
        1 => Just(Step::Commit),
        1 => Just(Step::Restore),
    ]
}

fn records() -> impl Strategy<Value = Vec<i64>> {
    let record = (0i64..6, 0i64..=DISORDER);
    (-40i64..40, prop::collection::vec(record, 1..60)).prop_map(|(begin, steps)| {
        let mut newest = begin;
        let times = steps.into_iter().map(|(on, behind)| {
            newest += on;
            newest - behind
        });
        times.collect()
    })
}

proptest! {
    /// T8 T9 T10: whatever fails, moves and is restored, nothing within the bound is late, time never goes back, and in the end
    /// the receiver is as far as the least of the tasks.
    #[test]
    fn t8_t9_t10_nothing_is_late_and_time_comes_to_the_least_of_all_tasks_whoever_has_them(
        records in prop::collection::vec(records(), 4),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(records);
        for step in steps {
            match step {
                Step::Cycle(worker, records, is_committed) => world.cycle(worker, records, is_committed),
                Step::Give(task) => world.give(task),
                Step::Read(entries) => world.read(entries)?,
                Step::Commit => world.kept = (world.read, world.clocks.committed()),
                Step::Restore => world.restore(),
            }
        }
        for worker in [0, 1] {
            world.cycle(worker, usize::MAX, true);
        }
        world.read(usize::MAX)?;
        let least = world.committed.iter().map(|task| task.watermark.unwrap()).min();
        prop_assert_eq!(Some(world.clocks.now().watermark), least);
    }

    #[test]
    fn clocks_are_restored_as_they_were(
        told in prop::collection::vec((0u32..6, any::<i64>(), any::<bool>()), 0..20),
        is_near in any::<bool>(),
    ) {
        let mut clocks = SenderClocks::new(&senders(6), &[]);
        for (task, watermark, is_idle) in told {
            let watermark = if is_near { watermark >> 10 } else { watermark };
            clocks.take(&mark(&[task], watermark, is_idle));
        }
        let bytes = clocks.committed();
        prop_assert!(bytes.len() <= SenderClocks::committed_bytes_max(&senders(6)));
        let restored = SenderClocks::new(&senders(6), &bytes);
        let derived = |clocks: &SenderClocks| {
            clocks.ways[0].1.iter().map(|it| clocks.clock.input(*it).unwrap()).collect::<Vec<_>>()
        };
        if is_near {
            prop_assert_eq!(derived(&restored), derived(&clocks));
        }
        prop_assert!(restored.now().watermark <= clocks.now().watermark);
    }
}
