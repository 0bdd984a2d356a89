//! The data directory: who owns it, whether it is ours, and which release wrote it.
//!
//! ```text
//! data/  lock  meta.json  topics.json  holds.json  ballast  log/<topic>-<partition>/…  state/<job>/…
//! ```
//! `meta.json` is written last when a directory is made: without it the directory is new, and may hold nothing but
//! what an interrupted beginning leaves. All checks come before the first write.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::BrokerError;
use super::error::io_error;
use super::holds::{HoldList, Holds};
use super::sealed;
use super::topics::TopicList;
use crate::env::{DirEntry, Env, Lock, LockError};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::ClusterId;

const LOCK: &str = "lock";
const META: &str = "meta.json";
const META_TMP: &str = "meta.json.tmp";
const TOPICS: &str = "topics.json";
const HOLDS: &str = "holds.json";
const LOG: &str = "log";
const BALLAST: &str = "ballast";
/// The server's users and access rules, and the lock of those who change them.
const SECURITY: &str = "security.json";
const SECURITY_LOCK: &str = "security.lock";
/// Names at the top of a data directory. `lost+found` is the file system's own.
const KNOWN: &[&str] = &[
    LOCK,
    META,
    TOPICS,
    HOLDS,
    LOG,
    BALLAST,
    SECURITY,
    SECURITY_LOCK,
    "state",
    "lost+found",
];
/// Names that an interrupted beginning may leave (see `initialise`), or that come before it: users.
const BEGUN: &[&str] = &[LOCK, TOPICS, LOG, SECURITY, SECURITY_LOCK, "lost+found"];

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    cluster_id: String,
    /// Earlier openings of the directory; left out at first, so that the file is then what it always was.
    #[serde(default, skip_serializing_if = "is_zero")]
    broker_epoch: i32,
    /// The first opening since which nothing was lost that had been written. Left out while it is that of the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    whole_since: i32,
    /// The life of the page cache in which the last opening wrote ([`crate::env::Files::cache_life`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_life: Option<String>,
}

/// One opening of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Opening {
    /// Its number, which no other had: the leader epoch of all partitions.
    pub(super) epoch: i32,
    /// The first opening since which nothing was lost that had been written, synced or not.
    pub(super) whole_since: i32,
    /// Whether a write or sync failed before, so that what is read may not be on the disk.
    pub(super) is_cache_suspect: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(epoch: &i32) -> bool {
    *epoch == 0
}

