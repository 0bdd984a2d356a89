//! The manifest: for each part of a job a chain of entries, each the data files of one commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::storage::{Problem, Put, Storage};
use crate::runtime::Marks;

/// A data file that is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// Its path from where the table is.
    pub name: String,
    /// The number of its rows.
    pub rows: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

/// An entry, which is also the mark of the part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The number of the commit among those of the part, from 1.
    pub(super) sequence: u64,
    /// The attempt of the job that wrote the files.
    pub(super) lineage: u64,
    pub(super) files: Vec<PublishedFile>,
}

impl Entry {
    fn of(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }
}

/// The manifest of a job.
#[derive(Clone)]
pub(super) struct Manifest {
    storage: Arc<dyn Storage>,
    job: String,
}

fn number_of(entry: &str) -> Option<u64> {
    entry.strip_suffix(".json")?.parse().ok()
}

impl Manifest {
    pub(super) fn open(storage: Arc<dyn Storage>, job: &str) -> Result<Self, Problem> {
        storage.create(&["data", job])?;
        storage.create(&["manifest", job])?;
        storage.check(&format!("manifest/{job}/probe.json"))?;
        Ok(Self {
            storage,
            job: job.to_owned(),
        })
    }

    fn folder(&self, part: &str) -> String {
        format!("manifest/{}/{part}", self.job)
    }

    fn path(&self, part: &str, sequence: u64) -> String {
        format!("{}/{sequence:020}.json", self.folder(part))
    }

    /// The number of the last entry of each part.
    pub(super) fn last(&self, marks: &Marks) -> Result<BTreeMap<String, u64>, Problem> {
        let mut last = BTreeMap::new();
        for part in self.storage.folders(&format!("manifest/{}", self.job))? {
            // Entries have no gaps, so the one before the mark's is enough of those that earlier starts have seen.
            let mark = marks.get(&part).and_then(|mark| Entry::of(mark).ok());
            let known = mark.map_or(0, |entry| entry.sequence.saturating_sub(1));
            let newest = match self.newest(&part, known)? {
                None if known > 0 => self.newest(&part, 0)?,
                newest => newest,
            };
            last.insert(part, newest.unwrap_or(0));
        }
        Ok(last)
    }

    /// The number of the last entry of a part, from a number on.
    fn newest(&self, part: &str, from: u64) -> Result<Option<u64>, Problem> {
        let entries = self
            .storage
            .list(&self.folder(part), &format!("{from:020}"))?;
        Ok(entries.iter().filter_map(|entry| number_of(entry)).max())
    }

    /// Publishes what the mark of a part covers, if a crash left it out.
    pub(super) fn finish(
        &self,
        part: &str,
        mark: &[u8],
        last: &mut BTreeMap<String, u64>,
    ) -> Result<(), Problem> {
        let entry = Entry::of(mark).map_err(|e| {
            Problem::refused(format!(
                "the mark of {part} is not from this version of Onceflow: {e}"
            ))
        })?;
        let last = last.entry(part.to_owned()).or_default();
        let sequence = entry.sequence;
        if *last + 1 < sequence {
            return Err(Problem::refused(format!(
                "the job has published commit {sequence} of {part}, and the manifest ends at {last}: it is another place, or was \
                 restored from an older copy: then begin the job from a savepoint of that time"
            )));
        }
        self.publish(part, &entry)?;
        *last = sequence.max(*last);
        Ok(())
    }

    /// Creates an entry. One that is there already, or may be, is read back (O6): it is this one, or somebody else's.
    pub(super) fn publish(&self, part: &str, entry: &Entry) -> Result<(), Problem> {
        let path = self.path(part, entry.sequence);
        let bytes = serde_json::to_vec(entry).map_err(|e| Problem::refused(e.to_string()))?;
        let absent = match self.storage.put_entry(&path, &bytes) {
            Ok(Put::Done) => return Ok(()),
            Ok(Put::Exists) => Problem {
                why: format!("{path} is there already, and cannot be read"),
                is_passing: true,
            },
            Err(unknown) if unknown.is_passing => unknown,
            Err(refused) => return Err(refused),
        };
        let found = self.storage.read(&path)?.ok_or(absent)?;
        match Entry::of(&found) {
            Ok(found) if found == *entry => Ok(()),
            _ => Err(Problem::refused(format!(
                "{path} is of another job or another attempt: give the job another name, or the sink another place"
            ))),
        }
    }

