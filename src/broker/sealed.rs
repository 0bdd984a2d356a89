//! A sealed file: a small JSON document with its format version and checksum, replaced as a whole.
//!
//! ```text
//! { "version": 1, "crc32c": "9ab1c2d3", "content": { … } }
//! ```
//! The checksum is CRC-32C over `content` as compact JSON in the order of its fields. A newer version is refused
//! before anything else of the file is believed (F21); a damaged file is refused with the reason (F23).

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::BrokerError;
use super::error::io_error;
use crate::env::Files;
use crate::protocol::ErrorCode;

/// The format version that this release writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;
/// No sealed file is larger, in bytes: about 100,000 topics with a few settings each.
const LENGTH_BYTES_MAX: u64 = 64 << 20;

#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    version: u32,
    crc32c: String,
    content: T,
}

/// Reads the file; `None` if it is absent.
///
/// # Errors
/// If it cannot be read, is of a newer version, or is damaged.
pub(crate) fn read<T: Serialize + DeserializeOwned>(
    files: &dyn Files,
    path: &Path,
) -> Result<Option<T>, BrokerError> {
    if !files
        .exists(path)
        .map_err(|e| io_error(&e, "look for", path))?
    {
        return Ok(None);
    }
    let bytes = files
        .read(path, LENGTH_BYTES_MAX)
        .map_err(|e| io_error(&e, "read", path))?;
    parse(&bytes, path).map(Some)
}

fn parse<T: Serialize + DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, BrokerError> {
    let damaged = |why: String| {
        BrokerError::corrupt(format!(
            "{} is damaged ({why}): restore it from a backup of the same data directory",
            path.display()
        ))
    };
    let head: Head = serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    if head.version > VERSION {
        return Err(BrokerError::new(
            ErrorCode::UnsupportedVersion,
            format!(
                "{} has format version {}; this release reads up to {VERSION}: use a newer release of onceflow. Nothing was changed",
                path.display(),
                head.version
            ),
        ));
    }
    if head.version == 0 {
        return Err(damaged("there is no version 0".to_owned()));
    }
    let document: Document<T> =
        serde_json::from_slice(bytes).map_err(|e| damaged(e.to_string()))?;
    let crc32c = checksum(&document.content).map_err(|e| damaged(e.to_string()))?;
    if crc32c != document.crc32c {
        let found = &document.crc32c;
        return Err(damaged(format!("its checksum is {crc32c}, not {found}")));
    }
    Ok(document.content)
}

/// Replaces the file, durably and at once.
///
/// # Errors
/// As the operating system says; then the old file stands.
pub(crate) fn write<T: Serialize>(
    files: &dyn Files,
    path: &Path,
    content: &T,
) -> Result<(), BrokerError> {
    let document = Document {
        version: VERSION,
        crc32c: checksum(content).map_err(|e| unserialisable(&e, path))?,
        content,
    };
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(|e| unserialisable(&e, path))?;
    bytes.push(b'\n');
    files
        .replace(path, &bytes)
        .map_err(|e| io_error(&e, "replace", path))
}

fn checksum<T: Serialize>(content: &T) -> serde_json::Result<String> {
    Ok(format!(
        "{:08x}",
        crc32c::crc32c(&serde_json::to_vec(content)?)
    ))
}

fn unserialisable(error: &serde_json::Error, path: &Path) -> BrokerError {
    let message = format!("the content of {} is not JSON: {error}", path.display());
    BrokerError::new(ErrorCode::UnknownServerError, message)
}
