//! The changes of a table of PostgreSQL as a source, exactly once (O13–O16): its rows first, then what happens to them.
//!
//! ```text
//! thread: copy, then peek at the slot ─► Piece ─► reader: records ─► the job's commit, with the place in the log
//!         │ the slot moves only to what is committed ◄─────────────────────────────────┘
//! ```
//! A peek changes nothing, so a job that is killed finds again what it had not committed.
//!
//! Reading order: this file, `place.rs` (positions), `feeder.rs` (the thread), `slot.rs` (what the database keeps), `wire.rs` (its messages),
//! `json.rs` (rows).

mod feeder;
mod json;
mod place;
mod slot;
mod wire;

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::feeder::{Feeder, Step, Steps};
use self::place::Place;
use super::PATIENCE;
use super::session::Server;
use crate::codec::CodecError;
use crate::net::Pem;
use crate::protocol::batch::Headers;
use crate::runtime::{
    Emit, Emitted, JobContext, JobError, Key, Pace, Position, Raw, Read, ReadLetter, Source, Split,
    SplitReader, TakeRecord, Unkeyed,
};
use crate::types::Offset;

/// Steps are handed over in lots of so many at most, of which so many wait.
const LOTS_MAX: usize = 8;

/// The kind of a change of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowChangeKind {
    /// It was there when the source first read the table.
    Copy,
    /// It came.
    Insert,
    /// It changed, and its key did not.
    Update,
    /// It went, or got another key.
    Delete,
}

/// A change of a row: `K` is its key (of several columns a tuple), `V` the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange<K, V> {
    /// The kind of the change.
    pub kind: RowChangeKind,
    /// The row's key.
    pub key: K,
    /// The row as it is now; `None` if it is gone.
    pub row: Option<V>,
    /// The row as it was, where the database tells: of a table with `REPLICA IDENTITY FULL`.
    pub before: Option<V>,
}

/// A source of the changes of a table; see [`postgres_changes`].
pub struct PostgresChanges<K, V> {
    name: String,
    server: Server,
    table: String,
    settings: Settings,
    types: PhantomData<fn() -> (K, V)>,
}

#[derive(Debug, Clone)]
struct Settings {
    copies: bool,
    look_every: Duration,
    heartbeat: Duration,
    patience: Duration,
}

/// A source of what happens to the rows of `table`: first each row that is there ([`RowChangeKind::Copy`]), then each committed change, in the order of
/// the commits, each exactly once. `server` is a connection string as for [`postgres`](super::postgres()), `table` a name, with its schema if
/// that is not on the search path.
///
/// The server needs `wal_level = logical` and PostgreSQL 14 or newer, the user the right to replicate and to own or publish the table, and the table a primary
/// key of whole numbers, text or UUIDs. The source makes a publication, a replication slot and a table `onceflow_changes`. It reads the log
/// with SQL functions, and lets the slot move only to what the job has committed.
///
/// `V` is read from the row by the names of its columns, as from JSON: whole numbers, floating-point numbers and `bool` are themselves, `json` and `jsonb` what they hold, and
/// all other types text as PostgreSQL writes it (`numeric` keeps every digit, times are in UTC). Event times are those of the commits.
/// A large value (TOAST) that an update does not change is not in the log; unless the table has `REPLICA IDENTITY FULL`, a `V` with that column is
/// then a poison record, and never a null.
///
/// ```no_run
/// use onceflow::prelude::*;
/// use onceflow::runtime::postgres::{RowChange, postgres_changes};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order { id: i64, customer: String, cents: i64 }
///
/// let job = Job::new("orders");
/// job.source(postgres_changes::<i64, Order>("host=db user=shop dbname=shop", "sales.orders"))
///     .key_by(|change: &RowChange<i64, Order>| change.key)
///     .map(|change: &RowChange<i64, Order>| change.row.clone())
///     .sink(topic("orders"));
/// ```
#[must_use]
pub fn postgres_changes<K, V>(server: &str, table: &str) -> PostgresChanges<K, V> {
    PostgresChanges {
        name: format!("postgres {table}"),
        server: Server::new(server),
        table: table.to_owned(),
        settings: Settings {
            copies: true,
            look_every: Duration::from_millis(50),
            heartbeat: Duration::from_secs(10),
            patience: PATIENCE,
        },
        types: PhantomData,
    }
}

