//! The history of a group's positions: which commit went over an offset, and what else it committed.

use super::LookError;
use super::bisect::{Bisect, Side};
use super::walk::{Marks, Walk, corrupt};
use crate::broker::offsets_journal::{Key, decode_value};
use crate::client::Transport;
use crate::client::consumer::{AbortFilter, Fate};
use crate::protocol::batch::{Batch, BatchError, Batches, DecompressionLimit, Header};
use crate::protocol::varint;
use crate::types::{GroupId, Isolation, Offset, ProducerIdentity, Timestamp, TopicPartition};

/// No probe reads more of the history.
const PROBE_BYTES_MAX: usize = 32 << 20;
/// The marker of a commit is looked for so far behind it.
const MARKER_BYTES_MAX: usize = 8 << 20;

/// The first version of a position with compact strings.
const FLEXIBLE_VERSION: i16 = 4;
const LEADER_EPOCH_BYTES: usize = 4;

/// A position that a group committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    /// Where its record lies in the history.
    pub(super) at: Offset,
    /// Whose transaction it was in; `None` without one.
    pub(super) producer: Option<ProducerIdentity>,
    pub(super) position: Offset,
    /// When it was committed (wall clock).
    pub(super) time: Timestamp,
}

/// The partition of the history that has a group: Kafka's rule.
pub(super) fn partition_of(group: &GroupId, partitions_count: i32) -> i32 {
    let units = group.as_str().encode_utf16();
    let hash = units.fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // `i32::MIN` has no absolute value: Kafka takes 0 for it.
    hash.checked_abs().unwrap_or(0) % partitions_count.max(1)
}

/// The positions in a batch that belong to a group: offset of the record, partition, position, time.
fn positions_in(
    batch: &Batch,
    group: &GroupId,
) -> Result<Vec<(Offset, TopicPartition, Offset, Timestamp)>, BatchError> {
    let mut found = Vec::new();
    for record in batch.records(&DecompressionLimit::default())?.iter() {
        let record = record?;
        let (Some(key), Some(value)) = (record.key, record.value) else {
            continue;
        };
        // Records of other kinds are none of our business.
        let (Ok(Key::Offset(of, place)), Some((position, time))) =
            (Key::decode(key), position_of(value))
        else {
            continue;
        };
        if of == *group {
            found.push((record.offset, place, position, time));
        }
    }
    Ok(found)
}

/// The position in a value of the history, and when it was committed. Apache Kafka writes version 4 since 4.2, which has compact strings and
/// tags:
///
/// ```text
/// i16 version = 4 | i64 offset | i32 leader epoch | compact string metadata | i64 commit ms | tags
/// ```
fn position_of(value: &[u8]) -> Option<(Offset, Timestamp)> {
    if let Ok((committed, time)) = decode_value(value) {
        return Some((committed.offset, time));
    }
    let (version, rest) = value.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    if i16::from_be_bytes(*version) < FLEXIBLE_VERSION {
        return None;
    }
    let mut rest = rest.get(LEADER_EPOCH_BYTES..)?;
    let length = varint::read_u64(&mut rest)?.checked_sub(1)?;
    let rest = rest.get(usize::try_from(length).ok()?..)?;
    let (time, _) = rest.split_first_chunk()?;
    let position = Offset(i64::from_be_bytes(*offset));
    Some((position, Timestamp(i64::from_be_bytes(*time))))
}

/// Who wrote a batch in a transaction.
fn transaction_of(header: &Header) -> Option<ProducerIdentity> {
    header.is_transactional().then_some(header.producer)
}

/// Whether a reader has seen every offset: compaction leaves gaps.
#[derive(Debug, Clone, Copy)]
struct Gapless {
    next: Offset,
    is_so: bool,
}

impl Gapless {
    fn from(next: Offset) -> Self {
        Self { next, is_so: true }
    }

    fn note(&mut self, header: &Header) {
        let is_full = i64::from(header.records_count) == i64::from(header.last_offset_delta) + 1;
        self.is_so &= is_full && header.base_offset <= self.next;
        self.next = self.next.max(header.next_offset());
    }
}