/// An open data directory. The lock is held until [`Directory::unlock`], or until it is dropped.
pub(super) struct Directory {
    env: Env,
    root: PathBuf,
    cluster_id: ClusterId,
    /// As it stands on the disk.
    meta: Mutex<Meta>,
    is_new: bool,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

impl Directory {
    /// Opens the directory at `root`, creating it if it is absent (its parent must exist).
    pub(super) fn open(env: &Env, root: &Path) -> Result<Self, BrokerError> {
        // F18, F19, F21, F23: refuse what must be refused before the first write, the lock file included.
        check(env, root)?;
        env.files
            .create_dir(root)
            .map_err(|e| io_error(&e, "create the data directory", root))?;
        let lock = lock(env, &root.join(LOCK))?;
        // Again under the lock: another process may have begun in between.
        let (meta, is_new) = match check(env, root)? {
            Some(meta) => (meta, false),
            None => (initialise(env, root)?, true),
        };
        Ok(Self {
            env: env.clone(),
            root: root.to_owned(),
            cluster_id: parse_cluster_id(&meta, root)?,
            meta: Mutex::new(meta),
            is_new,
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Where the directory is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    /// Begins an opening. Its epoch is on the disk before anybody hears of it, because a reader that meets one epoch twice
    /// cannot see that records were lost in between.
    ///
    /// Earlier writes are whole if the last opening was closed in order, or if only its process ended: the page
    /// cache still lives that it wrote to. Whenever that is not known, power was lost. A cache that is suspect stays so
    /// until [`Directory::trust_cache`]: this opening may end before all is written once more.
    pub(super) fn begin_opening(&self, is_clean: bool) -> Result<Opening, BrokerError> {
        let mut meta = self.meta.lock();
        let mut is_cache_suspect = false;
        if !self.is_new {
            let (before, life) = (meta.cache_life.clone(), cache_life(&self.env, &self.root)?);
            is_cache_suspect = before.is_none() && !is_clean;
            let mut next = Meta {
                broker_epoch: meta.broker_epoch.saturating_add(1),
                cache_life: life.clone().filter(|_| !is_cache_suspect),
                ..meta.clone()
            };
            let is_alive = before.is_some() && before == life;
            if !(is_clean || is_alive) {
                next.whole_since = next.broker_epoch;
            }
            self.write_meta(&mut meta, next)?;
        }
        Ok(Opening {
            epoch: meta.broker_epoch,
            whole_since: meta.whole_since,
            is_cache_suspect,
        })
    }

    /// Takes note, durably, that all that a suspect cache showed is on the disk now.
    pub(super) fn trust_cache(&self) -> Result<(), BrokerError> {
        let mut meta = self.meta.lock();
        let next = Meta {
            cache_life: cache_life(&self.env, &self.root)?,
            ..meta.clone()
        };
        self.write_meta(&mut meta, next)
    }

    /// Takes note, durably, that what earlier openings wrote is not whole, whatever the page cache's life said.
    pub(super) fn note_loss(&self) -> Result<Opening, BrokerError> {
        let mut meta = self.meta.lock();
        let next = Meta {
            whole_since: meta.broker_epoch,
            ..meta.clone()
        };
        self.write_meta(&mut meta, next)?;
        Ok(Opening {
            epoch: meta.broker_epoch,
            whole_since: meta.whole_since,
            is_cache_suspect: false,
        })
    }

    /// Has the next opening take it that power was lost: after a failed write or sync the page cache may show what the disk
    /// will never hold (F11).
    pub(super) fn distrust_cache(&self) -> Result<(), BrokerError> {
        if !self.is_locked() {
            // It may have another owner by now.
            return Ok(());
        }
        let mut meta = self.meta.lock();
        let next = Meta {
            cache_life: None,
            ..meta.clone()
        };
        self.write_meta(&mut meta, next)
    }

    /// Has the next opening write once more what this one could not sync (F11); passes the error on.
    pub(super) fn note_failure(&self, error: BrokerError) -> BrokerError {
        if error.kind() == ErrorKind::Fatal
            && let Err(error) = self.distrust_cache()
        {
            crate::env::error!(error = error.message, "the failure could not be noted");
        }
        error
    }

    fn write_meta(&self, meta: &mut Meta, next: Meta) -> Result<(), BrokerError> {
        sealed::write(&*self.env.files, &self.root.join(META), &next)?;
        *meta = next;
        Ok(())
    }

    /// Where the partitions are.
    pub(super) fn log_dir(&self) -> PathBuf {
        self.root.join(LOG)
    }

    pub(super) fn ballast_path(&self) -> PathBuf {
        self.root.join(BALLAST)
    }

    /// Reads the list of topics.
    pub(super) fn read_topics(&self) -> Result<TopicList, BrokerError> {
        let path = self.root.join(TOPICS);
        let Some(list) = sealed::read::<TopicList>(&*self.env.files, &path)? else {
            return Err(half_copied(&self.root, TOPICS));
        };
        list.check(self.cluster_id, &path)?;
        Ok(list)
    }

    /// Replaces the list of topics, durably and at once.
    pub(super) fn write_topics(&self, list: &TopicList) -> Result<(), BrokerError> {
        sealed::write(&*self.env.files, &self.root.join(TOPICS), list)
    }

    /// Reads the holds on compaction; there are none until a job asks for one.
    pub(super) fn read_holds(&self) -> Result<Holds, BrokerError> {
        let found = sealed::read(&*self.env.files, &self.root.join(HOLDS))?;
        Ok(Holds::new(found.unwrap_or_default()))
    }

    /// Replaces the holds on compaction, durably and at once.
    pub(super) fn write_holds(&self, holds: &HoldList) -> Result<(), BrokerError> {
        sealed::write(&*self.env.files, &self.root.join(HOLDS), holds)
    }

    /// Whether the directory is still ours.
    pub(super) fn is_locked(&self) -> bool {
        self.lock.lock().is_some()
    }

    /// Gives the directory up. Nothing may be written afterwards.
    pub(super) fn unlock(&self) {
        self.lock.lock().take();
    }
}

/// Looks without writing: `Some` if the directory is ours, `None` if it is absent, empty or only begun.
fn check(env: &Env, root: &Path) -> Result<Option<Meta>, BrokerError> {
    let files = &*env.files;
    if !files
        .exists(root)
        .map_err(|e| io_error(&e, "look for the data directory", root))?
    {
        return check_parent(env, root).map(|()| None);
    }
    // Of what exists already this only checks that it is a real directory.
    files.create_dir(root).map_err(|e| {
        invalid(format!(
            "the data directory {} is not a directory, or is a symbolic link, which is not followed ({e}): give the real path of a directory",
            root.display()
        ))
    })?;
    check_access(env, root)?;
    let entries = files
        .read_dir(root)
        .map_err(|e| io_error(&e, "list the data directory", root))?;
    match sealed::read::<Meta>(files, &root.join(META))? {
        Some(meta) => {
            check_complete(root, &entries)?;
            parse_cluster_id(&meta, root)?;
            Ok(Some(meta))
        }
        None => check_only_begun(env, root, &entries).map(|()| None),
    }
}

fn check_parent(env: &Env, root: &Path) -> Result<(), BrokerError> {
    let parent = match root.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => return Ok(()),
    };
    match env.files.exists(parent) {
        Ok(true) => Ok(()),
        Ok(false) => Err(invalid(format!(
            "cannot create the data directory {}: its parent does not exist; create it first (mkdir -p {}), or correct the path",
            root.display(),
            parent.display()
        ))),
        Err(e) => Err(io_error(&e, "look for", parent)),
    }
}

/// F18: who may write here may put anything in place of what was committed.
fn check_access(env: &Env, root: &Path) -> Result<(), BrokerError> {
    let found = env
        .files
        .access(root)
        .map_err(|e| io_error(&e, "look at the owner of", root))?;
    let (path, mode) = (root.display(), found.mode);
    if !found.is_ours {
        return Err(invalid(format!(
            "the data directory {path} belongs to the user with id {}: run as that user, or give the directory away (chown)",
            found.owner
        )));
    }
    if found.is_writable_by_all() {
        return Err(invalid(format!(
            "anybody may write to the data directory {path} (its mode is {mode:04o}): take that away (chmod 700 {path})"
        )));
    }
    if found.is_open_to_others() {
        crate::env::warn!(%path, mode = format!("{mode:04o}"), "the data directory is open to others than its owner");
    }
    Ok(())
}

fn check_complete(root: &Path, entries: &[DirEntry]) -> Result<(), BrokerError> {
    for name in [LOG, TOPICS] {
        if !entries.iter().any(|entry| entry.name == name) {
            return Err(half_copied(root, name));
        }
    }
    for entry in entries.iter().filter(|entry| !is_one_of(entry, KNOWN)) {
        crate::env::warn!(
            name = entry.name,
            "ignored a foreign file in the data directory"
        );
    }
    Ok(())
}

fn check_only_begun(env: &Env, root: &Path, entries: &[DirEntry]) -> Result<(), BrokerError> {
    if let Some(foreign) = entries.iter().find(|entry| !is_one_of(entry, KNOWN)) {
        return Err(invalid(format!(
            "{} is not an onceflow data directory and is not empty (it holds {:?}): choose an empty or a new directory",
            root.display(),
            foreign.name
        )));
    }
    let is_begun = |entry: &DirEntry| is_one_of(entry, BEGUN) || entry.name == META_TMP;
    if !entries.iter().all(is_begun) {
        return Err(half_copied(root, META));
    }
    let log = root.join(LOG);
    let is_log_empty = !entries.iter().any(|entry| entry.name == LOG)
        || env
            .files
            .read_dir(&log)
            .map_err(|e| io_error(&e, "list", &log))?
            .is_empty();
    let list = sealed::read::<TopicList>(&*env.files, &root.join(TOPICS))?;
    if !is_log_empty || list.is_some_and(|list| !list.topics.is_empty()) {
        return Err(half_copied(root, META));
    }
    Ok(())
}

fn is_one_of(entry: &DirEntry, names: &[&str]) -> bool {
    // A `.tmp` is what an interrupted replacement leaves (F20).
    names.contains(&entry.name.trim_end_matches(".tmp"))
}

/// Makes a data directory. `meta.json` comes last: it says that all else is there.
fn initialise(env: &Env, root: &Path) -> Result<Meta, BrokerError> {
    let files = &*env.files;
    let cluster_id = ClusterId(env.random.next_u128());
    let log = root.join(LOG);
    files
        .create_dir(&log)
        .map_err(|e| io_error(&e, "create", &log))?;
    sealed::write(files, &root.join(TOPICS), &TopicList::new(cluster_id))?;
    let meta = Meta {
        cluster_id: cluster_id.to_string(),
        broker_epoch: 0,
        whole_since: 0,
        cache_life: cache_life(env, root)?,
    };
    sealed::write(files, &root.join(META), &meta)?;
    // F10: the new directory's own name, too, must survive a power loss.
    if let Some(parent) = root
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        files
            .sync_dir(parent)
            .map_err(|e| io_error(&e, "sync", parent))?;
    }
    Ok(meta)
}

/// The life of the page cache behind the directory. It goes by the number of `log`, too, so that a copy has none that is known.
fn cache_life(env: &Env, root: &Path) -> Result<Option<String>, BrokerError> {
    let log = root.join(LOG);
    let life = env.files.cache_life(&log);
    life.map_err(|e| io_error(&e, "look at", &log))
}

fn lock(env: &Env, path: &Path) -> Result<Box<dyn Lock>, BrokerError> {
    env.files.lock(path).map_err(|e| match e {
        LockError::Held { owner } => invalid(format!(
            "the data directory {} is in use by process {owner}: only one process may have it open; stop that one, or choose another directory",
            path.parent().unwrap_or(path).display()
        )),
        LockError::Io(e) => io_error(&e, "lock", path),
    })
}

fn parse_cluster_id(meta: &Meta, root: &Path) -> Result<ClusterId, BrokerError> {
    meta.cluster_id.parse().map_err(|e| {
        BrokerError::corrupt(format!(
            "{}: the cluster id is damaged ({e}): restore the file from a backup",
            root.join(META).display()
        ))
    })
}

fn half_copied(root: &Path, missing: &str) -> BrokerError {
    BrokerError::corrupt(format!(
        "the data directory {} is not whole: {missing} is missing; copy the whole directory again, from a stopped process",
        root.display()
    ))
}

/// No client is refused here, so the code is only the nearest of Kafka's: the storage cannot be used.
fn invalid(message: String) -> BrokerError {
    BrokerError::fatal(ErrorCode::KafkaStorageError, message)
}
