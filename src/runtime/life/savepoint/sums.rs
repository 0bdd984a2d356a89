//! [`Sums`]: checksums of files that do not change any more, kept from one savepoint to the next.
//!
//! RocksDB writes a table's file once. Whoever finds it with the same length and the same time of its last change, under the same name and
//! number, need not read it again. `savepoint.sums` in the job's state directory holds them; a driver whose job has had a savepoint sums up
//! new files every few seconds, so that the next savepoint has little to read. Damage since then is found when a savepoint is verified.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{SavedFile, describe_file};
use crate::broker::sealed;
use crate::env::{Env, Files};
use crate::runtime::contract::error::JobError;

/// The file of the checksums, in the job's state directory.
const FILE: &str = "savepoint.sums";
/// A file that changed since is being written, perhaps.
const QUIET_NS: i128 = 1_000_000_000;

/// A file that is not written any more, and its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Summed {
    name: String,
    inode: u64,
    /// In nanoseconds since 1970.
    modified_ns: i64,
    length_bytes: u64,
    crc32c: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    files: Vec<Summed>,
}

/// The checksums that are known.
#[derive(Default)]
pub(super) struct Sums {
    known: BTreeMap<String, Summed>,
}

impl Sums {
    /// Those that the state directory has; none if they are damaged, which costs time only.
    pub(super) fn read(files: &dyn Files, state: &Path) -> Self {
        let read = sealed::read::<Content>(files, &state.join(FILE))
            .ok()
            .flatten();
        let known = read.unwrap_or_default().files.into_iter();
        Self {
            known: known.map(|it| (it.name.clone(), it)).collect(),
        }
    }

    /// Keeps those of the files that are in the database.
    pub(super) fn write(self, files: &dyn Files, state: &Path) -> Result<(), JobError> {
        let there = files.read_dir(&state.join("rocksdb"));
        let there = there.map_err(|e| super::refused(state, e))?;
        let is_there = |name: &String| there.iter().any(|entry| entry.name == *name);
        let known = self.known.into_values();
        let content = Content {
            files: known.filter(|it| is_there(&it.name)).collect(),
        };
        Ok(sealed::write(files, &state.join(FILE), &content)?)
    }

    /// The length and the checksum of a file below `root`; it is read if need be.
    pub(super) fn describe(
        &mut self,
        files: &dyn Files,
        root: &Path,
        path: &str,
    ) -> io::Result<SavedFile> {
        let Some(mut found) = look_at(files, root, path)? else {
            return describe_file(files, root, path);
        };
        let known = self.known.get(&found.name);
        if let Some(known) = known.filter(|known| is_same(known, &found)) {
            return Ok(SavedFile {
                path: path.to_owned(),
                length_bytes: known.length_bytes,
                crc32c: known.crc32c.clone(),
            });
        }
        let described = describe_file(files, root, path)?;
        // Nothing came behind it meanwhile.
        if described.length_bytes == found.length_bytes {
            found.crc32c.clone_from(&described.crc32c);
            self.known.insert(found.name.clone(), found);
        }
        Ok(described)
    }
}

fn is_same(known: &Summed, found: &Summed) -> bool {
    (known.inode, known.modified_ns, known.length_bytes)
        == (found.inode, found.modified_ns, found.length_bytes)
}

/// The file as the system knows it, without a checksum; `None` if it may change, or cannot be told from others.
fn look_at(files: &dyn Files, root: &Path, path: &str) -> io::Result<Option<Summed>> {
    let Some(name) = path
        .strip_prefix("rocksdb/")
        .filter(|it| it.ends_with(".sst"))
    else {
        return Ok(None);
    };
    let file = files.open(&root.join(path), crate::env::OpenMode::Read)?;
    let status = file.status()?;
    let modified_ns = i64::try_from(status.modified_ns).unwrap_or(0);
    let is_known = status.identity.inode != 0 && modified_ns != 0;
    Ok(match is_known {
        true => Some(Summed {
            name: name.to_owned(),
            inode: status.identity.inode,
            modified_ns,
            length_bytes: file.length_bytes()?,
            crc32c: String::new(),
        }),
        false => None,
    })
}

