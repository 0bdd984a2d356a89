//! Display of the demo: a progress bar on a terminal, plain lines elsewhere, and the table at the end.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ledger::Verdict;
use super::process::{Event, Outcome};
use crate::cli::output::{self, grouped, short};
use crate::cli::text::{Prepared, Sources};
use crate::env::{Env, Instant};

/// Without a terminal, a line of progress is printed so often.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Tells the user what goes on.
pub(super) struct Display {
    env: Env,
    is_terminal: bool,
}

impl Display {
    /// A bar if standard error is a terminal.
    pub(super) fn new(env: &Env) -> Self {
        Self {
            env: env.clone(),
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Says what the input is.
    pub(super) fn prepared(&self, sources: &Sources, prepared: &Prepared) {
        let times = match prepared.repetitions {
            1 => String::new(),
            n => format!(", repeated {n} times"),
        };
        output::say(&format!(
            "Text: {} from {} files{times}: {} of input",
            output::bytes(sources.bytes),
            sources.files.len(),
            output::bytes(prepared.bytes)
        ));
    }

    /// Begins to show the progress towards `updates` updates, which `lines` lines of input give.
    pub(super) fn start(&self, updates: u64, lines: u64) -> Progress {
        let target = match self.is_terminal {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(updates), target);
        let template = "{bar:32} {percent:>3} %  {human_pos} words  {per_sec}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let now = self.env.clock.now();
        Progress {
            env: self.env.clone(),
            bar,
            is_terminal: self.is_terminal,
            updates_total: updates,
            lines_total: lines,
            begin: now,
            last_line: now,
        }
    }
}

/// The progress of one run.
pub(super) struct Progress {
    env: Env,
    bar: ProgressBar,
    is_terminal: bool,
    updates_total: u64,
    lines_total: u64,
    begin: Instant,
    last_line: Instant,
}

impl Progress {
    /// Shows what happened.
    pub(super) fn tell(&mut self, event: Event) {
        match event {
            Event::Progress { updates, commits } => self.progress(updates, commits),
            Event::Killed { number, updates } => self.line(&format!(
                "kill -9, number {number}, with {} words committed",
                grouped(updates)
            )),
            Event::Recovered { after } => self.line(&format!(
                "running again: first new committed output {} ms after the kill",
                after.as_millis()
            )),
        }
    }

    fn progress(&mut self, updates: u64, commits: u64) {
        self.bar.set_position(updates.min(self.updates_total));
        // Lines are told from words: the output does not say which line a word came from.
        let done = output::ratio(updates.min(self.updates_total), self.updates_total);
        let lines = format!(
            "about {} lines",
            short(done * output::ratio(self.lines_total, 1))
        );
        self.bar.set_message(format!("{lines}  {commits} commits"));
        let now = self.env.clock.now();
        if !self.is_terminal && now.since(self.last_line) >= LINE_EVERY {
            self.last_line = now;
            let rate = output::ratio(updates, 1) / now.since(self.begin).as_secs_f64().max(1e-9);
            let percent = 100 * updates.min(self.updates_total) / self.updates_total.max(1);
            output::say(&format!(
                "{percent:>3} %  {} words  {lines}  {}words/s  {commits} commits",
                grouped(updates),
                short(rate)
            ));
        }
    }

    /// A line that stays, above the bar.
    fn line(&self, text: &str) {
        match self.is_terminal {
            true => self.bar.println(text),
            false => output::say(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The result of the demo.
pub(super) struct Summary<'a> {
    /// Lines of input.
    pub(super) lines: u64,
    /// Words of input.
    pub(super) words: u64,
    /// Different words among them.
    pub(super) distinct: u64,
    /// The job's time, with all kills and restarts.
    pub(super) elapsed: Duration,
    /// The ledger's verdict.
    pub(super) verdict: Verdict,
    /// The supervisor's work.
    pub(super) outcome: Outcome,
    /// The most frequent words.
    pub(super) top: Vec<(&'a str, u64)>,
}

impl Summary<'_> {
    /// Whether the output is exact and every kill that was asked for took place.
    pub(super) fn is_success(&self, kills: u64) -> bool {
        self.verdict.is_exact()
            && self.outcome.missed_count == 0
            && self.outcome.restarts.len() as u64 == kills
    }

    /// Prints the table.
    pub(super) fn print(&self) -> io::Result<()> {
        let mut out = output::stdout();
        self.write(&mut out)?;
        out.flush()
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let rate = output::ratio(self.words, 1) / self.elapsed.as_secs_f64().max(1e-9);
        let restarts: Vec<String> = self
            .outcome
            .restarts
            .iter()
            .map(|after| format!("{} ms", after.as_millis()))
            .collect();
        let rows = [
            ("input lines", grouped(self.lines)),
            ("words", grouped(self.words)),
            ("distinct words", grouped(self.distinct)),
            (
                "time, with kills",
                format!(
                    "{:.2} s ({}words/s)",
                    self.elapsed.as_secs_f64(),
                    short(rate)
                ),
            ),
            ("commits", grouped(self.outcome.commits)),
            ("kills (SIGKILL)", self.outcome.restarts.len().to_string()),
            ("restart times", restarts.join(", ")),
            ("committed updates", grouped(self.verdict.updates)),
            ("duplicates", grouped(self.verdict.duplicates)),
            ("losses", grouped(self.verdict.losses)),
        ];
        writeln!(out)?;
        for (name, value) in rows {
            writeln!(out, "{name:<18} {value:>14}")?;
        }
        if self.outcome.missed_count > 0 {
            writeln!(
                out,
                "\nThe job was done before {} of the kills: give it more text (--size).",
                self.outcome.missed_count
            )?;
        }
        writeln!(out, "\nThe ten most frequent words:")?;
        for (word, count) in &self.top {
            writeln!(out, "{:>14}  {}", grouped(*count), output::printable(word))?;
        }
        let verdict = match self.verdict.is_exact() {
            true => "The output is exactly what a plain count of the same input says.",
            false => "THE OUTPUT IS WRONG: it differs from a plain count of the same input.",
        };
        writeln!(out, "\n{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(duplicates: u64, missed_count: usize) -> Summary<'static> {
        Summary {
            lines: 2,
            words: 3,
            distinct: 2,
            elapsed: Duration::from_millis(1500),
            verdict: Verdict {
                updates: 3 + duplicates,
                duplicates,
                losses: 0,
            },
            outcome: Outcome {
                restarts: vec![Duration::from_millis(12)],
                missed_count,
                commits: 4,
            },
            top: vec![("tea", 2), ("\x1b[2J", 1)],
        }
    }

    fn printed(summary: &Summary<'_>) -> String {
        let mut out = Vec::new();
        summary.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_says_what_was_found() {
        let text = printed(&summary(0, 0));
        for part in [
            "duplicates                      0",
            "12 ms",
            "tea",
            "\\u{1b}[2J",
            "exactly what a plain count",
        ] {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
        assert!(printed(&summary(1, 0)).contains("WRONG"));
        assert!(printed(&summary(0, 1)).contains("more text"));
    }

    #[test]
    fn only_exact_output_after_all_kills_is_a_success() {
        assert!(summary(0, 0).is_success(1));
        assert!(!summary(1, 0).is_success(1));
        assert!(!summary(0, 0).is_success(2));
        assert!(!summary(0, 1).is_success(1));
    }
}
