//! `ProgressLine`: tells people on a terminal how far a work is that takes longer than a second. Programs, files and pipes hear nothing.
//!
//! Who works tells the line now and then, by the batch or the fetch, how much is done. The line shows itself a second after the beginning,
//! then four times a second, and one line of the whole stays. Several works at a time take turns: only one has the terminal's line.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Env, Instant};

/// A work that is done before it has lasted so long is not told.
const SILENT: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_millis(250);
/// With this variable set to anything, nobody is told.
const QUIET_VARIABLE: &str = "ONCEFLOW_QUIET";
/// Where the line begins, and what is left of the one before is gone.
const BEGIN: &str = "\r\x1b[2K";

/// Nobody wants to be told.
static IS_QUIET: AtomicBool = AtomicBool::new(false);
/// Somebody has the terminal's line.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Has no work of this process told from here on.
#[cfg(feature = "cli")]
pub(crate) fn hush() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// The unit in which a work is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    /// In this noun, in the plural.
    Things(&'static str),
}

/// A work that is told about.
pub(crate) struct ProgressLine<'e> {
    env: &'e Env,
    telling: Telling,
    /// Whether somebody could be told.
    is_heard: bool,
    has_line: bool,
}

impl Env {
    /// A work that begins now: `what` says it as "restoring counts-0" does; `total` is known or not.
    pub(crate) fn progress(
        &self,
        what: impl Into<String>,
        unit: Unit,
        total: Option<u64>,
    ) -> ProgressLine<'_> {
        // In a simulation there are no threads, and nobody who waits.
        let is_heard = self.spawn.has_threads()
            && !IS_QUIET.load(Ordering::Relaxed)
            && io::stderr().is_terminal()
            && std::env::var_os(QUIET_VARIABLE).is_none_or(|it| it.is_empty());
        ProgressLine {
            env: self,
            telling: Telling::new(what.into(), unit, total, self.clock.now()),
            is_heard,
            has_line: false,
        }
    }
}

impl ProgressLine<'_> {
    /// Notes what is done by now. Meant for once a batch: it looks at the clock.
    pub(crate) fn at(&mut self, done: u64) {
        if !self.is_heard {
            return;
        }
        let told = self.telling.step(done, self.env.clock.now());
        if let Some(line) = told
            && self.take_line()
        {
            // If nobody can be told, there is nobody left to tell.
            let _ = write!(io::stderr(), "{BEGIN}{line}");
        }
    }

    /// Adds what is done.
    pub(crate) fn add(&mut self, more: u64) {
        let done = self.telling.done.saturating_add(more);
        self.telling.done = done;
        self.at(done);
    }

    fn take_line(&mut self) -> bool {
        let taken = IS_TAKEN.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
        self.has_line |= taken.is_ok();
        self.has_line
    }
}

impl Drop for ProgressLine<'_> {
    fn drop(&mut self) {
        if self.has_line {
            let line = self.telling.last(self.env.clock.now());
            let _ = writeln!(io::stderr(), "{BEGIN}{line}");
            IS_TAKEN.store(false, Ordering::Release);
        }
    }
}

/// Decides when something is said, and what. Pure.
#[derive(Debug)]
struct Telling {
    what: String,
    unit: Unit,
    total: Option<u64>,
    done: u64,
    begun: Instant,
    next: Instant,
}

impl Telling {
    fn new(what: String, unit: Unit, total: Option<u64>, now: Instant) -> Self {
        Self {
            what,
            unit,
            total,
            done: 0,
            begun: now,
            next: now.plus(SILENT),
        }
    }

    /// The line to say now that so much is done, if it is time.
    fn step(&mut self, done: u64, now: Instant) -> Option<String> {
        self.done = done;
        if now < self.next {
            return None;
        }
        self.next = now.plus(TELL_EVERY);
        let mut line = format!("{}: {}", self.what, self.unit.amount(done));
        let whole = self.total.filter(|total| *total >= done && *total > 0);
        if let Some(total) = whole {
            // A `String` takes all that is written.
            let _ = write!(line, " of {}", self.unit.amount(total));
        }
        let rate = per_second(done, now.since(self.begun));
        let _ = write!(line, ", {}/s", self.unit.amount(rate));
        if let Some(left) = whole.and_then(|total| (total - done).checked_div(rate)) {
            let _ = write!(line, ", about {} left", span(left));
        }
        Some(line)
    }

    /// The line that stays.
    fn last(&self, now: Instant) -> String {
        let took = now.since(self.begun);
        format!(
            "{}: {} in {}",
            self.what,
            self.unit.amount(self.done),
            span(took.as_secs())
        )
    }
}

fn per_second(done: u64, took: Duration) -> u64 {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    u64::try_from(u128::from(done) * 1000 / u128::from(millis)).unwrap_or(u64::MAX)
}

/// Seconds as people say them.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

impl Unit {
    fn amount(self, count: u64) -> String {
        match self {
            Self::Bytes => bytes(count),
            Self::Things(noun) => format!("{} {noun}", grouped(count)),
        }
    }
}

fn bytes(count: u64) -> String {
    let mut unit = 0;
    let mut tenths = u128::from(count) * 10;
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// A count with a comma every three digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(Duration::from_millis(millis))
    }

    #[test]
    fn nothing_is_said_in_the_first_second_and_then_four_times_a_second() {
        let mut telling = Telling::new(
            "restoring counts-0".to_owned(),
            Unit::Bytes,
            Some(100 << 20),
            at(0),
        );
        let said = |telling: &mut Telling, millis| telling.step(20 << 20, at(millis)).is_some();
        let times: Vec<u64> = (0..3_000)
            .step_by(50)
            .filter(|it| said(&mut telling, *it))
            .collect();
        assert_eq!(times, [1000, 1250, 1500, 1750, 2000, 2250, 2500, 2750]);
    }

    #[test]
    fn the_rate_and_the_time_that_is_left_are_told() {
        let mut telling = Telling::new(
            "restoring counts-0".to_owned(),
            Unit::Bytes,
            Some(100 << 20),
            at(5_000),
        );
        assert_eq!(
            telling.step(20 << 20, at(7_000)).unwrap(),
            "restoring counts-0: 20.0 MiB of 100.0 MiB, 10.0 MiB/s, about 8 s left"
        );
        assert_eq!(
            telling.last(at(16_000)),
            "restoring counts-0: 20.0 MiB in 11 s"
        );
        let mut telling =
            Telling::new("replaying".to_owned(), Unit::Things("letters"), None, at(0));
        assert_eq!(
            telling.step(12_345, at(10_000)).unwrap(),
            "replaying: 12,345 letters, 1,234 letters/s"
        );
        // More than was expected, or none yet.
        let mut telling = Telling::new(
            "reading".to_owned(),
            Unit::Things("records"),
            Some(10),
            at(0),
        );
        assert_eq!(
            telling.step(11, at(2_000)).unwrap(),
            "reading: 11 records, 5 records/s"
        );
        let mut telling = Telling::new(
            "reading".to_owned(),
            Unit::Things("records"),
            Some(10),
            at(0),
        );
        assert_eq!(
            telling.step(0, at(2_000)).unwrap(),
            "reading: 0 records of 10 records, 0 records/s"
        );
    }

    #[test]
    fn amounts_are_for_people() {
        assert_eq!(
            [0, 1023, 1024, 1_572_864].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]
        );
        assert_eq!(
            [59, 61, 7_260].map(span),
            ["59 s", "1 min 1 s", "2 h 1 min"]
        );
        assert_eq!([999, 1_000].map(grouped), ["999", "1,000"]);
    }
}
