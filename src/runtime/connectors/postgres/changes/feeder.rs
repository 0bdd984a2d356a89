//! [`Feeder`]: the thread that copies the table and looks at its slot.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::Sender;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};
use tokio_postgres::types::ToSql;

use super::super::session::{Problem, Server, Session};
use super::super::{FIRST_PAUSE, LONGEST_PAUSE};
use super::json::{Tables, key_of, shown_key};
use super::place::{Key, Place, Snapshot};
use super::slot::{Confirmed, Slot, Table, end_of_log, snapshot};
use super::wire::{Field, Message, parse};
use super::{Link, PostgresChanges, RowChangeKind, Settings, failed};
use tracing::info;

use crate::env::{Env, Instant, warn};
use crate::runtime::task::progress::Progress;
use crate::runtime::{JobContext, JobError, Split};
use crate::types::{Offset, Timestamp};

/// The steps of a lot.
const LOT: usize = 1_000;
/// A look at the slot ends with the transaction that exceeds so many changes.
const CHANGES_PER_LOOK: i32 = 100_000;
/// The slot is not moved for less: what we note of it is in the log, too.
const QUIET_BYTES_MIN: u64 = 64 << 10;
/// The pause between two looks whether all that was read is committed.
const COMMIT_LOOK: Duration = Duration::from_millis(5);

/// A step of the reader.
pub(super) enum Step {
    /// The slot is there.
    Begun(Place),
    /// A part of the copy begins.
    Part { snapshot: Snapshot, behind: u64 },
    /// A row of it.
    Copy {
        key: Key,
        change: Value,
        time: Timestamp,
    },
    /// All rows are copied.
    Copied,
    /// A change of the log.
    Change {
        change: Value,
        time: Timestamp,
        at: At,
    },
}

/// The place behind a change.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    /// Within its transaction: so many changes of it are read.
    Within { changes: u64, lsn: u64 },
    /// It is the last one of its transaction, which ends there.
    End(u64),
}

impl At {
    pub(super) fn note_in(self, place: &mut Place) {
        match self {
            Self::Within { changes, lsn } => {
                if lsn > place.lsn {
                    place.finish_transaction(lsn);
                }
                place.changes = changes;
            }
            Self::End(lsn) => place.finish_transaction(lsn),
        }
    }
}

/// The way of steps to the reader.
pub(super) struct Steps {
    sender: Sender<Result<Vec<Step>, JobError>>,
    link: Arc<Link>,
    lot: Vec<Step>,
}

/// The reader is gone.
struct Over;

impl Steps {
    pub(super) fn new(sender: Sender<Result<Vec<Step>, JobError>>, link: Arc<Link>) -> Self {
        let lot = Vec::new();
        Self { sender, link, lot }
    }

    fn is_over(&self) -> bool {
        self.link.is_over.load(Ordering::Acquire)
    }

    fn give(&mut self, lot: Result<Vec<Step>, JobError>) {
        // A reader that is gone needs nothing.
        let _ = self.sender.send(lot);
        if let Some(waker) = &*self.link.waker.lock() {
            waker.wake_by_ref();
        }
    }

    fn push(&mut self, step: Step) {
        self.lot.push(step);
        if self.lot.len() >= LOT {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.lot.is_empty() {
            let lot = std::mem::take(&mut self.lot);
            self.give(Ok(lot));
        }
    }
}

/// The thread of a source.
pub(super) struct Feeder {
    name: String,
    server: Server,
    given_table: String,
    settings: Settings,
    slot: Slot,
    job: String,
    env: Env,
    progress: Arc<Progress>,
    split: Option<u32>,
    /// The place behind all steps that were made.
    place: Option<Place>,
    /// The offset at which this life of the job began, and that of the next record.
    begin: Offset,
    next: Offset,
    /// The ends of transactions, each with the offset that is committed once they are.
    ends: VecDeque<(Offset, u64)>,
    /// The end of the last transaction of the table that is committed; there is none before the first.
    committed: u64,
    /// When the slot was last moved over what others did, and to where.
    heartbeat: Option<Instant>,
    quiet_to: u64,
    steps: Steps,
}

/// A transaction of the log that is being read.
struct Transaction {
    time: Timestamp,
    xid: u32,
    changes: u64,
    /// The last change, until it is known whether another one comes.
    last: Option<Value>,
}

impl Feeder {
    pub(super) fn new<K, V>(
        source: &PostgresChanges<K, V>,
        place: Option<Place>,
        next: Offset,
        (split, context): (&Split, &JobContext),
        steps: Steps,
    ) -> Self {
        Self {
            name: source.name.clone(),
            server: source.server.clone(),
            given_table: source.table.clone(),
            settings: source.settings.clone(),
            slot: Slot::new(context.name(), &source.name),
            job: context.name().to_owned(),
            env: context.env().clone(),
            progress: Arc::clone(&context.progress),
            split: context.splits.number(split),
            committed: place.as_ref().map_or(0, |place| place.lsn),
            place,
            begin: next,
            next,
            ends: VecDeque::new(),
            heartbeat: None,
            quiet_to: 0,
            steps,
        }
    }

