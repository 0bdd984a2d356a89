//! One life of the child process: started, listened to, and ended as its fate says.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::plan::{Plan, VARIABLE};

/// A child that says nothing for so long is taken for stuck.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// A failpoint that was not met so long after the job began is given up.
const FAILPOINT_PATIENCE: Duration = Duration::from_millis(2_500);
/// F26: a job that gets SIGTERM has ended well before this.
const TERMINATION_MAX: Duration = Duration::from_secs(10);

/// Planned end of a life.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    /// SIGKILL so long after the process began to open its directory.
    KillWhileOpening(Duration),
    /// SIGKILL so long after the job began to run.
    KillWhileRunning(Duration),
    /// SIGKILL at the hit of a failpoint.
    Failpoint(&'static str, u32),
    /// SIGTERM so long after the job began to run, and a failpoint on the way out, if any.
    Terminate(Duration, Option<&'static str>),
    /// SIGSTOP so long after the job began, for so long; then SIGCONT, and SIGKILL as much later again.
    Pause(Duration, Duration),
    /// Nothing: the child ends by itself.
    Finish,
}

/// Remains of a life.
pub(super) struct Life {
    /// All whole lines that begin with `@`, without it.
    pub(super) lines: Vec<String>,
    pub(super) status: ExitStatus,
    /// Whether the child died at its failpoint.
    pub(super) is_at_failpoint: bool,
}

impl Life {
    pub(super) fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    pub(super) fn said(&self, what: &str) -> bool {
        self.lines.iter().any(|line| line == what)
    }
}

struct Process {
    child: Child,
    said: Receiver<String>,
    lines: Vec<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child must not outlive a test that fails.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lives one life.
pub(super) fn live(plan: &Plan, fate: &Fate) -> Life {
    let mut process = Process::start(plan, fate);
    let was_signalled = process.meet(fate);
    process.hear_to_the_end();
    let status = process.child.wait().expect("the child can be waited for");
    Life {
        lines: std::mem::take(&mut process.lines),
        is_at_failpoint: !was_signalled && status.signal() == Some(9),
        status,
    }
}

impl Process {
    fn start(plan: &Plan, fate: &Fate) -> Self {
        let failpoint = match fate {
            Fate::Failpoint(name, hit) => format!("{name}=kill@{hit}"),
            Fate::Terminate(_, Some(name)) => format!("{name}=kill"),
            _ => String::new(),
        };
        let errors = File::create(plan.data.with_extension("stderr")).expect("a file for messages");
        let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["--exact", "kill9::child::lives_until_it_is_killed"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(
                VARIABLE,
                serde_json::to_string(plan).expect("a plan is text"),
            )
            .env(onceflow::internals::env::failpoint::VARIABLE, failpoint)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the suite can start itself");
        let stdout = child.stdout.take().expect("the child's output is a pipe");
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(stdout);
            let mut line = String::new();
            // A line without its end was cut by the kill, and was never said.
            while out.read_line(&mut line).is_ok_and(|n| n > 0) && line.ends_with('\n') {
                if let Some(text) = line.trim_end().strip_prefix('@')
                    && sender.send(text.to_owned()).is_err()
                {
                    return;
                }
                line.clear();
            }
        });
        Self {
            child,
            said,
            lines: Vec::new(),
        }
    }

    /// Brings the fate about. `true` if this process, and not a failpoint, sent the signal that ends the child.
    fn meet(&mut self, fate: &Fate) -> bool {
        match fate {
            Fate::KillWhileOpening(after) => {
                self.hear("up") && self.signal_after(*after, Signal::KILL)
            }
            Fate::KillWhileRunning(after) => {
                self.hear("running") && self.signal_after(*after, Signal::KILL)
            }
            Fate::Failpoint(..) => {
                self.hear("running") && self.signal_after(FAILPOINT_PATIENCE, Signal::KILL)
            }
            Fate::Terminate(after, at) => {
                let is_sent = self.hear("running") && self.signal_after(*after, Signal::TERM);
                let asked = Instant::now();
                self.hear_to_the_end();
                let took = asked.elapsed();
                assert!(
                    took < TERMINATION_MAX,
                    "F26: it took {took:?} to end after SIGTERM"
                );
                is_sent && at.is_none()
            }
            Fate::Pause(after, pause) => {
                self.hear("running")
                    && self.signal_after(*after, Signal::STOP)
                    && {
                        std::thread::sleep(*pause);
                        self.signal_after(Duration::ZERO, Signal::CONT)
                    }
                    && self.signal_after(*pause, Signal::KILL)
            }
            Fate::Finish => true,
        }
    }

    /// Listens until `what` is said; `false` if the child ended before.
    fn hear(&mut self, what: &str) -> bool {
        loop {
            match self.said.recv_timeout(SILENCE_MAX) {
                Ok(line) => {
                    let is_it = line == what;
                    self.lines.push(line);
                    if is_it {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the child said nothing for {SILENCE_MAX:?}, before {what:?}")
                }
            }
        }
    }

    fn hear_to_the_end(&mut self) {
        while self.hear("finished") {}
    }

    /// Listens for `after`, then sends the signal; `false` if the child ended before.
    fn signal_after(&mut self, after: Duration, signal: Signal) -> bool {
        let deadline = Instant::now() + after;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => break,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).is_ok()
    }
}