impl<K, V> PostgresChanges<K, V> {
    /// Gives the source another name than `postgres <table>`. Positions and the slot are kept by it.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Leaves out the rows that are there when the job first starts.
    #[must_use]
    pub fn without_copy(mut self) -> Self {
        self.settings.copies = false;
        self
    }

    /// Encrypts the connection, as [`Postgres::tls`](super::Postgres::tls).
    #[must_use]
    pub fn tls(mut self, authorities: Option<Pem>) -> Self {
        self.server.use_tls(authorities);
        self
    }

    /// Looks so often for changes while there are none. The default is 50 ms.
    #[must_use]
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.settings.look_every = interval;
        self
    }

    /// Moves the slot so often while others write and this table is quiet, so that the server can remove its log. The default is 10 s.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.settings.heartbeat = interval;
        self
    }

    /// Waits so long for a server that cannot be reached when the job starts. Later it waits for as long as it takes. The default is 60 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }
}

impl<K, V> Source for PostgresChanges<K, V>
where
    K: DeserializeOwned + Send + Sync + 'static,
    V: DeserializeOwned + Send + Sync + 'static,
{
    type Key = Unkeyed;
    type Value = RowChange<K, V>;
    type Reader = ChangesReader<K, V>;

    fn name(&self) -> String {
        self.name.clone()
    }

    /// The server gives a change again until it is committed, but only from there on.
    fn is_rereadable(&self) -> bool {
        false
    }

    fn letters(&self) -> Option<Arc<dyn ReadLetter<Unkeyed, RowChange<K, V>>>> {
        Some(Arc::new(ChangeLetters(PhantomData)))
    }

    fn splits(&self, _context: &JobContext) -> Result<Vec<Split>, JobError> {
        Ok(vec![Split::Named {
            source: self.name.clone(),
            name: self.name.clone(),
        }])
    }

    fn open(
        &self,
        split: &Split,
        position: Option<Offset>,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        self.open_at(split, &position.unwrap_or_default().into(), context)
    }

    fn resume(
        &self,
        split: &Split,
        position: &Position,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        self.open_at(split, position, context)
    }
}

impl<K, V> PostgresChanges<K, V> {
    fn open_at(
        &self,
        split: &Split,
        position: &Position,
        context: &JobContext,
    ) -> Result<ChangesReader<K, V>, JobError> {
        let place = match position.offset {
            Offset::ZERO if position.fingerprint.is_empty() => None,
            _ => Some(
                Place::of_bytes(&position.fingerprint).map_err(|why| failed(&self.name, why))?,
            ),
        };
        let (steps, receiver) = bounded(LOTS_MAX);
        let link = Arc::new(Link::default());
        let feeder = Feeder::new(
            self,
            place.clone(),
            position.offset,
            (split, context),
            Steps::new(steps, Arc::clone(&link)),
        );
        let spawned = context
            .env()
            .spawn
            .spawn("of-changes", Box::new(move || feeder.run()));
        spawned.map_err(|e| failed(&self.name, e))?;
        Ok(ChangesReader {
            name: self.name.clone(),
            receiver,
            link,
            lot: VecDeque::new(),
            place,
            offset: position.offset,
            types: PhantomData,
        })
    }
}

fn failed(name: &str, why: impl std::fmt::Display) -> JobError {
    JobError::Source {
        source_name: name.to_owned(),
        why: why.to_string(),
    }
}

/// The things that the reader and its thread tell each other beside the steps.
#[derive(Default)]
struct Link {
    waker: Mutex<Option<Waker>>,
    /// Whether the reader is gone.
    is_over: AtomicBool,
}

/// Reads the changes of a table.
pub struct ChangesReader<K, V> {
    name: String,
    receiver: Receiver<Result<Vec<Step>, JobError>>,
    link: Arc<Link>,
    lot: VecDeque<Step>,
    place: Option<Place>,
    offset: Offset,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Drop for ChangesReader<K, V> {
    fn drop(&mut self) {
        self.link.is_over.store(true, Ordering::Release);
    }
}

impl<K, V> ChangesReader<K, V> {
    /// Takes a lot of steps, if none is left of the last one; says whether there are any.
    fn fill(&mut self, waker: &Waker) -> Result<bool, JobError> {
        if !self.lot.is_empty() {
            return Ok(true);
        }
        // The waker is set before the look: a lot that comes in between wakes it.
        self.link.waker.lock().replace(waker.clone());
        match self.receiver.try_recv() {
            Ok(lot) => self.lot = lot?.into(),
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => {
                return Err(failed(
                    &self.name,
                    "its thread has ended: this is a mistake in Onceflow",
                ));
            }
        }
        Ok(!self.lot.is_empty())
    }

