//! `onceflow state`: reads the state of a stopped job, or of a savepoint, and changes nothing.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::UsageError;
use super::format::{ByteFormat, Formatter, NULL};
use super::output::{self, Table};
use crate::codec::{TypeIdentity, told_apart, version_of};
use crate::env::Env;
use crate::runtime::{TimedKey, time_of_row, timed_key, timed_key_type, value_of_row};
use crate::state::{StateAtRest, StoreAtRest};

const EXAMPLES: &str = "\
Examples:
  onceflow state list ./data/state/word-count
  onceflow state stats ./data/state/word-count
  onceflow state get ./data/state/word-count counts tea
  onceflow state scan ./data/state/word-count counts --max 20

The path is the directory of a job's state, or of a savepoint. Stop the job first. What RocksDB does not have yet, because the process
was killed, is in the changelog: the job takes it from there when it starts.";

/// Look into the state of a stopped job.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StateArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the stores with their types
    List {
        /// The directory of the job's state, or of a savepoint
        path: PathBuf,
    },
    /// Count the entries and bytes of each store
    Stats {
        /// The directory of the job's state, or of a savepoint
        path: PathBuf,
    },
    /// Show the value of a key
    Get {
        /// The directory of the job's state, or of a savepoint
        path: PathBuf,
        /// The store
        store: String,
        /// The key: text, or hexadecimal digits behind 0x
        key: String,
    },
    /// Show the entries of a store, by state partition and key
    Scan {
        /// The directory of the job's state, or of a savepoint
        path: PathBuf,
        /// The store
        store: String,
        /// One state partition only
        #[arg(long, value_name = "NUMBER")]
        partition: Option<u16>,
        /// Stop after this many entries
        #[arg(long, value_name = "COUNT")]
        max: Option<u64>,
    },
}

/// Runs `onceflow state`.
pub(super) fn run(env: &Env, arguments: StateArguments) -> anyhow::Result<()> {
    let mut out = output::stdout();
    match arguments.action {
        Action::List { path } => list(&open(env, &path)?, &mut out)?,
        Action::Stats { path } => stats(&open(env, &path)?, &mut out)?,
        Action::Get { path, store, key } => {
            let state = open(env, &path)?;
            let store = find(&state, &store)?;
            get(&state, &store, &key, &mut out)?;
        }
        Action::Scan {
            path,
            store,
            partition,
            max,
        } => {
            let state = open(env, &path)?;
            let store = find(&state, &store)?;
            scan(&state, &store, partition, max.unwrap_or(u64::MAX), &mut out)?;
        }
    }
    Ok(out.flush()?)
}

fn open(env: &Env, path: &Path) -> anyhow::Result<StateAtRest> {
    if !env.files.exists(&path.join("meta.json"))? || !env.files.exists(&path.join("rocksdb"))? {
        bail!(
            "{} holds no state of a job: give the directory of one, DATA/state/JOB, or of a savepoint",
            path.display()
        );
    }
    StateAtRest::open(env, path).with_context(|| format!("cannot read {}", path.display()))
}

fn find(state: &StateAtRest, name: &str) -> anyhow::Result<StoreAtRest> {
    let stores = state.stores();
    let names: Vec<String> = stores.iter().map(|store| store.name.clone()).collect();
    let found = stores.into_iter().find(|store| store.name == name);
    found.with_context(|| format!("there is no store {name:?}: there are {}", names.join(", ")))
}

fn in_words(identity: Option<&TypeIdentity>) -> String {
    identity.map_or_else(|| "?".to_owned(), ToString::to_string)
}

/// `3 (1, 2)`: the version that is written, and those that may be there from before.
fn versions_in_words(store: &StoreAtRest) -> String {
    let earlier: Vec<String> = store.earlier.keys().map(u8::to_string).collect();
    match earlier.is_empty() {
        true => store.value_version.to_string(),
        false => format!("{} ({})", store.value_version, earlier.join(", ")),
    }
}

fn list(state: &StateAtRest, out: &mut impl Write) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "store",
        "keys",
        "values",
        "version",
        "codec",
        "state partitions",
    ])
    .with_numbers(&["codec", "state partitions"]);
    for store in state.stores() {
        let versions = versions_in_words(&store);
        table.row([
            store.name,
            in_words(store.key.as_ref()),
            in_words(store.value.as_ref()),
            versions,
            store.codec.0.to_string(),
            state.state_partitions().to_string(),
        ]);
    }
    Ok(table.print(out)?)
}

fn stats(state: &StateAtRest, out: &mut impl Write) -> anyhow::Result<()> {
    let header = [
        "store",
        "state partition",
        "entries",
        "key bytes",
        "value bytes",
        "changelog offset",
    ];
    let mut table = Table::new(&header).with_numbers(&[
        "state partition",
        "entries",
        "key bytes",
        "value bytes",
        "changelog offset",
    ]);
    for store in state.stores() {
        for partition in 0..state.state_partitions() {
            let (mut entries, mut key_bytes, mut value_bytes) = (0u64, 0u64, 0u64);
            let _ = state.visit(&store.name, partition, &mut |key, value| {
                entries += 1;
                key_bytes += key.len() as u64;
                value_bytes += value.len() as u64;
                Ok(ControlFlow::Continue(()))
            })?;
            let position = state.position(&store.name, partition)?;
            table.row([
                store.name.clone(),
                partition.to_string(),
                entries.to_string(),
                key_bytes.to_string(),
                value_bytes.to_string(),
                position.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            ]);
        }
    }
    Ok(table.print(out)?)
}

