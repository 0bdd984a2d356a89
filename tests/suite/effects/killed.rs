//! A job with effects in a process that is killed, and a target that writes down the key of each delivery.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use onceflow::client::wait;
use onceflow::internals::env::failpoint;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::support::{Told, assert_told, clicks, tells};
use crate::jobs::support::until;
use crate::time::killed::{Process, open, start_child};
use crate::time::support::{Click, feed, left_in_store, ms, topic_of_clicks};

const VARIABLE: &str = "ONCEFLOW_EFFECTS_CHILD";

/// The job of the child, whose target appends a line for each delivery, before it answers or fails.
pub(super) fn noting(notes: &Path, is_endless: bool) -> Launch {
    let notes = notes.to_owned();
    let target = move |effect: Effect<String, Click>| {
        let notes = notes.clone();
        async move {
            let (user, number) = &effect.value;
            tokio::time::sleep(ms(number.unsigned_abs() % 5)).await;
            let line = format!("{user} {number} {}\n", effect.idempotency_key());
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.append(true).create(true).open(&notes)?;
            file.write_all(line.as_bytes())?;
            match number % 10 {
                0 => Err(std::io::Error::other("its answer is lost")),
                _ => Ok(()),
            }
        }
    };
    let policy = EffectPolicy::parallel(20)
        .pause(ms(1), ms(5))
        .attempts(3)
        .undelivered_max(300);
    tells(target, policy, is_endless)
}

/// The child's entry.
#[test]
#[ignore = "the tests of this module start it, in a process that they kill"]
fn tells_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, folder] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(&Path::new(folder).join("data"));
    let launch = noting(&Path::new(folder).join("notes"), is_endless == "true");
    let running = launch
        .workers(workers.parse().unwrap())
        .start(&log)
        .unwrap();
    wait(running.finished()).unwrap();
    log.close().unwrap();
}

/// A data directory, notes of a target, and what was fed.
struct World {
    folder: tempfile::TempDir,
    all: Vec<Click>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = open(&folder.path().join("data"));
        topic_of_clicks(&log, "in", 1);
        log.close().unwrap();
        Self {
            folder,
            all: Vec::new(),
        }
    }

    fn feed(&mut self, count: i64) {
        let log = open(&self.folder.path().join("data"));
        let first = i64::try_from(self.all.len()).unwrap();
        let some = clicks(first, count, 13);
        some.chunks(50).for_each(|chunk| feed(&log, "in", 0, chunk));
        self.all.extend(some);
        log.close().unwrap();
    }

    fn start(&self, workers: usize, is_endless: bool, failpoint: &str) -> Process {
        let plan = format!("{workers} {is_endless} {}", self.folder.path().display());
        let test = "effects::killed::tells_until_it_is_killed";
        start_child(test, (VARIABLE, &plan), failpoint)
    }

    fn notes(&self) -> PathBuf {
        self.folder.path().join("notes")
    }

    fn told(&self) -> Vec<Told> {
        told_in(&self.notes())
    }

    /// Runs the job to its end, and looks at everything.
    fn finish(&self) {
        let mut last = self.start(2, false, "");
        assert!(last.0.wait().unwrap().success());
        let told = self.told();
        assert_told(&told, &self.all);
        assert!(told.len() > self.all.len(), "some are told again");
        let log = open(&self.folder.path().join("data"));
        let dead = crate::jobs::support::committed(&log, "dead");
        let mut dead: Vec<i64> = dead.iter().map(|it| it.value::<Click>().1).collect();
        dead.sort_unstable();
        let never = self.all.iter().map(|(_, number)| *number);
        assert_eq!(dead, never.filter(|n| n % 10 == 0).collect::<Vec<_>>());
        assert_eq!(left_in_store(&log, "tells", "tell"), 0);
        log.close().unwrap();
    }
}

/// The notes of a target. A line is written in one go, so that a kill leaves all of it or nothing.
pub(super) fn told_in(notes: &Path) -> Vec<Told> {
    let notes = std::fs::read_to_string(notes).unwrap_or_default();
    let whole = notes
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    whole
        .map(|words| match words[..] {
            [user, number, key] => (user.to_owned(), number.parse().unwrap(), key.to_owned()),
            _ => panic!("no note: {words:?}"),
        })
        .collect()
}

#[test]
fn o1_o6_o8_each_effect_is_told_in_order_under_one_key_after_kills_at_any_moment() {
    let mut world = World::new();
    world.feed(2_000);
    for kill in 0..6 {
        let mut process = world.start(1 + kill % 3, true, "");
        until("some more are told", || {
            world.told().len() > 250 * (kill + 1)
        });
        assert!(
            process.0.try_wait().unwrap().is_none(),
            "it ended by itself"
        );
    }
    world.finish();
}

#[test]
fn o1_o6_o8_each_effect_is_told_in_order_under_one_key_after_a_kill_at_every_failpoint() {
    let mut world = World::new();
    let (mut killed, mut of_calls) = (0, 0);
    for (life, name) in failpoint::NAMES.iter().enumerate() {
        world.feed(60);
        let is_of_calls = name.starts_with("calls.");
        let (hit, patience) = match is_of_calls {
            true => (1, ms(30_000)),
            false => (1 + life % 3, ms(600)),
        };
        let mut process = world.start(1 + life % 3, true, &format!("{name}=kill@{hit}"));
        let is_killed = process.is_killed_within(patience);
        if let Some(status) = process.0.try_wait().unwrap() {
            assert_eq!(status.code(), None, "{name}: it ended by itself");
        }
        killed += usize::from(is_killed);
        of_calls += usize::from(is_killed && is_of_calls);
    }
    assert!(killed >= 20, "only {killed} failpoints were met");
    assert_eq!(of_calls, 2);
    world.finish();
}
