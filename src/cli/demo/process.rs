//! The job's process: started, listened to, killed with SIGKILL, started again.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::cli::child::JobChild;
use crate::env::{Env, Instant};

/// A job that says nothing for so long is taken for stuck.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Line of the job's process on its standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The log is open and recovered; so many updates are visible to a `read_committed` reader.
    Opened {
        /// Updates visible.
        updates: u64,
    },
    /// New output became visible.
    Committed {
        /// Updates visible now.
        updates: u64,
        /// Commits of this process so far.
        commits: u64,
    },
    /// The whole input is processed and committed.
    Finished,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { updates } => write!(f, "opened {updates}"),
            Self::Committed { updates, commits } => write!(f, "committed {updates} {commits}"),
            Self::Finished => f.write_str("finished"),
        }
    }
}

impl FromStr for Report {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["opened", updates] => Ok(Self::Opened {
                updates: updates.parse()?,
            }),
            ["committed", updates, commits] => Ok(Self::Committed {
                updates: updates.parse()?,
                commits: commits.parse()?,
            }),
            ["finished"] => Ok(Self::Finished),
            _ => bail!("the job's process said {line:?}, which is not a report"),
        }
    }
}

/// When to kill: once so many updates are visible, and a little later, so that it falls anywhere within a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KillPoint {
    /// Not before so many updates are visible.
    pub(super) updates: u64,
    /// And so much later.
    pub(super) delay: Duration,
}

/// Draws `count` random moments in the course of `updates` updates, in order. They lie between 5 % and 80 %, so that
/// each process gets somewhere and the last one has something to do.
pub(super) fn draw_kill_points(env: &Env, count: u64, updates: u64) -> Vec<KillPoint> {
    const DELAY_MAX_MS: u64 = 100;
    let third = updates * 3 / 4 / count.max(1);
    (0..count)
        .map(|i| KillPoint {
            updates: updates / 20 + i * third + env.random.below(third.max(1)),
            delay: Duration::from_millis(env.random.below(DELAY_MAX_MS)),
        })
        .collect()
}

/// News of the supervisor while it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// New output became visible.
    Progress {
        /// Updates visible.
        updates: u64,
        /// Commits of all processes so far.
        commits: u64,
    },
    /// The process was killed.
    Killed {
        /// Which kill, from 1.
        number: usize,
        /// Updates visible when last heard.
        updates: u64,
    },
    /// The process after a kill made output visible.
    Recovered {
        /// From the kill to its first new visible output.
        after: Duration,
    },
}

/// Events until the job finished.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// For every kill, the time to the first new output that a reader could see.
    pub(super) restarts: Vec<Duration>,
    /// Kills that came after the process had finished its work: they found nothing left to interrupt.
    pub(super) missed_count: usize,
    /// Commits of all processes, as far as they told.
    pub(super) commits: u64,
}

/// Runs the job's process again and again until it finishes, killing it at every kill point.
pub(super) fn supervise(
    env: &Env,
    command: &mut dyn FnMut() -> Command,
    kill_points: &[KillPoint],
    tell: &mut dyn FnMut(Event),
) -> anyhow::Result<Outcome> {
    let mut supervisor = Supervisor {
        env,
        tell,
        outcome: Outcome::default(),
        killed_at: None,
    };
    for (index, point) in kill_points.iter().enumerate() {
        let mut process = JobProcess::start(env, command())?;
        if !supervisor.follow(&mut process, Some(*point))? {
            supervisor.outcome.missed_count = kill_points.len() - index;
            return Ok(supervisor.outcome);
        }
        supervisor.kill(process, index + 1)?;
    }
    let mut process = JobProcess::start(env, command())?;
    supervisor.follow(&mut process, None)?;
    process.wait()?;
    Ok(supervisor.outcome)
}

struct Supervisor<'a> {
    env: &'a Env,
    tell: &'a mut dyn FnMut(Event),
    outcome: Outcome,
    /// When the process before was killed, until its successor has made output visible.
    killed_at: Option<Instant>,
}

impl Supervisor<'_> {
    /// Listens until `point` is reached (`true`) or the job has finished (`false`).
    fn follow(
        &mut self,
        process: &mut JobProcess,
        point: Option<KillPoint>,
    ) -> anyhow::Result<bool> {
        let commits_before = self.outcome.commits;
        loop {
            match process.next_report()? {
                Report::Opened { updates } => process.updates = updates,
                Report::Committed { updates, commits } => {
                    process.updates = updates;
                    self.outcome.commits = commits_before + commits;
                    self.recovered();
                    (self.tell)(Event::Progress {
                        updates,
                        commits: self.outcome.commits,
                    });
                    if point.is_some_and(|point| updates >= point.updates) {
                        self.env
                            .clock
                            .sleep(point.map_or(Duration::ZERO, |point| point.delay));
                        return Ok(true);
                    }
                }
                Report::Finished => {
                    // A process killed after its last commit leaves nothing to be done but to finish.
                    self.recovered();
                    return Ok(false);
                }
            }
        }
    }

    fn recovered(&mut self) {
        if let Some(killed_at) = self.killed_at.take() {
            let after = self.env.clock.now().since(killed_at);
            self.outcome.restarts.push(after);
            (self.tell)(Event::Recovered { after });
        }
    }

    fn kill(&mut self, mut process: JobProcess, number: usize) -> anyhow::Result<()> {
        self.killed_at = Some(self.env.clock.now());
        process.child.kill()?;
        (self.tell)(Event::Killed {
            number,
            updates: process.updates,
        });
        Ok(())
    }
}

