//! The way to a job that runs in another process: a file in its state directory asks for a savepoint, another one answers.
//!
//! `savepoint.request` holds when it was asked, in milliseconds since 1970, and the path; `savepoint.answer` the path, and what went wrong, if
//! anything did; each on a line of its own. Both are replaced as a whole. The driver looks for the first one about twice a second.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Savepoint, refused};
use crate::env::{Env, Instant};
use crate::runtime::contract::error::JobError;

const REQUEST: &str = "savepoint.request";
const ANSWER: &str = "savepoint.answer";
/// Room for the longest path and message.
const BYTES_MAX: u64 = 64 << 10;
#[cfg(feature = "cli")]
const POLL: Duration = Duration::from_millis(50);
/// The driver looks again after this time.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A request that is older was given up by whoever made it.
const REQUEST_MILLIS_MAX: i64 = 60_000;
/// A job that runs has taken a request away by then.
#[cfg(feature = "cli")]
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Asks the job whose state is in the directory `state`, and which runs in another process, for a savepoint in `path`; waits for it.
///
/// # Errors
/// If the job does not run, does not answer in time, or takes none.
#[cfg(feature = "cli")]
pub(crate) fn ask_for_savepoint(
    env: &Env,
    state: &Path,
    path: &Path,
    patience: Duration,
) -> Result<(), JobError> {
    let failed = |e: std::io::Error| refused(path, e);
    if !env.files.exists(&state.join("meta.json")).map_err(failed)? {
        let why = format!("{} holds no state of a job", state.display());
        return Err(refused(path, why));
    }
    let (request, answer) = (state.join(REQUEST), state.join(ANSWER));
    remove(env, &answer).map_err(failed)?;
    let text = format!("{}\n{}\n", env.clock.wall().0, path.display());
    env.files
        .replace(&request, text.as_bytes())
        .map_err(failed)?;
    let begin = env.clock.now();
    loop {
        env.clock.sleep(POLL);
        let waited = env.clock.now().since(begin);
        if let Some(text) = read(env, &answer).map_err(failed)?
            && let Some(why) = text.strip_prefix(&format!("{}\n", path.display()))
        {
            remove(env, &answer).map_err(failed)?;
            return match why.trim_end() {
                "" => Ok(()),
                why => Err(refused(path, why)),
            };
        }
        let is_taken = !env.files.exists(&request).map_err(failed)?;
        if !is_taken && waited > TAKEN_WITHIN.min(patience) {
            remove(env, &request).map_err(failed)?;
            return Err(refused(
                path,
                "the job does not run: start it, and ask again",
            ));
        }
        if is_taken && waited > patience {
            let why = "the job has not answered yet: it may still take it; look with `onceflow savepoint list`, or give it longer (--wait)";
            return Err(refused(path, why));
        }
    }
}

fn remove(env: &Env, path: &Path) -> std::io::Result<()> {
    match env.files.exists(path)? {
        true => env.files.remove_file(path),
        false => Ok(()),
    }
}

fn read(env: &Env, path: &Path) -> std::io::Result<Option<String>> {
    if !env.files.exists(path)? {
        return Ok(None);
    }
    let bytes = env.files.read(path, BYTES_MAX)?;
    Ok(String::from_utf8(bytes).ok())
}

/// The driver's end: what is asked for by files in the job's state directory.
pub(in crate::runtime::life) struct Letterbox {
    state: PathBuf,
    looked: Option<Instant>,
}

impl Letterbox {
    pub(in crate::runtime::life) fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            looked: None,
        }
    }

    /// The path of a savepoint that somebody asks for, at times.
    pub(in crate::runtime::life) fn look(&mut self, env: &Env, now: Instant) -> Option<PathBuf> {
        if self.looked.is_some_and(|at| now.since(at) < LOOK_EVERY) {
            return None;
        }
        self.looked = Some(now);
        let request = self.state.join(REQUEST);
        let text = read(env, &request).ok()??;
        remove(env, &request).ok()?;
        let (asked, path) = text.trim_end().split_once('\n')?;
        let age = env.clock.wall().0 - asked.parse::<i64>().ok()?;
        (age < REQUEST_MILLIS_MAX).then(|| PathBuf::from(path))
    }

    /// The file that takes the answer.
    pub(in crate::runtime::life) fn answer_file(&self) -> PathBuf {
        self.state.join(ANSWER)
    }
}

/// Answers whoever asked by a file.
pub(super) fn answer(env: &Env, file: &Path, path: &Path, result: &Result<Savepoint, JobError>) {
    let why = result.as_ref().err().map(ToString::to_string);
    let prefix = format!("the savepoint {}: ", path.display());
    let why = why.unwrap_or_default();
    let why = why.strip_prefix(&prefix).unwrap_or(&why).replace('\n', " ");
    let text = format!("{}\n{why}\n", path.display());
    // Whoever asked gives up after a while, and says so.
    let _ = env.files.replace(file, text.as_bytes());
}
