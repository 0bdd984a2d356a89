//! Power loss at every change of the disk, in every mode: nothing acknowledged is lost, nothing half is seen.
//!
//! A script runs once on a simulated disk that records each change. Then the power fails after each
//! of them in each way of [`PowerLoss::every_mode`], and what is left is opened and compared with
//! what the script had been told by then. Many of these pairs leave the same bytes and names: what is left is
//! checked once for each thing that is expected of it ([`at_every_state`]).
//!
//! Power that fails again while that is recovered from meets a few of the modes at each change, chosen by its
//! number so that all are met ([`at_every_change`]).

mod commits;
mod driver;
mod faults;
mod partition;
mod remote;

use std::collections::HashSet;
use std::hash::Hash;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use onceflow::testing::{DiskContents, PowerLoss, Recording, Replay, SimulatedWorld};

/// Number of ways to lose power.
const ALL_MODES: usize = 32;

fn modes(replay: &Replay<'_>) -> Vec<PowerLoss> {
    let modes: Vec<PowerLoss> = PowerLoss::every_mode(replay.done_count() as u64).collect();
    assert_eq!(modes.len(), ALL_MODES);
    modes
}

/// Calls `check` with every mode at every change of the recorded run, but for pairs that leave what another one
/// left: the same names, sizes and bytes, of which `expectation` of the change says that the same is expected.
fn at_every_state<E: Eq + Hash + Send>(
    recording: &Recording,
    expectation: impl Fn(usize) -> E + Sync,
    check: impl Fn(&Replay<'_>, PowerLoss) + Sync,
) {
    let met = Met::new();
    let is_new = |replay: &Replay<'_>, loss| {
        let left = replay.after_power_loss(loss);
        met.is_new(&[&left], expectation(replay.done_count()))
    };
    let (pairs, checked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads_count = std::thread::available_parallelism().map_or(1, NonZero::get);
    let walk = |thread: usize| {
        let mut replay = recording.replay();
        loop {
            if replay.done_count() % threads_count == thread {
                let mut simplified = Vec::new();
                for loss in modes(&replay) {
                    pairs.fetch_add(1, Ordering::Relaxed);
                    let loss = replay.simplified(loss);
                    if simplified.contains(&loss) {
                        continue;
                    }
                    simplified.push(loss);
                    if is_new(&replay, loss) {
                        located(&replay, loss, || check(&replay, loss));
                        checked.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            if !replay.step() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..threads_count {
            let walk = &walk;
            scope.spawn(move || walk(thread));
        }
    });
    let (pairs, checked) = (pairs.into_inner(), checked.into_inner());
    let changes_count = recording.changes_count();
    println!("{changes_count} changes, {pairs} power losses, {checked} of them different");
    assert_eq!(pairs, (changes_count + 1) * ALL_MODES, "all were met");
    assert_eq!(checked, met.count());
}

/// The disks, by their numbers, and what was expected of them.
type State<E> = (Vec<usize>, E);

/// Disks that were met, each with what was expected of it.
struct Met<E> {
    seen: Mutex<(DiskContents, HashSet<State<E>>)>,
}

impl<E: Eq + Hash> Met<E> {
    fn new() -> Self {
        Self {
            seen: Mutex::new((DiskContents::new(), HashSet::new())),
        }
    }

    /// Whether these disks were not met before, together and with this expectation.
    fn is_new(&self, disks: &[&SimulatedWorld], expectation: E) -> bool {
        let mut seen = self.seen.lock().unwrap();
        let numbers = disks.iter().map(|disk| seen.0.number(disk)).collect();
        seen.1.insert((numbers, expectation))
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().1.len()
    }
}

/// Calls `check` with `sample` of the modes at every change of the recorded run.
fn at_every_change(
    recording: &Recording,
    sample: usize,
    mut check: impl FnMut(&Replay<'_>, PowerLoss),
) {
    let mut replay = recording.replay();
    loop {
        let modes = modes(&replay);
        // Steps of 7 meet all 32 modes, because 7 and 32 have no common divisor.
        for index in 0..sample {
            let loss = modes[(replay.done_count() * sample + index) * 7 % modes.len()];
            located(&replay, loss, || check(&replay, loss));
        }
        if !replay.step() {
            return;
        }
    }
}

/// Runs a check, and says where it failed.
fn located(replay: &Replay<'_>, loss: PowerLoss, check: impl FnOnce()) {
    let outcome = catch_unwind(AssertUnwindSafe(check));
    assert!(
        outcome.is_ok(),
        "after change {}, with {loss:?}",
        replay.done_count()
    );
}