/// A running process of the job, with what it says.
struct JobProcess {
    child: JobChild,
    reports: Receiver<anyhow::Result<Report>>,
    updates: u64,
}

impl JobProcess {
    fn start(env: &Env, mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = JobChild::start(&mut command)?;
        let stdout = child
            .process()
            .stdout
            .take()
            .context("the job's process has no standard output")?;
        let (sender, reports) = crossbeam_channel::unbounded();
        let listen = Box::new(move || listen(stdout, &sender));
        let process = Self {
            child,
            reports,
            updates: 0,
        };
        env.spawn
            .spawn("demo-listen", listen)
            .context("cannot start a thread")?;
        Ok(process)
    }

    fn next_report(&mut self) -> anyhow::Result<Report> {
        match self.reports.recv_timeout(SILENCE_MAX) {
            Ok(report) => report,
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "the job's process said nothing for {} s",
                    SILENCE_MAX.as_secs()
                )
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!(
                    "the job's process ended before its work was done ({status}): see its message above"
                )
            }
        }
    }

    fn wait(mut self) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => bail!("the job's process failed after its work was done ({status})"),
        }
    }
}

/// Passes on what the process says until it ends.
fn listen(stdout: ChildStdout, reports: &Sender<anyhow::Result<Report>>) {
    for line in BufReader::new(stdout).lines() {
        let report = match line {
            Ok(line) => line.parse(),
            Err(error) => Err(error.into()),
        };
        if reports.send(report).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_print_and_parse() {
        for report in [
            Report::Opened { updates: 7 },
            Report::Committed {
                updates: 12,
                commits: 3,
            },
            Report::Finished,
        ] {
            assert_eq!(report.to_string().parse::<Report>().unwrap(), report);
        }
        assert!("committed tea 1".parse::<Report>().is_err());
        assert!("".parse::<Report>().is_err());
    }

    #[test]
    fn kill_points_lie_in_order_within_the_run() {
        let env = Env::real();
        for _ in 0..1000 {
            let points = draw_kill_points(&env, 3, 1_000_000);
            assert_eq!(points.len(), 3);
            assert!(points.is_sorted_by_key(|point| point.updates));
            assert!(
                points
                    .iter()
                    .all(|p| (50_000..=800_000).contains(&p.updates))
            );
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// A stand-in for the job that keeps its position in a file, and commits ten updates at a time.
    const SCRIPT: &str = r#"
        n=$(cat position 2>/dev/null || echo 0); echo "opened $n"; c=0
        while [ "$n" -lt 100 ]; do
            n=$((n + 10)); c=$((c + 1)); echo $n > position.new; mv position.new position; echo "committed $n $c"
            # Reports go through a pipe: the process must not be done before it can be killed.
            [ "$n" -eq 50 ] && [ ! -e killed ] && { touch killed; exec sleep 60; }
        done
        echo finished"#;

    #[test]
    fn a_killed_process_is_started_again_until_it_finishes() {
        let env = Env::real();
        let directory = crate::cli::text::TemporaryDirectory::create(&env, None).unwrap();
        let mut command = || {
            let mut command = shell(SCRIPT);
            command.current_dir(directory.path());
            command
        };
        let point = KillPoint {
            updates: 50,
            delay: Duration::ZERO,
        };
        let mut events = Vec::new();
        let outcome = supervise(&env, &mut command, &[point], &mut |event| {
            events.push(event)
        })
        .unwrap();
        assert_eq!(
            (
                outcome.restarts.len(),
                outcome.missed_count,
                outcome.commits
            ),
            (1, 0, 10)
        );
        assert!(events.contains(&Event::Killed {
            number: 1,
            updates: 50
        }));
        assert_eq!(
            events.last(),
            Some(&Event::Progress {
                updates: 100,
                commits: 10
            })
        );
    }

    #[test]
    fn a_kill_that_comes_too_late_is_told() {
        let env = Env::real();
        let mut command = || shell("echo opened 0; echo committed 5 1; echo finished");
        let point = KillPoint {
            updates: 10,
            delay: Duration::ZERO,
        };
        let outcome = supervise(&env, &mut command, &[point], &mut |_| {}).unwrap();
        assert_eq!((outcome.restarts.len(), outcome.missed_count), (0, 1));
    }

    #[test]
    fn a_process_that_fails_is_an_error() {
        let env = Env::real();
        let mut early = || shell("echo opened 0; exit 3");
        let error = supervise(&env, &mut early, &[], &mut |_| {}).unwrap_err();
        assert!(
            error.to_string().contains("ended before its work was done"),
            "{error}"
        );
        let mut late = || shell("echo opened 0; echo finished; exit 3");
        let error = supervise(&env, &mut late, &[], &mut |_| {}).unwrap_err();
        assert!(
            error.to_string().contains("failed after its work"),
            "{error}"
        );
    }
}
