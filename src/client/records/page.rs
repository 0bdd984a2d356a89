//! Rows of a page: the batches of a fetch, record by record, with what became of their transactions. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::bytes;
use crate::client::ProducerDescription;
use crate::client::consumer::{AbortFilter, Fate};
use crate::protocol::batch::{Batch, BatchError, Batches, ControlType, DecompressionLimit, Record};
use crate::protocol::messages::FetchedRecords;
use crate::types::{Isolation, Offset, ProducerId, ProducerIdentity, Timestamp};

/// The content of an offset.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// A record: its key, value and headers as JSON.
    Record {
        key: Value,
        value: Value,
        headers: Value,
    },
    /// The end of a transaction; a control record of another kind has none.
    Marker(Option<ControlType>),
    /// A batch whose records nobody can read, and why.
    Unreadable(String),
}

/// The fate of the transaction of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It was written without a transaction.
    Plain,
    Committed,
    Aborted,
    /// Nobody knows yet.
    Open,
    /// It was ended, and how stands behind the page.
    Ended,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Open => "open",
            Self::Ended => "ended",
        }
    }
}

/// One offset of a partition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) offset: Offset,
    time: Timestamp,
    pub(super) producer: ProducerIdentity,
    pub(super) state: State,
    /// Whether readers of committed records are shown it.
    is_visible: bool,
    pub(super) content: Content,
}

impl Row {
    /// The row of a record.
    pub(super) fn of_record(
        record: &Record<'_>,
        batch: &Batch,
        state: State,
        is_visible: bool,
    ) -> Self {
        let headers = record.headers.raw();
        let headers =
            headers.map(|(name, value)| json!([String::from_utf8_lossy(name), bytes::json(value)]));
        Self {
            offset: record.offset,
            time: record.timestamp,
            producer: batch.header().producer,
            state,
            is_visible,
            content: Content::Record {
                key: bytes::json(record.key),
                value: bytes::json(record.value),
                headers: headers.collect(),
            },
        }
    }

    fn beside(batch: &Batch, offset: Offset, state: State, content: Content) -> Self {
        Self {
            offset,
            time: batch.header().max_timestamp,
            producer: batch.header().producer,
            state,
            is_visible: false,
            content,
        }
    }

    /// The row as JSON. Times are milliseconds since 1970.
    pub(super) fn json(&self) -> Value {
        let producer = self.producer.id.is_some().then_some(self.producer);
        let mut row = json!({
            "offset": self.offset.0,
            "time": Some(self.time.0).filter(|_| self.time != Timestamp::NONE),
            "kind": "record",
            "transaction": self.state.name(),
            "is_visible": self.is_visible,
            "producer_id": producer.map(|it| it.id.0),
            "producer_epoch": producer.map(|it| it.epoch.0),
        });
        let told = match &self.content {
            Content::Record {
                key,
                value,
                headers,
            } => [
                ("key", key.clone()),
                ("value", value.clone()),
                ("headers", headers.clone()),
            ]
            .to_vec(),
            Content::Marker(kind) => {
                let kind = match kind {
                    Some(ControlType::Commit) => "commit",
                    Some(ControlType::Abort) => "abort",
                    None => "other",
                };
                [("kind", "marker".into()), ("marker", kind.into())].to_vec()
            }
            Content::Unreadable(why) => [
                ("kind", "unreadable".into()),
                ("error", why.as_str().into()),
            ]
            .to_vec(),
        };
        for (name, value) in told {
            row[name] = value;
        }
        row
    }
}

/// The rows from `from` on, at most `limit`, and the offset behind what was looked at.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<Row>,
    pub(super) next: Offset,
}