    /// Reads until the reader is gone, or the database refuses.
    pub(super) fn run(mut self) {
        let begin = self.env.clock.now();
        let (mut pause, mut was_there) = (FIRST_PAUSE, false);
        while !self.steps.is_over() {
            let result = self.connected(&mut was_there);
            // Steps that were made before the connection was lost are as good as any.
            self.steps.flush();
            let problem = match result {
                Ok(Over) => return,
                Err(problem) => problem,
            };
            let waited = self.env.clock.now().since(begin);
            if !problem.is_passing() || (!was_there && waited >= self.settings.patience) {
                let name = self.name.clone();
                return self.steps.give(Err(failed(&name, problem)));
            }
            if pause == FIRST_PAUSE {
                warn!(job = self.job, source = self.name, why = %problem, "waiting for the database");
            }
            self.env.clock.sleep(pause);
            pause = if was_there {
                FIRST_PAUSE
            } else {
                LONGEST_PAUSE.min(pause * 2)
            };
        }
    }

    /// Reads over one connection.
    fn connected(&mut self, was_there: &mut bool) -> Result<Over, Problem> {
        let session = Session::connect(&self.server, &self.env, &self.job)?;
        let table = session.wait(Table::inspect(&session.client, &self.given_table))?;
        match &self.place {
            Some(place) => session.wait(self.slot.check(&session.client, place))?,
            None => self.begin(&session, &table)?,
        }
        *was_there = true;
        if self.place.as_ref().is_some_and(|place| !place.is_copied) {
            self.copy(&session, &table)?;
        }
        while !self.steps.is_over() {
            let has_read = self.look(&session, &table)?;
            self.steps.flush();
            match has_read {
                true => self.wait_for_commit(),
                false => self.env.clock.sleep(self.settings.look_every),
            }
            self.confirm(&session)?;
        }
        Ok(Over)
    }

    fn begin(&mut self, session: &Session, table: &Table) -> Result<(), Problem> {
        if self.settings.copies {
            // A table that cannot be copied is refused before anything is made.
            table.copy(false)?;
        }
        let life = self.env.random.next_u64().cast_signed();
        let mut place = session.wait(self.slot.begin(&session.client, table, life))?;
        // A transaction may be over in the log a moment before others see it; the copy begins when all that the slot does not have are seen.
        let (before, _) = session.wait(snapshot(&session.client))?;
        while session.wait(snapshot(&session.client))?.0.min() < before.max() {
            if self.steps.is_over() {
                return Ok(());
            }
            self.env.clock.sleep(self.settings.look_every);
        }
        place.is_copied = !self.settings.copies;
        info!(
            job = self.job,
            source = self.name,
            slot = self.slot.name,
            "reads the changes of a table from now on"
        );
        self.committed = place.lsn;
        self.steps.push(Step::Begun(place.clone()));
        self.place = Some(place);
        Ok(())
    }

    /// Copies the rows behind the last one that was copied.
    fn copy(&mut self, session: &Session, table: &Table) -> Result<(), Problem> {
        let client = &session.client;
        session.wait(client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))?;
        let (snapshot, behind) = session.wait(snapshot(client))?;
        let place = self.place.get_or_insert_default();
        let last = place.begin_part(snapshot.clone(), behind);
        self.steps.push(Step::Part { snapshot, behind });
        let values = last.iter().flatten().map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        let values: Vec<String> = values.collect();
        let parameters = values.iter().map(|it| it as &(dyn ToSql + Sync));
        let statement = table.copy(last.is_some())?;
        let time = self.env.clock.wall();
        let rows = session.wait(client.query_raw(&statement, parameters))?;
        let mut rows = pin!(rows);
        while let Some(row) = session.wait(rows.try_next())? {
            if self.steps.is_over() {
                return Ok(());
            }
            let texts: Vec<Option<&str>> = (0..row.len()).map(|it| row.get(it)).collect();
            let fields = texts
                .into_iter()
                .map(|text| text.map_or(Field::Null, Field::Text));
            let row = table.columns.row(&fields.collect::<Vec<_>>(), None);
            let Some(key) = key_of(&row, &table.keys) else {
                return Err(Problem::refused("a row has no key"));
            };
            let change = shown(RowChangeKind::Copy, &key, Some(row), None);
            self.place.get_or_insert_default().copied(key.clone());
            self.next = self.next.plus(1);
            self.steps.push(Step::Copy { key, change, time });
        }
        session.wait(client.batch_execute("COMMIT"))?;
        self.place.get_or_insert_default().is_copied = true;
        self.steps.push(Step::Copied);
        Ok(())
    }

