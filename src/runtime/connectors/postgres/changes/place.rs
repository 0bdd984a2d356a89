//! [`Place`]: how far a table's changes were read, committed with the job's cycle.
//!
//! ```text
//! slot made ─► copy: rows in the order of their keys, in parts ─► stream: transactions in the order of their commits
//!                    │ each life of the job begins a part            │ what a row's part has seen already is left out
//! ```
//! The slot is there before the first row is copied (O13), so each transaction is in the copy, in the stream, or in both. A part was read
//! in one transaction of the database, whose snapshot says which others it saw.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Stands before a place's JSON.
const VERSION: u8 = 1;

/// The values of a row's key columns, in the order of the key.
pub(super) type Key = Vec<Value>;

/// A position in the changes of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The number of the slot's life.
    pub(super) slot: i64,
    /// The end of the last transaction that was read whole.
    pub(super) lsn: u64,
    /// The number of changes that were read of the next transaction that has any.
    pub(super) changes: u64,
    /// The parts of the copy, until no transaction comes any more that one may have seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<Part>,
    /// Whether all rows are copied.
    pub(super) is_copied: bool,
}

/// A part of the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) snapshot: Snapshot,
    /// No transaction whose commit stands here or behind was seen.
    pub(super) behind: u64,
    /// The last key of it that was read.
    pub(super) to: Option<Key>,
}

/// The transactions that a snapshot of PostgreSQL sees, by their 64-bit numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// All below are over.
    min: u64,
    /// None from here on had begun.
    max: u64,
    /// Those between that were under way.
    open: Vec<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip`, as `pg_current_snapshot()` prints it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (min, max) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let open = parts.next()?.split(',').filter(|it| !it.is_empty());
        let open = open.map(|it| it.parse().ok()).collect::<Option<_>>()?;
        Some(Self { min, max, open })
    }

    pub(super) fn min(&self) -> u64 {
        self.min
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Whether it sees a transaction, of whose number the log has 32 bits: those nearest to the snapshot are meant.
    fn sees(&self, xid: u32) -> bool {
        const ERA: u64 = 1 << 32;
        let mut xid = self.max / ERA * ERA + u64::from(xid);
        if xid > self.max + ERA / 2 && xid >= ERA {
            xid -= ERA;
        } else if xid + ERA / 2 < self.max {
            xid += ERA;
        }
        xid < self.min || (xid < self.max && !self.open.contains(&xid))
    }
}

impl Place {
    /// The bytes that are committed with the position.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        // A place has no map whose keys are no text, which is all that could fail.
        let _ = serde_json::to_writer(&mut bytes, self);
        bytes
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|e| {
                format!("its committed position cannot be read ({e}): the topic is the job's own, write nothing into it")
            }),
            Some((version, _)) => Err(format!(
                "its committed position is of version {version}, which this release does not know: run the newer one"
            )),
            None => Err("its committed position says nothing about the database".to_owned()),
        }
    }

    /// Begins a part of the copy; the last key of those before, behind which it goes on.
    pub(super) fn begin_part(&mut self, snapshot: Snapshot, behind: u64) -> Option<Key> {
        // One that read nothing leaves no trace.
        self.parts.pop_if(|part| part.to.is_none());
        let last = self.parts.last().and_then(|part| part.to.clone());
        self.parts.push(Part {
            snapshot,
            behind,
            to: None,
        });
        last
    }

    /// Notes that a row was copied.
    pub(super) fn copied(&mut self, key: Key) {
        if let Some(part) = self.parts.last_mut() {
            part.to = Some(key);
        }
    }

    /// Whether all of the copy was read when a transaction was over.
    pub(super) fn has_seen_whole(&self, xid: u32) -> bool {
        let mut parts = self.parts.iter();
        !self.parts.is_empty() && parts.all(|part| part.snapshot.sees(xid))
    }

    /// Notes that a transaction was read whole.
    pub(super) fn finish_transaction(&mut self, end: u64) {
        (self.lsn, self.changes) = (end, 0);
        if self.parts.iter().all(|part| part.behind <= end) {
            self.parts.clear();
        }
    }

    /// Whether the copy has what a transaction did to the row of a key.
    pub(super) fn has_seen(&self, xid: u32, key: &Key) -> bool {
        let is_of = |part: &&Part| part.to.as_ref().is_some_and(|to| compare(key, to).is_le());
        // All that lies behind the last key that was read is the last part's, too: there was nothing.
        let part = self.parts.iter().find(is_of).or(self.parts.last());
        part.is_some_and(|part| part.snapshot.sees(xid))
    }
}

/// Compares keys as the copy is sorted: numbers as numbers, text by its bytes.
fn compare(a: &Key, b: &Key) -> Ordering {
    let columns = a.iter().zip(b);
    let orders = columns.map(|(a, b)| match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_str().cmp(&b.as_str()),
    });
    orders.fold(Ordering::Equal, Ordering::then)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(snapshot: &str, to: Option<Value>) -> Part {
        Part {
            snapshot: Snapshot::parse(snapshot).unwrap(),
            behind: 100,
            to: to.map(|it| vec![it]),
        }
    }

    #[test]
    fn a_snapshot_sees_what_was_over_also_where_numbers_begin_anew() {
        let snapshot = Snapshot::parse("10:20:12,15").unwrap();
        let seen: Vec<u32> = (8..22).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]);
        let era = 1_u64 << 32;
        let snapshot = Snapshot::parse(&format!("{}:{}:", era + 3, era + 3)).unwrap();
        assert!(snapshot.sees(2) && !snapshot.sees(3) && snapshot.sees(u32::MAX));
        let before = Snapshot::parse(&format!("{}:{}:", era - 1, era - 1)).unwrap();
        assert!(!before.sees(2) && before.sees(u32::MAX - 2));
        assert_eq!(Snapshot::parse("3:4"), None);
    }

    #[test]
    fn o13_a_row_is_as_its_part_of_the_copy_saw_it() {
        let place = Place {
            is_copied: true,
            parts: vec![
                part("10:10:", Some(json!(5))),
                part("20:20:", Some(json!(9))),
            ],
            ..Place::default()
        };
        let seen = |xid, key: i64| place.has_seen(xid, &vec![json!(key)]);
        assert!(seen(9, 5) && !seen(12, 5));
        assert!(seen(12, 6) && !seen(20, 6));
        // Behind the last key there was nothing as of the last part.
        assert!(seen(12, 1_000));
        assert!(!Place::default().has_seen(1, &vec![json!(1)]));
    }

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let mut place = Place {
            slot: -7,
            lsn: 50,
            changes: 3,
            parts: vec![part("10:20:12", Some(json!("ä")))],
            is_copied: true,
        };
        assert_eq!(Place::of_bytes(&place.to_bytes()), Ok(place.clone()));
        assert!(Place::of_bytes(b"").is_err());
        assert!(Place::of_bytes(b"\x02{}").unwrap_err().contains("newer"));
        place.finish_transaction(99);
        assert_eq!((place.changes, place.parts.len()), (0, 1));
        place.finish_transaction(100);
        assert_eq!(place.parts, []);
    }
}
