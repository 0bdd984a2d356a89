//! Rows that a job has open, for the message of a failed expectation: what stands in its stores at a time (windows, records that wait), and
//! timers.

use std::collections::BTreeMap;

use super::TestBed;
use crate::codec::{Codec, Datum};
use crate::runtime::task::changelog::changelog_topic;
use crate::runtime::task::timed_row::waiting;
use crate::runtime::task::timed_store::timed_key_type;
use crate::types::{Offset, Timestamp};

/// The most rows of a store that are told one by one, the first of them by time.
const TOLD_MAX: usize = 5;

/// Something that waits for its time.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Open {
    time: Timestamp,
    is_timer: bool,
    key: String,
}

impl TestBed {
    /// Rows that wait for event time or the clock in each store with time, as of the last commit, a line a store.
    pub(super) fn open_rows(&self) -> Vec<String> {
        let stores = self.topology.stores.iter().filter_map(|(store, schema)| {
            let key_type = timed_key_type(schema.key.as_str())?;
            let open = self.open_rows_of(store, key_type);
            (!open.is_empty()).then(|| format!("open in {store}: {}", told(&open)))
        });
        stores.collect()
    }

    /// The rows that the changelog leaves.
    fn open_rows_of(&self, store: &str, key_type: &str) -> Vec<Open> {
        let Ok(topic) = changelog_topic(&self.name, store) else {
            return Vec::new();
        };
        let mut rows = BTreeMap::new();
        for place in self.partitions_of(topic.as_str()) {
            for row in self.rows_from::<[u8], [u8]>(&place, Offset::ZERO) {
                let key = (row.partition, row.key.unwrap_or_default());
                match row.value {
                    Some(_) => rows.insert(key, ()),
                    None => rows.remove(&key),
                };
            }
        }
        let open = rows.keys().filter_map(|(_, row)| {
            let row = waiting(row)?;
            Some(Open {
                time: row.time,
                is_timer: row.is_timer,
                key: in_words(key_type, row.key),
            })
        });
        let mut open: Vec<Open> = open.collect();
        open.sort();
        open
    }
}

fn told(open: &[Open]) -> String {
    let first = open.iter().take(TOLD_MAX).map(|row| {
        let what = if row.is_timer { "timer of " } else { "" };
        format!("{what}{} at {}", row.key, row.time.0)
    });
    let mut told = first.collect::<Vec<_>>().join(", ");
    if let Some(more) = open.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
        told.push_str(&format!(", {more} more"));
    }
    told
}

/// A key as its type shows it, where that is a plain one; else its bytes.
fn in_words(key_type: &str, key: &[u8]) -> String {
    fn plain<T: Datum<Owned = T> + std::fmt::Debug>(key: &[u8]) -> Option<String> {
        let decoded = T::DefaultCodec::default().decode(key).ok()?;
        Some(format!("{:?}", decoded.into_owned()))
    }
    let words = match key_type {
        "text" => std::str::from_utf8(key).ok().map(|key| format!("{key:?}")),
        "str" => plain::<String>(key),
        "u64" | "u32" | "u16" => plain::<u64>(key),
        "i64" | "i32" | "i16" => plain::<i64>(key),
        _ => None,
    };
    words.unwrap_or_else(|| format!("b\"{}\"", key.escape_ascii()))
}
