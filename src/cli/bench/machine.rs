//! The state of the machine while a benchmark ran: what the host and other programs took of its processors.
//!
//! A ratio to a baseline of one thread means little on a machine that is not quiet: the baseline suffers more.

use std::path::Path;

use crate::cli::output::ratio;
use crate::env::{Env, OpenMode};

/// More than the first line of `/proc/stat`, and all of `/proc/<pid>/stat`, in bytes.
const READ_BYTES: usize = 1024;
/// The place of `steal` in the first line of `/proc/stat`, and those of `idle` and `iowait`.
const STEAL: usize = 7;
const IDLE: [usize; 2] = [3, 4];
/// Behind the name of a process in its `stat`: times of its own and of its children that ended, in user and system mode.
const TIMES: std::ops::Range<usize> = 11..15;

/// Processor time since the machine's start, in the kernel's ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ticks {
    all: u64,
    idle: u64,
    stolen: u64,
    /// Of this process and its children.
    own: u64,
}

/// Shares of the machine's processor time.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Load {
    /// Taken by the host for other machines.
    pub(super) stolen: f64,
    /// Taken by other programs.
    pub(super) others: f64,
}

impl Ticks {
    /// The ticks until now; `None` where the kernel does not tell.
    pub(super) fn now(env: &Env) -> Option<Self> {
        let own = format!("/proc/{}/stat", std::process::id());
        Self::parse(&read(env, "/proc/stat")?, &read(env, &own)?)
    }

    fn parse(machine: &str, process: &str) -> Option<Self> {
        let fields = machine.lines().next()?.strip_prefix("cpu ")?;
        let fields: Vec<u64> = numbers(fields)?;
        // Time of guests is contained in the others.
        let all = fields.get(..=STEAL)?.iter().sum();
        // The name may hold anything, also spaces and brackets.
        let (_, behind_name) = process.rsplit_once(')')?;
        let times: Vec<&str> = behind_name.split_whitespace().collect();
        let own = numbers::<Vec<u64>>(&times.get(TIMES)?.join(" "))?;
        Some(Self {
            all,
            idle: IDLE.iter().map(|place| fields[*place]).sum(),
            stolen: fields[STEAL],
            own: own.iter().sum(),
        })
    }

    /// The load since `begin`.
    pub(super) fn since(self, begin: Self) -> Load {
        let all = self.all.saturating_sub(begin.all);
        let idle = self.idle.saturating_sub(begin.idle);
        let stolen = self.stolen.saturating_sub(begin.stolen);
        let own = self.own.saturating_sub(begin.own);
        let others = all
            .saturating_sub(idle)
            .saturating_sub(stolen)
            .saturating_sub(own);
        Load {
            stolen: ratio(stolen, all),
            others: ratio(others, all),
        }
    }
}

fn numbers<C: FromIterator<u64>>(text: &str) -> Option<C> {
    text.split_whitespace().map(|it| it.parse().ok()).collect()
}

/// The beginning of a file whose length the kernel says to be 0.
fn read(env: &Env, path: &str) -> Option<String> {
    let file = env.files.open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = vec![0; READ_BYTES];
    let read_bytes = file.read_full_at(&mut bytes, 0).ok()?;
    bytes.truncate(read_bytes);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: &str = "7 (a ) b) R 1 7 7 0 -1 4194304 100 0 0 0 30 10 5 5 20 0 1 0 100 1 1";

    #[test]
    fn shares_of_the_host_and_of_others_are_told_apart() {
        let begin = Ticks::parse("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 1\n", PROCESS).unwrap();
        assert_eq!(begin.own, 50);
        let later = PROCESS.replace(" 30 10 ", " 50 20 ");
        let end = Ticks::parse("cpu  60 0 20 10 10 0 0 100 7 7\n", &later).unwrap();
        let load = end.since(begin);
        assert_eq!((load.stolen, load.others), (0.5, 0.25));
    }

    #[test]
    fn this_machine_tells() {
        let env = Env::real();
        let begin = Ticks::now(&env).unwrap();
        let load = Ticks::now(&env).unwrap().since(begin);
        assert!(load.stolen <= 1.0 && load.others <= 1.0, "{load:?}");
    }
}