impl Page {
    /// The rows of what was fetched at `isolation`: below the last stable offset at `read_committed`, behind it at `read_uncommitted`.
    pub(super) fn of(
        fetched: FetchedRecords,
        from: Offset,
        isolation: Isolation,
        limit: usize,
    ) -> Result<Self, BatchError> {
        let ends = match isolation {
            Isolation::ReadCommitted => HashMap::new(),
            Isolation::ReadUncommitted => ends_of(&fetched)?,
        };
        let mut filter = AbortFilter::new(fetched.aborted_transactions);
        let mut page = Self {
            rows: Vec::new(),
            next: from,
        };
        for batch in Batches::new(fetched.records) {
            let batch = batch?;
            let fate = filter.judge(&batch)?;
            let header = batch.header();
            if header.next_offset() <= from {
                continue;
            }
            let is_transactional = header.is_transactional();
            let (state, is_visible) = match (fate, isolation) {
                (Fate::Aborted, _) => (State::Aborted, false),
                (Fate::Visible, Isolation::ReadCommitted) if is_transactional => {
                    (State::Committed, true)
                }
                (Fate::Visible, Isolation::ReadUncommitted) if is_transactional => (
                    end_behind(&ends, header.producer.id, header.base_offset),
                    false,
                ),
                (_, isolation) => (State::Plain, isolation == Isolation::ReadCommitted),
            };
            if let Fate::Control(kind) = fate {
                page.take(Row::beside(
                    &batch,
                    header.base_offset,
                    State::Plain,
                    Content::Marker(kind),
                ));
            } else {
                page.take_records(&batch, from, (state, is_visible), limit);
            }
            if page.rows.len() >= limit {
                return Ok(page);
            }
            page.next = page.next.max(header.next_offset());
        }
        Ok(page)
    }

    fn take(&mut self, row: Row) {
        self.next = row.offset.plus(1);
        self.rows.push(row);
    }

    fn take_records(&mut self, batch: &Batch, from: Offset, fate: (State, bool), limit: usize) {
        let (state, is_visible) = fate;
        let unreadable = |why: &BatchError, next: Offset| {
            let at = next.max(batch.header().base_offset);
            Row::beside(batch, at, state, Content::Unreadable(why.to_string()))
        };
        let records = match batch.records(&DecompressionLimit::default()) {
            Ok(records) => records,
            Err(why) => return self.take(unreadable(&why, self.next)),
        };
        for record in records.iter() {
            let record = match record {
                Ok(record) if record.offset < from => continue,
                Ok(record) => record,
                Err(why) => return self.take(unreadable(&why, self.next)),
            };
            if self.rows.len() >= limit {
                return;
            }
            self.take(Row::of_record(&record, batch, state, is_visible));
        }
    }

    /// Tells the transactions that are open from those that have ended, by what the partition says of its producers.
    pub(super) fn settle(&mut self, producers: &[ProducerDescription]) {
        let is_open = |row: &Row| {
            let mut of_row = producers
                .iter()
                .filter(|it| it.producer.id == row.producer.id);
            of_row.any(|it| {
                it.current_transaction_start
                    .is_some_and(|start| start <= row.offset)
            })
        };
        for row in &mut self.rows {
            if row.state == State::Open && !is_open(row) {
                row.state = State::Ended;
            }
        }
    }
}

/// Where each producer's transactions end in what was fetched.
type Ends = HashMap<ProducerId, Vec<(Offset, ControlType)>>;

fn ends_of(fetched: &FetchedRecords) -> Result<Ends, BatchError> {
    let mut ends = Ends::new();
    for batch in Batches::new(fetched.records.clone()) {
        let batch = batch?;
        if let Some(marker) = batch.control()? {
            let of_producer = ends.entry(batch.header().producer.id).or_default();
            of_producer.push((batch.header().base_offset, marker.kind));
        }
    }
    Ok(ends)
}

/// The state of the transaction that a producer had open at an offset.
fn end_behind(ends: &Ends, producer: ProducerId, offset: Offset) -> State {
    let mut of_producer = ends.get(&producer).into_iter().flatten();
    match of_producer.find(|(end, _)| *end > offset) {
        Some((_, ControlType::Commit)) => State::Committed,
        Some((_, ControlType::Abort)) => State::Aborted,
        None => State::Open,
    }
}

#[cfg(test)]
mod tests;