fn get(
    state: &StateAtRest,
    store: &StoreAtRest,
    key: &str,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let key = key_bytes(store, key)?;
    for partition in 0..state.state_partitions() {
        if let Some(value) = state.get(&store.name, partition, &key)? {
            let value = value_in_words(store, &value);
            let object = serde_json::json!({ "partition": partition, "value": value });
            return Ok(output::tell(out, &value, &object)?);
        }
    }
    bail!("the store {:?} has no such key", store.name)
}

fn scan(
    state: &StateAtRest,
    store: &StoreAtRest,
    partition: Option<u16>,
    max: u64,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut left = max;
    let partitions = match partition {
        Some(one) if one >= state.state_partitions() => bail!(
            "there are {} state partitions, from 0 on: {one} is none",
            state.state_partitions()
        ),
        Some(one) => one..one + 1,
        None => 0..state.state_partitions(),
    };
    for partition in partitions {
        let mut written = Ok(());
        let _ = state.visit(&store.name, partition, &mut |key, value| {
            if left == 0 {
                return Ok(ControlFlow::Break(()));
            }
            left -= 1;
            let (key, value) = (key_in_words(store, key), value_in_words(store, value));
            let object = serde_json::json!({ "partition": partition, "key": key, "value": value });
            written = output::tell(out, &format!("{partition}\t{key}\t{value}"), &object);
            Ok(match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        })?;
        written?;
    }
    Ok(())
}

/// The bytes of a key as the user wrote it.
fn key_bytes(store: &StoreAtRest, key: &str) -> anyhow::Result<Vec<u8>> {
    if let Some(digits) = key.strip_prefix("0x") {
        let wrong = || {
            UsageError(format!(
                "{key} is no key: behind 0x stand pairs of hexadecimal digits"
            ))
        };
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(pair).collect();
        let bytes = bytes.filter(|_| digits.len() % 2 == 0);
        return Ok(bytes.ok_or_else(wrong)?);
    }
    match store.key.as_ref().map_or("", |key| key.as_str()) {
        "text" | "raw bytes" => Ok(key.as_bytes().to_vec()),
        "str" => encoded(&key.to_owned()),
        "u64" => encoded(&number::<u64>(key)?),
        "i64" => encoded(&number::<i64>(key)?),
        other => Err(UsageError(format!(
            "keys of the store {:?} are of the type {other}, which cannot be written here: give the bytes, 0x and hexadecimal digits",
            store.name
        ))
        .into()),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> anyhow::Result<T> {
    let parsed = text.parse().ok();
    Ok(parsed
        .ok_or_else(|| UsageError(format!("{text} is no number, and the store's keys are")))?)
}

fn encoded<T: crate::codec::Datum>(value: &T) -> anyhow::Result<Vec<u8>> {
    use crate::codec::Codec;
    let mut bytes = Vec::new();
    T::DefaultCodec::default().encode(value, &mut bytes)?;
    Ok(bytes)
}

fn key_in_words(store: &StoreAtRest, key: &[u8]) -> String {
    match key_type_with_time(store).and_then(|key_type| Some((key_type, timed_key(key)?))) {
        None => show(store.key.as_ref(), key),
        Some((_, TimedKey::OwnTime)) => "event time".to_owned(),
        Some((key_type, TimedKey::Value(key))) => show(Some(&key_type), key),
        Some((key_type, TimedKey::Waiting(row))) => {
            let what = if row.is_timer { "timer of " } else { "" };
            format!("{what}{} at {}", show(Some(&key_type), row.key), row.time)
        }
    }
}

/// The type of the keys of a store whose rows have times.
fn key_type_with_time(store: &StoreAtRest) -> Option<TypeIdentity> {
    let key_type = timed_key_type(store.key.as_ref()?.as_str())?;
    Some(TypeIdentity::named(key_type))
}

/// Decoded where the value is a plain one in the codec that it has by default; else its bytes. With its version, where values have one.
fn value_in_words(store: &StoreAtRest, value: &[u8]) -> String {
    let value = match key_type_with_time(store) {
        None => value,
        Some(_) => match (time_of_row(value), value_of_row(value)) {
            (Some(time), _) => return time.to_string(),
            (None, Some(value)) => value,
            // A timer.
            (None, None) => return String::new(),
        },
    };
    let (version, value) = match store.value_version == 1 && store.earlier.is_empty() {
        true if store.codec.are_told_apart() => (store.value_version, told_apart(value)),
        true => (store.value_version, value),
        false => version_of(value),
    };
    let identity = match version == store.value_version {
        true => store.value.as_ref(),
        false => store.earlier.get(&version),
    };
    let is_text = identity.is_some_and(|it| it.as_str() == "text");
    let words = match store.codec.of_values() == crate::codec::CodecId(BINCODE) || is_text {
        true => show(identity, value),
        false => show(None, value),
    };
    match store.value_version {
        1 => words,
        _ => format!("version {version}: {words}"),
    }
}

/// The number of the codec that serde types have by default.
const BINCODE: u16 = 1;

fn show(identity: Option<&TypeIdentity>, bytes: &[u8]) -> String {
    let format = match identity.map_or("", |identity| identity.as_str()) {
        "text" => ByteFormat::Text,
        "str" => ByteFormat::BincodeString,
        "u64" | "u32" | "u16" => ByteFormat::BincodeU64,
        "i64" | "i32" | "i16" => ByteFormat::BincodeI64,
        "f64" => ByteFormat::BincodeF64,
        _ => ByteFormat::Hex,
    };
    let formatter = Formatter {
        is_terminal: output::is_terminal(),
        null: NULL,
    };
    formatter.show(Some(bytes), format)
}
