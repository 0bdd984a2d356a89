//! A child process that a command kills and starts again.

use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::env::Env;

/// Interval of looks whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running process of a job. Dropping it kills it.
pub(super) struct JobChild(Child);

impl JobChild {
    /// Starts the command.
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start the job's process, {program}"))?;
        Ok(Self(child))
    }

    /// The process itself, for its streams.
    pub(super) fn process(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.0.wait().context("cannot wait for the job's process")
    }

    /// Waits for its end, but no longer than `at_most`: then `None`.
    pub(super) fn wait_at_most(
        &mut self,
        env: &Env,
        at_most: Duration,
    ) -> anyhow::Result<Option<ExitStatus>> {
        let until = env.clock.now().plus(at_most);
        loop {
            let ended = self.0.try_wait();
            let ended = ended.context("cannot look after the job's process")?;
            let rest = until.since(env.clock.now());
            if ended.is_some() || rest.is_zero() {
                return Ok(ended);
            }
            env.clock.sleep(rest.min(LOOK_EVERY));
        }
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill().context("cannot kill the job's process")?;
        self.wait().map(drop)
    }

    /// Asks it with SIGTERM to end.
    pub(super) fn terminate(&self) -> anyhow::Result<()> {
        let asked = kill_process(Pid::from_child(&self.0), Signal::TERM);
        asked.context("cannot send SIGTERM to the job's process")
    }
}

impl Drop for JobChild {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
