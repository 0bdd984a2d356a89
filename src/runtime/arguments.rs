//! The command line of a small job: `--data DIR | --log kafka://HOST:PORT [--follow] [FILE…]`.

use std::path::PathBuf;

use super::connectors::{Lines, lines, stdin_lines};
use super::error::JobError;
use super::log_handle::Log;

/// What an example, or any job that reads files, is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobArguments {
    /// Where the log is: a data directory, or `kafka://host:port`.
    pub log: String,
    /// Whether to wait for the files to grow.
    pub is_following: bool,
    /// The files; none means standard input.
    pub files: Vec<PathBuf>,
}

/// A command line that does not say what is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}\nusage: PROGRAM --data DIR | --log kafka://HOST:PORT [--follow] [FILE…]")]
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
    /// As [`JobArguments::from_env`].
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
        let (mut log, mut is_following, mut files) = (None, false, Vec::new());
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--data" | "--log" => log = words.next(),
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
        Ok(Self {
            log,
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
