//! Errors of state, and what to do about them.

use std::io;
use std::path::PathBuf;

use crate::codec::{CodecError, CodecId, Misread, SchemaDifference};
use crate::protocol::ErrorKind;

fn listed(stores: &[String]) -> String {
    match stores {
        [] => "no store".to_owned(),
        stores => stores.join(", "),
    }
}

/// An error of the state layer. Nothing that was committed is lost by any of them: the changelog holds it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file of ours could not be read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// The attempt.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// RocksDB refused; usually the disk is full or failing (S5).
    #[error(
        "the state database {} could not {operation}: {why}; nothing committed is lost: free or repair the disk, then start the job again",
        path.display()
    )]
    Database {
        /// The attempt.
        operation: &'static str,
        /// The database's directory.
        path: PathBuf,
        /// RocksDB's words.
        why: String,
    },
    /// RocksDB's files are damaged. They are marked, and rebuilt from the changelog when the job starts again.
    #[error(
        "the state database {} is damaged ({why}): start the job again, and it is rebuilt from the changelog",
        path.display()
    )]
    Damaged {
        /// The database's directory.
        path: PathBuf,
        /// RocksDB's words.
        why: String,
    },
    /// A value has no encoded form.
    #[error("a value of store {store:?} cannot be written: {source}")]
    Encode {
        /// The store.
        store: String,
        /// The reason.
        source: CodecError,
    },
    /// Stored bytes are not a value of the store's type: usually the type was changed.
    #[error(
        "store {store:?} holds a value that is not of its type ({source}): use the type that it was written with, or give the step a new name"
    )]
    Decode {
        /// The store.
        store: String,
        /// The reason.
        source: CodecError,
    },
    /// The job was first run with another number of state partitions.
    #[error(
        "the job {} was first run with {stored} state partitions, now {asked} are asked for: the number is fixed, go back to {stored}",
        path.display()
    )]
    StatePartitionsChanged {
        /// The job's state directory.
        path: PathBuf,
        /// The number that the state has.
        stored: u16,
        /// The number asked for.
        asked: u16,
    },
    /// A store was written with another codec.
    #[error(
        "store {store:?} was written with codec {}, now codec {} is asked for: go back to that codec, or give the step a new name",
        stored.0, asked.0
    )]
    CodecChanged {
        /// The store.
        store: String,
        /// The codec of the data.
        stored: CodecId,
        /// The codec asked for.
        asked: CodecId,
    },
    /// A store was written with keys or values of another type.
    #[error(
        "store {store:?} holds {} of the type {}, and the job now has {} there, which would read them as something else: \
         go back to that type; or say how it is converted, with `.migrate_from(…)` behind the step; or give the step a new store name and \
         drop {store:?}; if the bytes mean the same in both types, accept the change of {store:?} where the job is launched",
        difference.part, difference.stored, difference.asked
    )]
    TypeChanged {
        /// The store.
        store: String,
        /// The stored type and the one asked for.
        difference: SchemaDifference,
    },
    /// A store has values of a later version than this build reads.
    #[error(
        "store {store:?} holds values of version {stored}, and this build of the job reads them up to version {asked}: run the build that \
         wrote them, or go back to a savepoint that was taken before"
    )]
    LaterVersion {
        /// The store.
        store: String,
        /// The version of the values.
        stored: u8,
        /// The version that this build writes.
        asked: u8,
    },
    /// A store may have values of an earlier version, and this build does not say how they are read.
    #[error(
        "store {store:?} may hold values of version {version}, of the type {value}, and this build of the job, which writes version \
         {asked}, does not say how they are read: put `.migrate_from({version}, …)` back behind the step; a value stays in its version until it \
         changes"
    )]
    NoMigration {
        /// The store.
        store: String,
        /// The version of the values.
        version: u8,
        /// Their type.
        value: String,
        /// The version that this build writes.
        asked: u8,
    },
    /// A store has values of the first version that cannot be told from later ones.
    #[error(
        "store {store:?} holds values of the type {value}, which an earlier version of Onceflow did not tell from those of a second version: \
         give the step a new name, and fill its store from the input; or keep the type"
    )]
    NotToldApart {
        /// The store.
        store: String,
        /// Their type.
        value: String,
    },
    /// The topology no longer has a store that holds state.
    #[error(
        "the job has state in the store {store:?}, but no step of that name any more (it was: {}; it is: {}): bring the step back; or, if it \
         was renamed, say so with `.was({store:?})` behind the step; or give the state up with `forget({store:?})`",
        listed(stored),
        listed(declared)
    )]
    StoreMissing {
        /// The store.
        store: String,
        /// All stores that the job had.
        stored: Vec<String>,
        /// All stores that it has now.
        declared: Vec<String>,
    },
    /// The state was written by a newer version.
    #[error(
        "the state in {} has format {found}; this version reads up to {supported}: use the newer version",
        path.display()
    )]
    NewerFormat {
        /// The job's state directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format that can be read.
        supported: u32,
    },
    /// A store is opened that was not declared when the backend was opened.
    #[error("store {store:?} was not declared when the job's state was opened: declare it there")]
    UnknownStore {
        /// The store.
        store: String,
    },
    /// Somebody else in this process has the partition open.
    #[error(
        "state partition {state_partition} of store {store:?} is open already: close its other owner first"
    )]
    PartitionInUse {
        /// The store.
        store: String,
        /// The partition.
        state_partition: u16,
    },
    /// An earlier error left the store's memory in between: it must be opened again.
    #[error("store {store:?} failed before and must be opened and restored again")]
    Broken {
        /// The store.
        store: String,
    },
}

impl StateError {
    /// For a build that would misread the store.
    pub(crate) fn misread(store: &str, why: Misread) -> Self {
        let store = store.to_owned();
        match why {
            Misread::Type(difference) => Self::TypeChanged { store, difference },
            Misread::Later { stored, asked } => Self::LaterVersion {
                store,
                stored,
                asked,
            },
            Misread::Missing {
                version,
                value,
                asked,
            } => Self::NoMigration {
                store,
                version,
                value: value.to_string(),
                asked,
            },
            Misread::NotToldApart { value } => Self::NotToldApart {
                store,
                value: value.to_string(),
            },
        }
    }
    /// Returns what a caller may do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Damaged { .. } | Self::Decode { .. } => ErrorKind::Corrupt,
            Self::Encode { .. } | Self::Broken { .. } => ErrorKind::Abortable,
            _ => ErrorKind::Fatal,
        }
    }

    pub(super) fn io(operation: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}