    /// Begins to write a part behind its last entry.
    pub(super) fn part(
        self,
        name: &str,
        last: u64,
        lineage: u64,
        ending: &'static str,
    ) -> Result<Part, Problem> {
        self.storage.create(&["data", &self.job, name])?;
        self.storage.create(&["manifest", &self.job, name])?;
        Ok(Part {
            manifest: self,
            name: name.to_owned(),
            lineage,
            next: last + 1,
            first: last + 1,
            ending,
        })
    }
}

/// The committed files of all jobs and parts.
pub(super) fn published(storage: &dyn Storage) -> Result<Vec<PublishedFile>, Problem> {
    let mut files = Vec::new();
    for job in storage.folders("manifest")? {
        for part in storage.folders(&format!("manifest/{job}"))? {
            let folder = format!("manifest/{job}/{part}");
            let mut entries = storage.list(&folder, "")?;
            entries.retain(|entry| number_of(entry).is_some());
            entries.sort_unstable();
            for (entry, expected) in entries.iter().zip(1..) {
                let path = format!("{folder}/{entry}");
                let damaged = |why: String| Problem::refused(format!("{path} is damaged: {why}"));
                if number_of(entry) != Some(expected) {
                    return Err(damaged(format!(
                        "the entry {expected} before it is missing"
                    )));
                }
                let bytes = storage.read(&path)?.unwrap_or_default();
                let entry: Entry =
                    serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
                files.extend(entry.files);
            }
        }
    }
    Ok(files)
}

/// A part that is being written.
pub(super) struct Part {
    manifest: Manifest,
    pub(super) name: String,
    lineage: u64,
    /// The number of the open cycle's entry.
    next: u64,
    /// The number of the first entry of this attempt.
    first: u64,
    ending: &'static str,
}

impl Part {
    fn folder(&self) -> String {
        format!("data/{}/{}", self.manifest.job, self.name)
    }

    /// Writes a data file of the open cycle, durably.
    pub(super) fn put_file(
        &self,
        number: usize,
        rows: u64,
        bytes: Vec<u8>,
    ) -> Result<PublishedFile, Problem> {
        let Self {
            next,
            lineage,
            ending,
            ..
        } = self;
        let name = format!(
            "{}/{next:020}-{lineage:016x}-{number:06}.{ending}",
            self.folder()
        );
        let file = PublishedFile {
            name,
            rows,
            bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(&bytes),
        };
        self.manifest.storage.put_file(&file.name, bytes)?;
        Ok(file)
    }

    /// Closes the cycle's entry.
    pub(super) fn close_entry(&mut self, files: Vec<PublishedFile>) -> Entry {
        let sequence = self.next;
        self.next += 1;
        Entry {
            sequence,
            lineage: self.lineage,
            files,
        }
    }

    pub(super) fn publish(&self, entry: &Entry) -> Result<(), Problem> {
        self.manifest.publish(&self.name, entry)?;
        if entry.sequence == self.first {
            self.remove_leftovers(entry)?;
        }
        Ok(())
    }

    /// Removes files that waited for the same number: since the entry is there, they never become part of the table.
    fn remove_leftovers(&self, entry: &Entry) -> Result<(), Problem> {
        let (folder, storage) = (self.folder(), &self.manifest.storage);
        let prefix = format!("{:020}-", entry.sequence);
        for name in storage.list(&folder, &prefix)? {
            let path = format!("{folder}/{name}");
            if name.starts_with(&prefix) && !entry.files.iter().any(|file| file.name == path) {
                storage.remove(&path)?;
            }
        }
        Ok(())
    }
}
