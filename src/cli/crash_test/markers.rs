//! Fate of a partition's records, by the markers of their transactions.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};

use super::contents::ANSWER_MAX;
use crate::cli::session::Session;
use crate::env::Env;
use crate::log;
use crate::protocol::batch::{Batch, Batches, ControlType, DecompressionLimit};
use crate::protocol::messages::{FetchPartition, FetchRequest, OffsetSpec};
use crate::types::{Isolation, Offset, TopicPartition};

/// The directory of the partitions in a data directory.
const LOG_DIRECTORY: &str = "log";
/// The bytes that one answer of a cluster may have.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Records by what became of their transactions; those outside of transactions count as committed.
#[derive(Default)]
pub(super) struct Marked {
    pub(super) committed: u64,
    pub(super) aborted: u64,
    /// Of transactions without an end.
    pub(super) open: u64,
}

/// A count that goes on batch by batch.
struct Count {
    /// The offsets of the records that count.
    range: Range<Offset>,
    marked: Marked,
    /// The records of each producer that have no marker yet.
    pending: HashMap<i64, u64>,
}

/// Counts a partition's records from `start` on from its files.
pub(super) fn count_in_files(
    env: &Env,
    data: &Path,
    place: &TopicPartition,
    start: Offset,
) -> anyhow::Result<Marked> {
    let name = format!("{}-{}", place.topic, place.partition);
    let directory = data.join(LOG_DIRECTORY).join(name);
    let mut count = Count::of(start..Offset(i64::MAX));
    let mut failed = Ok(());
    let mut visit = |dumped: log::DumpedBatch| {
        failed = count.add(&dumped.batch);
        failed.is_ok()
    };
    let read = log::dump(env, &directory, &mut visit);
    read.with_context(|| format!("cannot read the files of {place}"))?;
    failed?;
    Ok(count.end())
}

/// Counts a partition's records in `range`, which begins with its first one, as the cluster sends them to those who want all. Markers
/// behind the range count: a transaction may end there.
pub(super) fn count_on_cluster(
    session: &Session,
    place: &TopicPartition,
    range: Range<Offset>,
) -> anyhow::Result<Marked> {
    let (admin, isolation) = (session.admin(), Isolation::ReadUncommitted);
    let end = admin.list_offset(place, OffsetSpec::Latest, isolation);
    let end = session.wait(end)?.map_or(range.end, |end| end.offset);
    let mut position = range.start;
    let mut count = Count::of(range);
    while position < end {
        let request = FetchRequest {
            partitions: vec![FetchPartition {
                partition: place.clone(),
                offset: position,
                max_bytes: ANSWER_BYTES_MAX,
            }],
            isolation,
            min_bytes: 1,
            max_bytes: ANSWER_BYTES_MAX,
            max_wait: ANSWER_MAX,
        };
        let before = position;
        for fetched in session.wait(session.transport().fetch(request))? {
            let fetched = fetched.result;
            let fetched = fetched.with_context(|| format!("cannot read {place} at {before}"))?;
            for batch in Batches::new(fetched.records) {
                let batch = batch?;
                count.add(&batch)?;
                position = batch.header().next_offset();
            }
        }
        if position <= before {
            bail!("{place} cannot be read from {before} to its end at {end}");
        }
    }
    Ok(count.end())
}

impl Count {
    fn of(range: Range<Offset>) -> Self {
        Self {
            range,
            marked: Marked::default(),
            pending: HashMap::new(),
        }
    }

    fn add(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let header = batch.header();
        let producer = header.producer.id.0;
        if header.is_control() {
            let records = self.pending.remove(&producer).unwrap_or(0);
            match batch.control()?.map(|control| control.kind) {
                Some(ControlType::Commit) => self.marked.committed += records,
                Some(ControlType::Abort) => self.marked.aborted += records,
                None => {}
            }
            return Ok(());
        }
        let mut records = batch.records(&DecompressionLimit::default())?;
        let mut count = 0;
        while let Some(record) = records.next() {
            count += u64::from(self.range.contains(&record?.offset));
        }
        match header.is_transactional() {
            true => *self.pending.entry(producer).or_default() += count,
            false => self.marked.committed += count,
        }
        Ok(())
    }

    fn end(self) -> Marked {
        Marked {
            open: self.pending.values().sum(),
            ..self.marked
        }
    }
}
