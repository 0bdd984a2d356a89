//! Power loss at every change of the disk, in every mode: nothing acknowledged is lost, nothing half is seen.
//!
//! A script runs once on a simulated disk that records each change. Then the power fails after each
//! of them in each way of [`PowerLoss::every_mode`], and what is left is opened and compared with
//! what the script had been told by then.
//!
//! Where that takes too long, each change meets a few of the modes, chosen by its number so that all are met;
//! `ONCEFLOW_POWER_LOSS=full` meets them all everywhere.

mod commits;
mod driver;
mod faults;
mod partition;

use onceflow::env::simulated::{PowerLoss, Recording, Replay};

/// So many ways there are to lose power.
const ALL_MODES: usize = 32;

/// The environment variable that asks for every mode at every change.
const FULL: &str = "ONCEFLOW_POWER_LOSS";

/// Calls `check` for every change of the recorded run with the ways to lose power there; returns how often.
fn at_every_change(
    recording: &Recording,
    sample: usize,
    mut check: impl FnMut(&Replay<'_>, PowerLoss),
) -> usize {
    let is_full = std::env::var(FULL).is_ok_and(|value| value == "full");
    let mut states_count = 0;
    let mut replay = recording.replay();
    loop {
        let seed = replay.done_count() as u64;
        let modes: Vec<PowerLoss> = PowerLoss::every_mode(seed).collect();
        assert_eq!(modes.len(), ALL_MODES);
        let count = if is_full { ALL_MODES } else { sample };
        // Steps of 7 meet all 32 modes, because 7 and 32 have no common divisor.
        for index in 0..count {
            let mode = (replay.done_count() * count + index) * 7 % modes.len();
            check(&replay, modes[mode]);
            states_count += 1;
        }
        if !replay.step() {
            return states_count;
        }
    }
}