/// Whether the job has had a savepoint, so that another one may come.
pub(in crate::runtime::life) fn has_savepoints(env: &Env, state: &Path) -> bool {
    env.files.exists(&state.join(FILE)).unwrap_or(false)
}

/// Sums up the files of a job's database that have come since the last time, and are not being written.
///
/// # Errors
/// If the disk fails.
pub(in crate::runtime::life) fn sum_up(env: &Env, state: &Path) -> Result<(), JobError> {
    let files = &*env.files;
    let failed = |e: io::Error| super::refused(state, e);
    let mut sums = Sums::read(files, state);
    let before = sums.known.len();
    let now_ns = i128::from(env.clock.wall().0) * 1_000_000;
    for entry in files.read_dir(&state.join("rocksdb")).map_err(failed)? {
        let path = format!("rocksdb/{}", entry.name);
        let described = match look_at(files, state, &path) {
            Ok(Some(found)) if now_ns - i128::from(found.modified_ns) > QUIET_NS => {
                sums.describe(files, state, &path).map(drop)
            }
            other => other.map(drop),
        };
        match described {
            // RocksDB needed it no longer.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    match sums.known.len() == before {
        true => Ok(()),
        false => sums.write(files, state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::OpenMode;

    #[test]
    fn the_checksums_of_files_have_these_bytes() {
        let content = Content {
            files: vec![Summed {
                name: "000007.sst".to_owned(),
                inode: 12,
                modified_ns: 5,
                length_bytes: 9,
                crc32c: "00000001".to_owned(),
            }],
        };
        let bytes = serde_json::to_string(&content).unwrap();
        assert_eq!(
            bytes,
            r#"{"files":[{"name":"000007.sst","inode":12,"modified_ns":5,"length_bytes":9,"crc32c":"00000001"}]}"#
        );
        assert_eq!(serde_json::from_str::<Content>(&bytes).unwrap(), content);
    }

    #[test]
    fn a_file_is_read_again_only_if_it_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let (env, state) = (Env::real(), folder.path());
        let files = &*env.files;
        files.create_dir(&state.join("rocksdb")).unwrap();
        let make = |name: &str, byte: u8| {
            let path = state.join("rocksdb").join(name);
            let _ = files.remove_file(&path);
            let file = files.open(&path, OpenMode::CreateNew).unwrap();
            file.write_all_at(&[byte; 100], 0).unwrap();
        };
        let [first, other] = ["rocksdb/000007.sst", "rocksdb/CURRENT"];
        make("000007.sst", 1);
        make("CURRENT", 1);
        let mut sums = Sums::default();
        let [sst, current] = [first, other].map(|it| sums.describe(files, state, it).unwrap());
        assert_eq!(sst, describe_file(files, state, first).unwrap());
        assert_eq!(sums.known.len(), 1, "only what does not change is kept");
        sums.write(files, state).unwrap();
        let mut sums = Sums::read(files, state);
        // A mark on what is kept shows that it is taken.
        sums.known.get_mut("000007.sst").unwrap().crc32c = "kept".to_owned();
        assert_eq!(sums.describe(files, state, first).unwrap().crc32c, "kept");
        assert_eq!(sums.describe(files, state, other).unwrap(), current);
        // The same name and length, another file.
        env.clock.sleep(std::time::Duration::from_millis(20));
        make("000007.sst", 2);
        let again = sums.describe(files, state, first).unwrap();
        assert_eq!(again, describe_file(files, state, first).unwrap());
        assert_ne!(again, sst);
        files.remove_file(&state.join(first)).unwrap();
        sums.write(files, state).unwrap();
        assert!(Sums::read(files, state).known.is_empty());
        assert!(has_savepoints(&env, state));
    }
}