/// The history of one group's positions in one partition.
pub(super) struct History<'t> {
    pub(super) transport: &'t dyn Transport,
    pub(super) journal: &'t TopicPartition,
    pub(super) group: &'t GroupId,
    pub(super) place: &'t TopicPartition,
}

/// The commit that went over an offset, and the position before it, if there was one.
#[derive(Debug)]
pub(super) struct Crossing {
    pub(super) commit: Commit,
    pub(super) before: Option<Offset>,
}

/// The other half of a transaction in the history.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// The positions that it committed.
    pub(super) positions: Vec<(TopicPartition, Offset)>,
    /// The epoch of its marker, if that was found.
    pub(super) marker_epoch: Option<i16>,
}

impl History<'_> {
    /// The commit that went over `offset`.
    ///
    /// # Errors
    /// If it is not known any more, or too far to be found.
    pub(super) async fn crossing(&self, offset: Offset) -> Result<Crossing, LookError> {
        let marks = Marks::of(self.transport, self.journal).await?;
        let mut bisect = Bisect::new(marks.start, marks.stable);
        let (mut before, mut behind) = (None, None);
        // Between the two nothing may be missing; and before the first position of all, nothing either.
        let mut is_gapless = true;
        while let Some(probe) = bisect.probe() {
            let (seen, is_read_gapless) = self.first(probe, bisect.high(), offset).await?;
            let side = |commit: &Commit| match commit.position > offset {
                true => Side::Behind,
                false => Side::Before,
            };
            let told = seen.as_ref().map(|commit| (commit.at, side(commit)));
            bisect.step(probe, told);
            match (told, seen) {
                (Some((_, Side::Before)), commit) => before = commit,
                (told, commit) => {
                    is_gapless &= is_read_gapless;
                    if told.is_some() {
                        behind = commit;
                        is_gapless = is_read_gapless;
                    }
                }
            }
        }
        let is_begin_known = before.is_some() || marks.start == Offset::ZERO;
        match behind {
            Some(commit) if is_gapless && is_begin_known => Ok(Crossing {
                commit,
                before: before.map(|commit: Commit| commit.position),
            }),
            _ => Err(LookError::Forgotten {
                job: self.group.clone(),
                place: self.place.clone(),
                offset,
            }),
        }
    }

    /// The first position of the partition from `from` on, below `until`; and whether nothing is missing up to it.
    async fn first(
        &self,
        from: Offset,
        until: Offset,
        wanted: Offset,
    ) -> Result<(Option<Commit>, bool), LookError> {
        let bounds = (from, until);
        let mut walk = Walk::new(
            self.transport,
            self.journal,
            Isolation::ReadCommitted,
            bounds,
            PROBE_BYTES_MAX,
        );
        let mut gapless = Gapless::from(from);
        while let Some(fetched) = walk.next().await? {
            let mut filter = AbortFilter::new(fetched.aborted_transactions);
            for batch in Batches::new(fetched.records) {
                let found = batch.and_then(|batch| {
                    if batch.header().base_offset >= until {
                        return Ok(None);
                    }
                    gapless.note(batch.header());
                    match filter.judge(&batch)? {
                        Fate::Visible => self.first_in(&batch, from),
                        Fate::Aborted | Fate::Control(_) => Ok(None),
                    }
                });
                let found = found.map_err(|e| corrupt(self.journal, from, &e))?;
                if let Some(commit) = found.filter(|commit| commit.at < until) {
                    return Ok((Some(commit), gapless.is_so));
                }
            }
        }
        match walk.is_cut_short() {
            true => Err(LookError::TooFar {
                place: self.place.clone(),
                offset: wanted,
                mib: PROBE_BYTES_MAX >> 20,
            }),
            false => Ok((None, gapless.is_so)),
        }
    }

    fn first_in(&self, batch: &Batch, from: Offset) -> Result<Option<Commit>, BatchError> {
        let positions = positions_in(batch, self.group)?.into_iter();
        let mut own = positions.filter(|(at, place, ..)| *at >= from && place == self.place);
        let producer = transaction_of(batch.header());
        Ok(own.next().map(|(at, _, position, time)| Commit {
            at,
            producer,
            position,
            time,
        }))
    }

    /// The other positions of a commit's transaction, and its marker.
    pub(super) async fn whole(&self, commit: &Commit) -> Result<Whole, LookError> {
        let mut whole = Whole::default();
        let marks = Marks::of(self.transport, self.journal).await?;
        let bounds = (commit.at, marks.stable);
        let mut walk = Walk::new(
            self.transport,
            self.journal,
            Isolation::ReadCommitted,
            bounds,
            MARKER_BYTES_MAX,
        );
        let corrupt = |e: BatchError| corrupt(self.journal, commit.at, &e);
        while let Some(fetched) = walk.next().await? {
            for batch in Batches::new(fetched.records) {
                let batch = batch.map_err(corrupt)?;
                let header = batch.header();
                match commit.producer {
                    // Without a transaction only its own batch belongs to it.
                    None if header.base_offset > commit.at => return Ok(whole),
                    Some(producer) if header.producer.id != producer.id => continue,
                    Some(_) if header.is_control() => {
                        whole.marker_epoch = Some(header.producer.epoch.0);
                        return Ok(whole);
                    }
                    _ => {}
                }
                let positions = positions_in(&batch, self.group).map_err(corrupt)?;
                let positions = positions.into_iter();
                whole
                    .positions
                    .extend(positions.map(|(_, place, position, _)| (place, position)));
            }
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::{BatchBuilder, BatchProducer, Compression};

    #[test]
    fn a_group_is_in_the_partition_that_kafka_gives_it() {
        // By `Math.abs("…".hashCode()) % 50` of Java.
        for (group, partition) in [("word-count", 0), ("a", 47), ("shop", 12)] {
            let group = GroupId::new(group).unwrap();
            assert_eq!(partition_of(&group, 50), partition, "{group}");
        }
        assert_eq!(partition_of(&GroupId::new("a").unwrap(), 1), 0);
        // Of which the hash is `Integer.MIN_VALUE`.
        assert_eq!(
            partition_of(&GroupId::new("polygenelubricants").unwrap(), 50),
            0
        );
    }

    #[test]
    fn a_position_as_kafka_4_2_writes_it_is_read() {
        let mut value = vec![0, 4];
        value.extend(7i64.to_be_bytes());
        value.extend((-1i32).to_be_bytes());
        value.extend([5, b'n', b'o', b't', b'e']);
        value.extend(1_234i64.to_be_bytes());
        let end = value.len();
        // A tag: the topic's id.
        value.extend([1, 0, 16]);
        value.extend([9; 16]);
        let read = Some((Offset(7), Timestamp(1_234)));
        assert_eq!(position_of(&value), read);
        for length in 0..end {
            assert_eq!(position_of(&value[..length]), None, "{length}");
        }
        value[1] = 1;
        assert_eq!(position_of(&value), None);
    }

    #[test]
    fn a_gap_that_compaction_left_is_seen() {
        let header = |base: i64, last_offset_delta: i32, records_count: i32| {
            let mut builder = BatchBuilder::new(Compression::None, None);
            builder.push(Timestamp(7), None, Some(b"value"));
            let batch = builder.finish(BatchProducer::Plain);
            Header {
                base_offset: Offset(base),
                last_offset_delta,
                records_count,
                ..Header::parse(&batch).unwrap()
            }
        };
        let is_gapless = |headers: &[Header]| {
            let mut gapless = Gapless::from(Offset(5));
            headers.iter().for_each(|header| gapless.note(header));
            gapless.is_so
        };
        // A fetch begins with the whole batch that has the offset.
        assert!(is_gapless(&[header(3, 4, 5), header(8, 0, 1)]));
        assert!(!is_gapless(&[header(6, 0, 1)]), "before the first");
        assert!(!is_gapless(&[header(5, 0, 1), header(7, 0, 1)]), "between");
        assert!(!is_gapless(&[header(5, 2, 2)]), "within");
    }
}
