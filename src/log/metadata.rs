//! The partition's own small text files: its identity, its leader epochs, and how far it was compacted.
//!
//! ```text
//! partition.metadata          "version: 0\ntopic_id: <22 characters>\n"
//! leader-epoch-checkpoint     see `leader_epochs.rs`
//! cleaner-offset-checkpoint   "0\n1\n<offset>\n": version, number of lines, then the offset below which all is compacted
//! ```

use std::path::Path;

use super::error::LogError;
use super::leader_epochs::LeaderEpochs;
use super::{derived, names};
use crate::env::Env;
use crate::types::{Offset, TopicId};

const TEXT_BYTES_MAX: u64 = 4096;
const EPOCHS_BYTES_MAX: u64 = 64 << 10;
const METADATA_VERSION: i64 = 0;

/// Writes the text files of a new partition, durably.
pub(super) fn write(env: &Env, dir: &Path, topic_id: TopicId) -> Result<(), LogError> {
    let text = format!("version: {METADATA_VERSION}\ntopic_id: {topic_id}\n");
    replace(env, &dir.join(names::METADATA), &text)?;
    replace(
        env,
        &dir.join(names::LEADER_EPOCHS),
        &LeaderEpochs::default().text(),
    )?;
    write_cleaned_end(env, dir, Offset::ZERO)
}

/// Reads the partition's identity.
pub(super) fn read(env: &Env, dir: &Path) -> Result<TopicId, LogError> {
    let path = dir.join(names::METADATA);
    let bytes = env
        .files
        .read(&path, TEXT_BYTES_MAX)
        .map_err(LogError::io("read", &path))?;
    parse_metadata(&bytes, &path)
}

/// Whether the leader epochs stand in their file.
pub(super) fn has_epochs(env: &Env, dir: &Path, epochs: &LeaderEpochs) -> bool {
    let read = env
        .files
        .read(&dir.join(names::LEADER_EPOCHS), EPOCHS_BYTES_MAX);
    read.is_ok_and(|bytes| bytes == epochs.text().as_bytes())
}

/// Writes the leader epochs. They are not synced: nothing but Kafka's tools reads them, and they are written again.
pub(super) fn write_epochs(env: &Env, dir: &Path, epochs: &LeaderEpochs) -> Result<(), LogError> {
    derived::write_file(
        env,
        &dir.join(names::LEADER_EPOCHS),
        epochs.text().as_bytes(),
    )
}

/// Reads the partition's identity and changes nothing.
pub(super) fn parse_metadata(bytes: &[u8], path: &Path) -> Result<TopicId, LogError> {
    let damaged = |why: &str| LogError::corrupt(path, 0, why);
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let mut lines = text.lines();
    let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name));
    let version: i64 = field("version: ")
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| damaged("its first line is not \"version: 0\""))?;
    if version > METADATA_VERSION {
        return Err(LogError::NewerFormat {
            path: path.to_owned(),
            found: version,
            supported: METADATA_VERSION,
        });
    }
    field("topic_id: ")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| damaged("its second line is not \"topic_id: \" and an id"))
}

/// Up to where the log was compacted; `None` if nobody knows, because the file is missing or damaged.
pub(super) fn read_cleaned_end(env: &Env, dir: &Path) -> Option<Offset> {
    let bytes = env
        .files
        .read(&dir.join(names::CLEANER), TEXT_BYTES_MAX)
        .ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    let offset: i64 = text
        .strip_prefix("0\n1\n")?
        .strip_suffix('\n')?
        .parse()
        .ok()?;
    (offset >= 0).then_some(Offset(offset))
}

/// Announces, durably, that offsets below `cleaned_end` may be missing.
pub(super) fn write_cleaned_end(
    env: &Env,
    dir: &Path,
    cleaned_end: Offset,
) -> Result<(), LogError> {
    replace(
        env,
        &dir.join(names::CLEANER),
        &format!("0\n1\n{cleaned_end}\n"),
    )
}

fn replace(env: &Env, path: &Path, text: &str) -> Result<(), LogError> {
    env.files
        .replace(path, text.as_bytes())
        .map_err(LogError::io("write", path))
}
