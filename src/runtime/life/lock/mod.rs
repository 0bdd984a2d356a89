//! `job.lock`: the part of a job's graph that its state depends on, in a file beside the program's source, so that a change is seen
//! before it is deployed.
//!
//! The file is JSON, one name a line, and belongs into version control: steps, sources and sinks by name, and each store with its types,
//! versions and codec. Reading order: this file, `compare.rs`.

mod compare;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

pub(crate) use compare::{Change, Effect};

use super::job::Launch;
use super::start::Settings;
use crate::client::nearest_of;
use crate::codec::{CodecId, Schema, TypeIdentity, first_version, is_first};
use crate::env::Env;
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;

/// The format that this version writes.
const FORMAT: u32 = 1;
/// More than ten thousand steps.
const BYTES_MAX: u64 = 16 << 20;
/// Says what [`Launch::check_lock`] does: `check`, which is the default, or `write`.
const VARIABLE: &str = "ONCEFLOW_LOCK";
/// The directory into which `onceflow check` wants the graph of a job that starts.
const LOOK_VARIABLE: &str = "ONCEFLOW_CHECK";
/// The file in that directory.
const LOOKED_AT: &str = "graph.json";

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lock {
    format: u32,
    job: String,
    /// The number of state partitions, if the program says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_partitions: Option<u16>,
    sources: BTreeSet<String>,
    sinks: BTreeSet<String>,
    /// Steps that have a name, by the one that they had first: what they do.
    steps: BTreeMap<String, String>,
    /// The name of now to the one that a step had first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    renamed: BTreeMap<String, String>,
    /// Records that are brought together by key, by the name of the step: they may be under way between processes.
    shuffles: BTreeMap<String, LockedTypes>,
    stores: BTreeMap<String, LockedTypes>,
}

/// The types of a store, or of records on their way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LockedTypes {
    key: TypeIdentity,
    value: TypeIdentity,
    codec: CodecId,
    #[serde(default = "first_version", skip_serializing_if = "is_first")]
    version: u8,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    earlier: BTreeMap<u8, TypeIdentity>,
}

/// A program as `onceflow check` sees it: its graph, and the changes that its launch accepts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LookedAt {
    lock: Lock,
    forgotten: Vec<String>,
    accepted: Vec<String>,
}

impl From<&Schema> for LockedTypes {
    fn from(schema: &Schema) -> Self {
        Self {
            key: schema.key.clone(),
            value: schema.value.clone(),
            codec: schema.codec.of_values(),
            version: schema.value_version,
            earlier: schema.earlier.clone(),
        }
    }
}

impl LockedTypes {
    fn schema(&self) -> Schema {
        Schema {
            codec: self.codec,
            key: self.key.clone(),
            value: self.value.clone(),
            value_version: self.version,
            earlier: self.earlier.clone(),
        }
    }
}

impl Lock {
    fn of(job: &str, topology: &Topology, settings: &Settings) -> Self {
        let is_step = |kind: &str| kind != "source" && kind != "sink";
        let nodes = topology.nodes.iter().filter(|node| is_step(&node.kind));
        let steps = nodes.filter_map(|node| {
            let name = node.name.as_ref()?;
            let first = topology.renamed.get(name).unwrap_or(name);
            Some((first.clone(), node.kind.clone()))
        });
        let exchanges = topology.exchanges.iter();
        let shuffles = exchanges.map(|it| (it.name.to_string(), LockedTypes::from(&it.schema)));
        let stores = topology.stores.iter();
        let stores = stores.map(|(name, schema)| (name.clone(), LockedTypes::from(schema)));
        let topics = topology.sink_topics.keys().map(ToString::to_string);
        let sinks = topology.sinks.iter().map(|sink| sink.name.clone());
        Self {
            format: FORMAT,
            job: job.to_owned(),
            state_partitions: settings.state_partitions,
            sources: topology.sources.iter().map(|it| it.name.clone()).collect(),
            sinks: topics.chain(sinks).collect(),
            steps: steps.collect(),
            renamed: topology.renamed.clone(),
            shuffles: shuffles.collect(),
            stores: stores.collect(),
        }
    }

