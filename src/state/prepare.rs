//! Preparation of the files of a job's state before use: compared, wiped if need be, opened.

use std::path::{Path, PathBuf};

use rocksdb::Options;

use super::at_rest::{CHECKPOINT, META};
use super::config::StateConfig;
use super::error::StateError;
use super::key_prefix::ORDERED_KEY;
use super::meta::{META_BYTES_MAX, Meta};
use super::rocks::{self, OpenFailure};
use crate::env::Env;

pub(super) fn database(directory: &Path) -> PathBuf {
    directory.join("rocksdb")
}

pub(super) fn damage_mark(directory: &Path) -> PathBuf {
    directory.join("damaged")
}

/// Compares `meta.json` with the configuration, wipes what must be rebuilt, and writes the new `meta.json`; returns why it wiped.
pub(super) fn prepare(
    env: &Env,
    directory: &Path,
    config: &StateConfig,
) -> Result<Option<String>, StateError> {
    // The rest of an interrupted savepoint.
    rocks::remove_tree(env, &directory.join(CHECKPOINT))?;
    let path = directory.join(META);
    let exists = |path: &Path| {
        env.files
            .exists(path)
            .map_err(|e| StateError::io("look for", path, e))
    };
    let stored = match exists(&path)? {
        true => {
            let bytes = env.files.read(&path, META_BYTES_MAX);
            Meta::parse(
                &bytes.map_err(|e| StateError::io("read", &path, e))?,
                directory,
            )?
        }
        false => None,
    };
    let files = &config.rocks_files;
    let has_database = files.have_any(env, &database(directory));
    let has_database =
        has_database.map_err(|e| StateError::io("look for", &database(directory), e))?;
    let mut why = match &stored {
        Some(stored) => stored.check(config, directory)?,
        None => has_database.then(|| "its meta.json is missing or damaged".to_owned()),
    };
    let mark = damage_mark(directory);
    let is_marked = exists(&mark)?;
    if is_marked && why.is_none() {
        why = Some("it was found damaged".to_owned());
    }
    // The mark and the old `meta.json` go last: until then a crash begins the wipe again.
    if why.is_some() {
        files.remove(env, &database(directory))?;
    }
    if is_marked {
        env.files
            .remove_file(&mark)
            .map_err(|e| StateError::io("remove", &mark, e))?;
    }
    let mut meta = Meta::of(config);
    if let Some(stored) = stored.as_ref().filter(|_| why.is_none()) {
        meta = meta.after(stored);
    }
    if stored.as_ref() != Some(&meta) {
        env.files
            .replace(&path, &meta.to_bytes())
            .map_err(|e| StateError::io("write", &path, e))?;
    }
    Ok(why)
}

/// Opens RocksDB; damaged files are derived data and are wiped (S4).
pub(super) fn open_or_rebuild(
    env: &Env,
    directory: &Path,
    config: &StateConfig,
    options: &Options,
    rebuilt: &mut Option<String>,
) -> Result<rocks::Opened, StateError> {
    let path = database(directory);
    let stores: Vec<_> = config
        .stores
        .iter()
        .map(|store| store.name.clone())
        .collect();
    let in_order = config.stores.iter();
    let in_order = in_order.filter(|store| store.schema.key.as_str().starts_with(ORDERED_KEY));
    let in_order: Vec<_> = in_order.map(|store| store.name.clone()).collect();
    let dropped = &config.dropped_stores;
    let files = &config.rocks_files;
    let open = || {
        let mut options = options.clone();
        files.set(&mut options);
        rocks::open(env, files, &path, &options, &stores, &in_order, dropped)
    };
    let failure = match open() {
        Ok(opened) => return Ok(opened),
        Err(OpenFailure::Damaged(why)) => {
            config.rocks_files.remove(env, &path)?;
            *rebuilt = Some(why);
            match open() {
                Ok(opened) => return Ok(opened),
                Err(failure) => failure,
            }
        }
        Err(failure) => failure,
    };
    let (OpenFailure::Damaged(why) | OpenFailure::Other(why)) = failure;
    Err(StateError::Database {
        operation: "be opened",
        path,
        why,
    })
}