    fn place(&mut self) -> &mut Place {
        self.place.get_or_insert_default()
    }
}

impl<K: DeserializeOwned, V: DeserializeOwned> ChangesReader<K, V> {
    fn emit_change(
        &mut self,
        change: Value,
        time: crate::types::Timestamp,
        emit: &mut impl Emit<Unkeyed, RowChange<K, V>>,
    ) -> Result<Pace, JobError> {
        let offset = self.offset;
        self.offset = offset.plus(1);
        let bytes = change.to_string();
        let decoded = read_change::<K, V>(change, bytes.len());
        let raw = Raw::Bytes {
            key: None,
            value: Some(bytes.as_bytes()),
            headers: Headers::default(),
        };
        let record = match &decoded {
            Ok(change) => Ok((Key::none(), change)),
            Err(e) => Err(e.clone()),
        };
        emit.emit(Emitted {
            record,
            timestamp: time,
            offset,
            raw,
        })
    }
}

fn read_change<K: DeserializeOwned, V: DeserializeOwned>(
    change: Value,
    length_bytes: usize,
) -> Result<RowChange<K, V>, CodecError> {
    serde_json::from_value(change).map_err(|e| CodecError::Decode {
        codec: "a row of PostgreSQL",
        length_bytes,
        why: format!(
            "{e}; a value `{{\"{}\":true}}` is a large one that the update did not change, and that is not in the log unless the table has \
             REPLICA IDENTITY FULL",
            json::UNCHANGED
        ),
    })
}

impl<K, V> SplitReader<Unkeyed, RowChange<K, V>> for ChangesReader<K, V>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    fn read(
        &mut self,
        waker: &Waker,
        emit: &mut impl Emit<Unkeyed, RowChange<K, V>>,
    ) -> Result<Read, JobError> {
        if !self.fill(waker)? {
            return Ok(Read::Pending);
        }
        while let Some(step) = self.lot.pop_front() {
            match step {
                Step::Begun(place) => self.place = Some(place),
                Step::Part { snapshot, behind } => {
                    self.place().begin_part(snapshot, behind);
                }
                Step::Copied => self.place().is_copied = true,
                Step::Copy { key, change, time } => {
                    self.place().copied(key);
                    if self.emit_change(change, time, emit)? == Pace::Pause {
                        return Ok(Read::Progress);
                    }
                }
                Step::Change { change, time, at } => {
                    at.note_in(self.place());
                    if self.emit_change(change, time, emit)? == Pace::Pause {
                        return Ok(Read::Progress);
                    }
                }
            }
        }
        Ok(Read::Progress)
    }

    fn position(&self) -> Offset {
        self.offset
    }

    fn fingerprint(&self) -> Vec<u8> {
        self.place.as_ref().map(Place::to_bytes).unwrap_or_default()
    }
}

/// The way back for letters, whose values are changes as JSON.
struct ChangeLetters<K, V>(PhantomData<fn() -> (K, V)>);

impl<K, V> ReadLetter<Unkeyed, RowChange<K, V>> for ChangeLetters<K, V>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    fn read(
        &self,
        _key: Option<&[u8]>,
        value: Option<&[u8]>,
        take: &mut TakeRecord<'_, Unkeyed, RowChange<K, V>>,
    ) -> Result<Pace, JobError> {
        let bytes = value.unwrap_or_default();
        let change = serde_json::from_slice::<Value>(bytes);
        let change = change.map_err(|e| CodecError::Decode {
            codec: "a row of PostgreSQL",
            length_bytes: bytes.len(),
            why: e.to_string(),
        });
        match change.and_then(|it| read_change(it, bytes.len())) {
            Ok(change) => take(Ok((Key::none(), &change))),
            Err(e) => take(Err(e)),
        }
    }
}
