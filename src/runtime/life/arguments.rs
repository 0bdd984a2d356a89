//! The command line of a small job: `--data DIR | --log kafka://HOST:PORT [--instance NAME [--standbys COUNT]] [--follow] [FILE…]`.

use std::path::PathBuf;

use super::job::Launch;
use super::log_handle::Log;
use crate::runtime::connectors::{Lines, lines, stdin_lines};
use crate::runtime::contract::error::JobError;
use crate::runtime::scale::ScaleOut;

/// The command line of an example, or of any job that reads files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobArguments {
    /// Where the log is: a data directory, or `kafka://host:port`.
    pub log: String,
    /// The name of this process among those that share the job, if several do (`group.instance.id`): see [`ScaleOut`].
    pub instance: Option<String>,
    /// The other processes that follow each of the job's states: see [`ScaleOut::standbys`].
    pub standbys: u16,
    /// Whether to wait for the files to grow.
    pub is_following: bool,
    /// The files; none means standard input.
    pub files: Vec<PathBuf>,
}

/// A command line that does not say what is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{why}\nusage: PROGRAM --data DIR | --log kafka://HOST:PORT [--instance NAME [--standbys COUNT]] [--follow] [FILE…]"
)]
pub struct UsageError {
    why: String,
}

impl JobArguments {
    /// Reads the process's command line.
    ///
    /// # Errors
    /// If there is neither `--data` nor `--log`, or an unknown flag.
    pub fn from_env() -> Result<Self, UsageError> {
        Self::parse(std::env::args().skip(1))
    }

    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// As [`JobArguments::from_env`]; if `--instance` has no name behind it, or `--standbys` no number; if there are
    /// standbys without an instance.
    ///
    /// ```
    /// use onceflow::runtime::JobArguments;
    ///
    /// let line = ["--data", "./data", "book.txt"].map(String::from);
    /// assert_eq!(JobArguments::parse(line)?.files.len(), 1);
    /// # Ok::<(), onceflow::runtime::UsageError>(())
    /// ```
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let usage = |why: String| UsageError { why };
        let (mut log, mut instance, mut standbys) = (None, None, 0);
        let (mut is_following, mut files) = (false, Vec::new());
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--data" | "--log" => log = words.next(),
                "--instance" => {
                    let name = words.next().filter(|name| !name.starts_with("--"));
                    instance = Some(name.ok_or_else(|| {
                        usage(
                            "--instance wants the name of this process, which no other has"
                                .to_owned(),
                        )
                    })?);
                }
                "--standbys" => {
                    let count = words.next().and_then(|count| count.parse().ok());
                    standbys = count.ok_or_else(|| {
                        usage("--standbys wants how many processes follow each state".to_owned())
                    })?;
                }
                "--follow" => is_following = true,
                flag if flag.starts_with("--") => {
                    return Err(usage(format!("there is no option {flag}")));
                }
                file => files.push(PathBuf::from(file)),
            }
        }
        let log = log.ok_or_else(|| {
            usage("say where the log is to be: --data DIR, or --log kafka://HOST:PORT".to_owned())
        })?;
        if standbys > 0 && instance.is_none() {
            let why = "standbys are other processes of the job: name this one with --instance";
            return Err(usage(why.to_owned()));
        }
        Ok(Self {
            log,
            instance,
            standbys,
            is_following,
            files,
        })
    }

    /// Opens the log that the command line names: see [`Log::open`].
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_log(&self) -> Result<Log, JobError> {
        Log::open(&self.log)
    }

    /// Shares the job with the other processes that run it on the same log, if the command line names this one.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let line = ["--log", "kafka://127.0.0.1:9092", "--instance", "host-1"].map(String::from);
    /// let arguments = JobArguments::parse(line)?;
    /// let job = Job::new("copy");
    /// job.source(topic::<str>("lines")).sink(topic("copies"));
    /// let launch = job.exactly_once(Commit::every(std::time::Duration::from_millis(100)));
    /// # let _ =
    /// arguments.spread(launch); // then `.run(&log)`
    /// # Ok::<(), onceflow::runtime::UsageError>(())
    /// ```
    pub fn spread(&self, launch: Launch) -> Launch {
        match &self.instance {
            Some(instance) => {
                launch.scale_out(ScaleOut::instance(instance).standbys(self.standbys))
            }
            None => launch,
        }
    }

    /// The lines of the files, or of standard input if there are none (see [`stdin_lines`]); bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn lines(&self) -> Lines {
        let lines = match self.files.is_empty() {
            true => stdin_lines().lossy(),
            false => lines(&self.files).lossy(),
        };
        if self.is_following {
            lines.follow()
        } else {
            lines
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<JobArguments, UsageError> {
        JobArguments::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn an_instance_is_a_name() {
        let arguments = parse("--log kafka://k:9092 --instance host-1 --follow").unwrap();
        assert_eq!(arguments.instance.as_deref(), Some("host-1"));
        assert!(arguments.is_following);
        assert_eq!(parse("--data d book.txt").unwrap().instance, None);
        for line in ["--data d --instance", "--data d --instance --follow"] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains("wants the name"), "{error}");
        }
    }

    #[test]
    fn standbys_are_counted_and_belong_to_an_instance() {
        let arguments = parse("--log kafka://k:9092 --instance a --standbys 2").unwrap();
        assert_eq!(arguments.standbys, 2);
        assert_eq!(parse("--data d --instance a").unwrap().standbys, 0);
        for (line, told) in [
            ("--data d --instance a --standbys", "wants how many"),
            ("--data d --instance a --standbys -1", "wants how many"),
            ("--data d --standbys 1", "--instance"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