    /// Looks at the slot; says whether there was a change of the table.
    fn look(&mut self, session: &Session, table: &Table) -> Result<bool, Problem> {
        let client = &session.client;
        let end = session.wait(end_of_log(client))?;
        let peek = "SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, $2, 'proto_version', '1', 'publication_names', $3)";
        let publication = format!("\"{}\"", self.slot.name);
        let parameters: [&(dyn ToSql + Sync); 3] =
            [&self.slot.name, &CHANGES_PER_LOOK, &publication];
        let messages = session.wait(client.query_raw(peek, parameters))?;
        let mut messages = pin!(messages);
        let (mut tables, mut open, before) = (Tables::new(), None, self.next);
        let mut count = 0;
        while let Some(row) = session.wait(messages.try_next())? {
            if self.steps.is_over() {
                return Ok(false);
            }
            count += 1;
            self.follow(parse(row.get(0))?, &mut open, &mut tables, table)?;
        }
        let has_read = self.next != before;
        // A look that was cut short says nothing about what comes behind.
        if !has_read && count < CHANGES_PER_LOOK && self.ends.is_empty() {
            self.quiet(session, end)?;
        }
        Ok(has_read)
    }

    /// Follows a message of the log.
    fn follow(
        &mut self,
        message: Message<'_>,
        open: &mut Option<Transaction>,
        tables: &mut Tables,
        table: &Table,
    ) -> Result<(), Problem> {
        match message {
            Message::Begin { commit, time, xid } => {
                let is_new = self.place.as_ref().is_none_or(|place| commit >= place.lsn);
                *open = is_new.then_some(Transaction {
                    time,
                    xid,
                    changes: 0,
                    last: None,
                });
            }
            Message::Commit { end } => {
                if let Some(transaction) = open.take() {
                    self.finish(transaction, end);
                }
            }
            Message::Relation { table, columns } => {
                tables.insert(table, super::json::Columns::of_relation(columns));
            }
            Message::Truncate { tables }
                if tables.contains(&table.oid) && self.is_news(open.as_ref()) =>
            {
                return Err(Problem::refused(format!(
                    "{} was truncated, which is no change of single rows: give the source another name (`named`), and it begins with a copy of \
                     what is there now",
                    table.name
                )));
            }
            Message::Truncate { .. } | Message::Other => {}
            change => {
                if let Some(transaction) = open {
                    for (key, change) in changes_of(&change, tables, table)? {
                        self.take(transaction, &key, change);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a transaction was not read before, and the copy does not have it.
    fn is_news(&self, transaction: Option<&Transaction>) -> bool {
        let is_seen = |transaction: &Transaction| {
            let place = self.place.as_ref();
            place.is_some_and(|place| place.has_seen_whole(transaction.xid))
        };
        transaction.is_some_and(|transaction| !is_seen(transaction))
    }

    /// Takes a change of a transaction, if it was not read before and the copy does not have it.
    fn take(&mut self, transaction: &mut Transaction, key: &Key, change: Value) {
        transaction.changes += 1;
        let place = self.place.get_or_insert_default();
        if transaction.changes <= place.changes || place.has_seen(transaction.xid, key) {
            return;
        }
        let lsn = place.lsn;
        if let Some(before) = transaction.last.replace(change) {
            let changes = transaction.changes - 1;
            self.give(before, transaction.time, At::Within { changes, lsn });
        }
    }

    fn give(&mut self, change: Value, time: Timestamp, at: At) {
        self.next = self.next.plus(1);
        self.steps.push(Step::Change { change, time, at });
    }

    fn finish(&mut self, mut transaction: Transaction, end: u64) {
        if transaction.changes == 0 {
            // It did something to other tables.
            return;
        }
        let place = self.place.get_or_insert_default();
        place.finish_transaction(end);
        if let Some(last) = transaction.last.take() {
            self.give(last, transaction.time, At::End(end));
            self.ends.push_back((self.next, end));
        }
    }

    /// Waits until what was read is committed: the next look would show it again.
    fn wait_for_commit(&self) {
        while !self.steps.is_over() && self.committed_offset() < self.next {
            self.env.clock.sleep(COMMIT_LOOK);
        }
    }

    fn committed_offset(&self) -> Offset {
        let positions = self.progress.positions();
        let own = self.split.and_then(|split| positions.get(&split).copied());
        own.unwrap_or(self.begin)
    }

    /// Moves the slot to the transactions that are committed.
    fn confirm(&mut self, session: &Session) -> Result<(), Problem> {
        let offset = self.committed_offset();
        let mut committed = None;
        while let Some((_, end)) = self
            .ends
            .front()
            .copied()
            .filter(|(last, _)| *last <= offset)
        {
            self.ends.pop_front();
            committed = Some(end);
        }
        if let Some(end) = committed {
            self.committed = end;
            let confirmed = Confirmed {
                committed: end,
                quiet_to: end,
                is_used: true,
            };
            session.wait(self.slot.confirm(&session.client, confirmed))?;
        }
        Ok(())
    }

    /// There is nothing of the table up to `end`: the slot moves on, so that the server can remove its log (O16).
    fn quiet(&mut self, session: &Session, end: u64) -> Result<(), Problem> {
        let now = self.env.clock.now();
        let is_early = |at: Instant| now.since(at) < self.settings.heartbeat;
        let is_committed = self.committed_offset() == self.next;
        let is_little = end < self.quiet_to.max(self.committed) + QUIET_BYTES_MIN;
        if self.heartbeat.is_some_and(is_early) || !is_committed || is_little {
            return Ok(());
        }
        (self.heartbeat, self.quiet_to) = (Some(now), end);
        let quiet = Confirmed {
            committed: self.committed,
            quiet_to: end,
            is_used: self.next > Offset::ZERO,
        };
        session.wait(self.slot.confirm(&session.client, quiet))
    }
}

/// The changes of rows that a message tells of.
fn changes_of(
    message: &Message<'_>,
    tables: &Tables,
    table: &Table,
) -> Result<Vec<(Key, Value)>, Problem> {
    let (oid, before, is_whole, row) = match message {
        Message::Insert { table, row } => (table, None, false, Some(row)),
        Message::Update {
            table,
            before,
            is_whole,
            row,
        } => (table, before.as_ref(), *is_whole, Some(row)),
        Message::Delete {
            table,
            before,
            is_whole,
        } => (table, Some(before), *is_whole, None),
        _ => return Ok(Vec::new()),
    };
    if *oid != table.oid {
        return Ok(Vec::new());
    }
    let unknown = || Problem::refused("a change comes before the table that it is of");
    let columns = tables.get(oid).ok_or_else(unknown)?;
    let before = before.map(|fields| columns.row(fields, None));
    let row = row.map(|fields| columns.row(fields, before.as_ref().filter(|_| is_whole)));
    let key = |row: &Map<String, Value>| {
        key_of(row, &table.keys).ok_or_else(|| {
            Problem::refused(format!(
                "a column of the primary key of {} has another name than before: give the source another name (`named`)",
                table.name
            ))
        })
    };
    let old_key = before.as_ref().map(key).transpose()?;
    let shown_before = before.filter(|_| is_whole);
    let Some(row) = row else {
        let Some(old_key) = old_key else {
            return Ok(Vec::new());
        };
        let gone = shown(RowChangeKind::Delete, &old_key, None, shown_before);
        return Ok(vec![(old_key, gone)]);
    };
    let key = key(&row)?;
    Ok(match (old_key, message) {
        (Some(old_key), _) if old_key != key => {
            let gone = shown(RowChangeKind::Delete, &old_key, None, shown_before);
            let came = shown(RowChangeKind::Insert, &key, Some(row), None);
            vec![(old_key, gone), (key, came)]
        }
        (_, Message::Insert { .. }) => {
            let came = shown(RowChangeKind::Insert, &key, Some(row), None);
            vec![(key, came)]
        }
        _ => {
            let changed = shown(RowChangeKind::Update, &key, Some(row), shown_before);
            vec![(key, changed)]
        }
    })
}

/// A change as it is handed on and kept as a letter.
fn shown(
    kind: RowChangeKind,
    key: &Key,
    row: Option<Map<String, Value>>,
    before: Option<Map<String, Value>>,
) -> Value {
    json!({"kind": kind, "key": shown_key(key), "row": row, "before": before})
}
