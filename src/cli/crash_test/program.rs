//! The program under test: run, killed at random moments, and at last left to finish.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::bail;

use super::checks::{Look, look};
use super::scene::Scene;
use crate::cli::child::JobChild;
use crate::cli::output;
use crate::env::Env;
use crate::runtime::Chance;

/// In arguments, this stands for the log: the data directory, or the cluster's URL.
const DATA: &str = "{data}";
/// A line of progress comes with every so many kills.
const TELL_EVERY: u32 = 10;
/// Longest wait for a program's end after SIGTERM; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(30);
/// A program that writes nothing for so long is taken for one that has read everything, until its positions are looked at; then it gets
/// twice as long, up to the longest.
const QUIET_FIRST: Duration = Duration::from_secs(1);
const QUIET_MAX: Duration = Duration::from_secs(30);
/// Interval of looks whether it has written.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A program that runs a job.
pub(super) struct Program<'a> {
    pub(super) env: &'a Env,
    pub(super) path: &'a Path,
    pub(super) arguments: &'a [OsString],
    /// Longest time for the rest of its input.
    pub(super) patience: Duration,
}

/// Kills, and those that came too late.
pub(super) struct Kills {
    pub(super) done: u32,
    /// The program had done its work and ended.
    pub(super) missed: u32,
}

impl Program<'_> {
    /// Runs it and kills it, `count` times.
    pub(super) fn kill_often(
        &self,
        scene: &Scene<'_>,
        count: u32,
        longest: Duration,
        chance: &mut Chance,
    ) -> anyhow::Result<Kills> {
        for number in 1..=count {
            let mut child = self.start(scene)?;
            let wait = draw_wait(chance, longest);
            if let Some(status) = child.wait_at_most(self.env, wait)? {
                self.check_success(status)?;
                output::say(&format!("it had done its work after {} kills", number - 1));
                return Ok(Kills {
                    done: number - 1,
                    missed: count - (number - 1),
                });
            }
            child.kill()?;
            if number.is_multiple_of(TELL_EVERY) {
                output::say(&format!("killed {number} of {count} times"));
            }
        }
        Ok(Kills {
            done: count,
            missed: 0,
        })
    }

    /// Lets it run until nothing is left to read, and tells how far it came.
    pub(super) fn finish(&self, scene: &Scene<'_>) -> anyhow::Result<Look> {
        let begin = self.env.clock.now();
        let mut quiet = QUIET_FIRST;
        loop {
            let is_ended = self.run_until_quiet(scene, quiet)?;
            let look = look(scene)?;
            let waited = self.env.clock.now().since(begin);
            if look.problems().is_empty() || is_ended || waited >= self.patience {
                return Ok(look);
            }
            output::say(&format!("it has {} records to read", look.unread()));
            quiet = (quiet * 2).min(QUIET_MAX);
        }
    }

    /// Lets it run until it writes nothing any more, and asks it to stop; `true` if it ended by itself.
    fn run_until_quiet(&self, scene: &Scene<'_>, quiet: Duration) -> anyhow::Result<bool> {
        let clock = &self.env.clock;
        let mut child = self.start(scene)?;
        let watch = scene.watch()?;
        let begin = clock.now();
        let (mut mark, mut since) = (watch.mark()?, begin);
        while clock.now().since(since) < quiet
            && clock.now().since(begin) < self.patience.max(quiet)
        {
            if let Some(status) = child.wait_at_most(self.env, LOOK_EVERY)? {
                self.check_success(status)?;
                return Ok(true);
            }
            let now = watch.mark()?;
            if now != mark {
                (mark, since) = (now, clock.now());
            }
        }
        child.terminate()?;
        if child.wait_at_most(self.env, STOP_MAX)?.is_none() {
            output::say(&format!(
                "it did not end within {} s of SIGTERM, and is killed",
                STOP_MAX.as_secs()
            ));
            child.kill()?;
        }
        Ok(false)
    }

    fn start(&self, scene: &Scene<'_>) -> anyhow::Result<JobChild> {
        let mut command = Command::new(self.path);
        command.args(arguments_for(self.arguments, scene.option()));
        // What it prints is not this command's result.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        JobChild::start(&mut command)
    }

    fn check_success(&self, status: ExitStatus) -> anyhow::Result<()> {
        if !status.success() {
            bail!(
                "{} failed by itself ({status}): see its message above",
                self.path.display()
            );
        }
        Ok(())
    }
}

/// Half of the waits are up to the longest, the others much shorter: deaths during the start matter too.
fn draw_wait(chance: &mut Chance, longest: Duration) -> Duration {
    let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
    let bound = match chance.one_in(2) {
        true => micros,
        false => 1 + chance.below(micros),
    };
    Duration::from_micros(chance.below(bound))
}

/// The arguments with the log in them: where they name it, else before them as `option` says.
fn arguments_for(arguments: &[OsString], option: (&str, OsString)) -> Vec<OsString> {
    let (option, place) = option;
    let is_named = |argument: &OsString| argument.to_string_lossy().contains(DATA);
    if !arguments.iter().any(is_named) {
        let first = [OsString::from(option), place];
        return first.into_iter().chain(arguments.to_vec()).collect();
    }
    let named = arguments.iter().map(|argument| match argument.to_str() {
        Some(text) if text == DATA => place.clone(),
        Some(text) => text.replace(DATA, &place.to_string_lossy()).into(),
        None => argument.clone(),
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Vec<String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let found = arguments_for(&words, ("--data", "/d".into()));
        let found = found.into_iter().map(|word| word.into_string().unwrap());
        found.collect()
    }

    #[test]
    fn the_log_is_named_where_the_arguments_say() {
        assert_eq!(arguments(&["book.txt"]), ["--data", "/d", "book.txt"]);
        assert_eq!(arguments(&["--log={data}", "x"]), ["--log=/d", "x"]);
        assert_eq!(arguments(&["{data}"]), ["/d"]);
    }

    #[test]
    fn waits_follow_from_the_seed_and_are_never_too_long() {
        let longest = Duration::from_millis(7);
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..100).map(|_| draw_wait(&mut chance, longest)).collect()
        };
        let waits: Vec<_> = draw(1);
        assert!(waits.iter().all(|wait| *wait <= longest));
        assert_eq!(waits, draw(1));
        assert_ne!(waits, draw(2));
    }
}