    /// Reads the file; `None` if there is none.
    fn read(env: &Env, path: &Path) -> Result<Option<Self>, JobError> {
        let failed = |e: std::io::Error| refused(path, format!("it cannot be read: {e}"));
        if !env.files.exists(path).map_err(failed)? {
            return Ok(None);
        }
        let bytes = env.files.read(path, BYTES_MAX).map_err(failed)?;
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| refused(path, format!("it is no JSON ({e}): {TAKE_IT_BACK}")))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format.is_some_and(|found| found > u64::from(FORMAT)) {
            let why = "a newer version of Onceflow wrote it: use that version";
            return Err(refused(path, why));
        }
        check_keys(path, &value)?;
        let lock = serde_json::from_value(value);
        lock.map(Some)
            .map_err(|e| refused(path, format!("{e}: {TAKE_IT_BACK}")))
    }

    fn write(&self, env: &Env, path: &Path) -> Result<(), JobError> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        let written = env.files.replace(path, &bytes);
        written.map_err(|e| refused(path, format!("it cannot be written: {e}")))
    }
}

/// Advice against a file that was edited by hand.
const TAKE_IT_BACK: &str =
    "take it back from version control; it is written by Onceflow, not by hand";

/// Refuses keys that are misspelt: what they were to say would be silently left out (U8).
fn check_keys(path: &Path, value: &serde_json::Value) -> Result<(), JobError> {
    const LOCK: &[&str] = &[
        "format",
        "job",
        "state_partitions",
        "sources",
        "sinks",
        "steps",
        "renamed",
        "shuffles",
        "stores",
    ];
    const TYPES: &[&str] = &["key", "value", "codec", "version", "earlier"];
    let check = |place: &str, value: &serde_json::Value, known: &[&str]| {
        let mut keys = value.as_object().into_iter().flat_map(|it| it.keys());
        let Some(key) = keys.find(|key| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let advice = match nearest_of(key, known) {
            Some(nearest) => format!("did you mean {nearest:?}?"),
            None => format!("there are {}", known.join(", ")),
        };
        Err(refused(
            path,
            format!("{place} has no key {key:?}: {advice}"),
        ))
    };
    check("the file", value, LOCK)?;
    for part in ["stores", "shuffles"] {
        let entries = value.get(part).and_then(serde_json::Value::as_object);
        for (name, entry) in entries.into_iter().flatten() {
            check(&format!("{name:?} in {part}"), entry, TYPES)?;
        }
    }
    Ok(())
}

fn refused(path: &Path, why: impl Into<String>) -> JobError {
    JobError::Lock {
        path: path.to_owned(),
        why: why.into(),
    }
}

impl Launch {
    /// Compares the job with the file `path`, which is usually called `job.lock` and kept beside the source: a test of one line that
    /// fails when a change of the program would lose or misread the job's state, and says in words what each difference does. It
    /// fails at harmless differences too, so that the file stays true: then run it with `ONCEFLOW_LOCK=write` in the
    /// environment, and commit the file. Differences that would lose state are not written; a job that never ran begins with
    /// the file removed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    /// use onceflow::runtime::Launch;
    ///
    /// /// The job as `main` starts it.
    /// fn launch() -> Launch {
    ///     let job = Job::new("page-views");
    ///     job.keyed_source(keyed_topic::<String, u64>("clicks")).count("views").changes().sink(topic("views"));
    ///     job.exactly_once(Commit::every(Duration::from_millis(100)))
    /// }
    ///
    /// // `#[test]` stands in front of it.
    /// fn the_job_fits_what_is_deployed() -> Result<(), JobError> {
    ///     launch().check_lock("job.lock")
    /// }
    /// # // A file that is not there is not taken for one that fits.
    /// # assert!(launch().check_lock("no-such-directory/job.lock").is_err());
    /// ```
    ///
    /// # Errors
    /// If the job as built cannot run, or differs from the file; if the file is absent, or cannot be read or written.
    pub fn check_lock(&self, path: impl AsRef<Path>) -> Result<(), JobError> {
        let (env, path) = (Env::real(), path.as_ref());
        match std::env::var(VARIABLE).as_deref() {
            Ok("write") => self.looked_at()?.write_lock(&env, path).map(drop),
            Ok("check" | "") | Err(std::env::VarError::NotPresent) => {
                self.looked_at()?.check_lock(&env, path)
            }
            other => {
                let why = format!("{VARIABLE} is {other:?}: it is `check` or `write`");
                Err(refused(path, why))
            }
        }
    }

    fn looked_at(&self) -> Result<LookedAt, JobError> {
        let topology = self.graph.topology(&self.name)?;
        Ok(LookedAt {
            lock: Lock::of(&self.name, &topology, &self.settings),
            forgotten: self.settings.dropped_stores.clone(),
            accepted: self.settings.retyped.clone(),
        })
    }

    /// Writes the job's graph for `onceflow check` instead of starting it, if that command runs the program.
    pub(super) fn show_instead(&self) -> Result<(), JobError> {
        let Some(folder) = looked_into() else {
            return Ok(());
        };
        let path = Path::new(&folder).join(LOOKED_AT);
        let bytes = serde_json::to_vec(&self.looked_at()?).unwrap_or_default();
        let written = Env::real().files.replace(&path, &bytes);
        written.map_err(|e| refused(&path, format!("it cannot be written: {e}")))?;
        Err(JobError::OnlyLookedAt {
            job: self.name.clone(),
        })
    }
}

impl LookedAt {
    /// The differences from the file; `None` if there is no file.
    fn changes(&self, env: &Env, path: &Path) -> Result<Option<Vec<Change>>, JobError> {
        let before = Lock::read(env, path)?;
        Ok(before.map(|before| compare::changes(&before, self)))
    }

    /// Compares the program with the file.
    ///
    /// # Errors
    /// If they differ, with every difference in words.
    pub(crate) fn check_lock(&self, env: &Env, path: &Path) -> Result<(), JobError> {
        match self.changes(env, path)? {
            None => Err(refused(
                path,
                "there is no such file: write it (ONCEFLOW_LOCK=write in the environment of the test, or `onceflow check --write`), and \
                 put it under version control",
            )),
            Some(changes) if changes.is_empty() => Ok(()),
            Some(changes) => Err(refused(path, compare::in_words(&changes))),
        }
    }

    /// Writes the file, if no state would be lost or misread by that; returns what is different in it.
    ///
    /// # Errors
    /// If a difference is refused.
    pub(crate) fn write_lock(&self, env: &Env, path: &Path) -> Result<Vec<Change>, JobError> {
        let changes = self.changes(env, path)?.unwrap_or_default();
        if changes.iter().any(|it| it.effect == Effect::Refused) {
            return Err(refused(path, compare::in_words(&changes)));
        }
        self.lock.write(env, path)?;
        Ok(changes)
    }

    /// Reads the graph that a program wrote into the directory that [`look_into`] named; `None` if it wrote none.
    #[cfg(feature = "cli")]
    pub(crate) fn read(env: &Env, folder: &Path) -> Result<Option<Self>, JobError> {
        let path = folder.join(LOOKED_AT);
        let failed = |e: std::io::Error| refused(&path, format!("it cannot be read: {e}"));
        if !env.files.exists(&path).map_err(failed)? {
            return Ok(None);
        }
        let bytes = env.files.read(&path, BYTES_MAX).map_err(failed)?;
        let looked_at = serde_json::from_slice(&bytes);
        looked_at.map(Some).map_err(|e| {
            let why =
                format!("{e}: the program uses another version of Onceflow than this command");
            refused(&path, why)
        })
    }

    /// The name of the job.
    #[cfg(feature = "cli")]
    pub(crate) fn job(&self) -> &str {
        &self.lock.job
    }
}

/// The variable of the environment that makes a program show its graph instead of running it.
#[cfg(feature = "cli")]
pub(crate) fn look_into() -> &'static str {
    LOOK_VARIABLE
}

fn looked_into() -> Option<OsString> {
    std::env::var_os(LOOK_VARIABLE)
}

/// Where a log is opened instead of the user's own while `onceflow check` looks at the program: an empty one, each time another.
pub(in crate::runtime) fn log_to_look_at() -> Option<PathBuf> {
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    let folder = PathBuf::from(looked_into()?);
    let number = OPENED.fetch_add(1, Ordering::Relaxed);
    Some(folder.join(format!("log-{number}")))
}

#[cfg(test)]
mod tests;
