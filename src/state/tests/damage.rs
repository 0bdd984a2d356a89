//! Lost, truncated and rotten files of RocksDB: rebuilt from the changelog, and never a wrong value.

#![allow(clippy::disallowed_methods, reason = "the tests damage real files")]

use std::fs;
use std::path::{Path, PathBuf};

use super::support::*;
use crate::state::StateError;

/// Two tables on disk and values of some length, so that there are blocks to damage.
fn with_tables() -> (Home, Changelog) {
    let home = Home::new();
    let mut changelog = Changelog::default();
    let backend = home.open(tiny()).unwrap();
    let mut store = open_store(&backend).unwrap();
    for round in 0..3 {
        for number in 0..200 {
            let key = format!("{:width$}", number, width = 3 + number % 4);
            put(
                &mut store,
                key.as_bytes(),
                &format!("{round} {}", "x".repeat(50)),
            )
            .unwrap();
        }
        commit_and_flush(&backend, &mut store, &mut changelog).unwrap();
        backend.make_durable().unwrap();
    }
    backend.close().unwrap();
    (home, changelog)
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Delete,
    Halve,
    Empty,
    FlipEarly,
    FlipLate,
    /// The last sector never reached the disk, though the length did.
    ZeroEnd,
}

/// A sector, in bytes.
const SECTOR_BYTES: usize = 512;

fn inflict(damage: Damage, path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let length = bytes.len();
    match damage {
        Damage::Delete => return fs::remove_file(path).unwrap(),
        Damage::Halve => bytes.truncate(length / 2),
        Damage::Empty => bytes.clear(),
        Damage::FlipEarly if length > 0 => bytes[length / 5] ^= 0x40,
        Damage::FlipLate if length > 0 => bytes[length * 4 / 5] ^= 0x40,
        Damage::ZeroEnd => bytes[length.saturating_sub(SECTOR_BYTES)..].fill(0),
        Damage::FlipEarly | Damage::FlipLate => {}
    }
    fs::write(path, bytes).unwrap();
}

/// Opens and recovers; if that finds damage, once more: then it must be whole.
fn recover_within_two_starts(home: &Home, changelog: &Changelog) -> Result<(), StateError> {
    let first = home
        .open(tiny())
        .and_then(|backend| recover(&backend, changelog).map(drop));
    match first {
        Err(StateError::Damaged { .. }) => {
            let backend = home.open(tiny())?;
            assert!(
                backend.rebuilt().is_some(),
                "damage was marked, so it is rebuilt"
            );
            recover(&backend, changelog).map(drop)
        }
        other => other,
    }
}

#[test]
fn s4_any_damaged_file_is_rebuilt_and_no_wrong_value_is_read() {
    let (home, changelog) = with_tables();
    let files = files_of(&home.path().join("rocksdb"));
    assert!(
        files
            .iter()
            .any(|path| path.extension().is_some_and(|e| e == "sst"))
    );
    for damage in [
        Damage::Delete,
        Damage::Halve,
        Damage::Empty,
        Damage::FlipEarly,
        Damage::FlipLate,
        Damage::ZeroEnd,
    ] {
        for file in &files {
            let mut copy = Home::new();
            copy.copy_from(&home);
            let name = file.file_name().unwrap();
            inflict(damage, &copy.path().join("rocksdb").join(name));
            recover_within_two_starts(&copy, &changelog)
                .unwrap_or_else(|e| panic!("{damage:?} of {}: {e}", name.display()));
        }
    }
}

/// Where the records of a MANIFEST end: each has a checksum of 4 bytes, a length of 2 and a type of 1 before it.
/// The file is far shorter than a block of 32 KiB, in which records would be padded.
fn record_ends(manifest: &[u8]) -> Vec<usize> {
    assert!(manifest.len() < 32 << 10);
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(&[low, high]) = manifest.get(at + 4..at + 6) {
        at += 7 + usize::from(u16::from_le_bytes([low, high]));
        ends.push(at);
    }
    assert_eq!(ends.last(), Some(&manifest.len()), "the whole file is read");
    ends
}

/// A power loss leaves a prefix of RocksDB's own journal, or a torn one: then RocksDB stands at an earlier flush, or is
/// rebuilt; its values and their position never fall apart (I7).
#[test]
fn s2_s3_s4_a_manifest_cut_at_or_within_any_record_yields_no_wrong_value() {
    let (home, changelog) = with_tables();
    let files = files_of(&home.path().join("rocksdb"));
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let manifests: Vec<String> = files.iter().map(name).collect();
    let manifest = manifests.iter().rfind(|name| name.starts_with("MANIFEST-"));
    let manifest = manifest.expect("RocksDB keeps one");
    let bytes = fs::read(home.path().join("rocksdb").join(manifest)).unwrap();
    let ends = record_ends(&bytes);
    assert!(ends.len() > 5, "only {} records", ends.len());
    for end in ends {
        for length in [end, end - 3] {
            let mut copy = Home::new();
            copy.copy_from(&home);
            let path = copy.path().join("rocksdb").join(manifest);
            fs::write(path, &bytes[..length]).unwrap();
            recover_within_two_starts(&copy, &changelog)
                .unwrap_or_else(|e| panic!("{manifest} cut at {length}: {e}"));
        }
    }
}

#[test]
fn s4_a_lost_or_half_copied_directory_is_restored() {
    let (home, changelog) = with_tables();
    for lost in ["rocksdb", "meta.json", "rocksdb/CURRENT"] {
        let mut copy = Home::new();
        copy.copy_from(&home);
        let path = copy.path().join(lost);
        match path.is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
        let backend = copy.open(tiny()).unwrap();
        assert_eq!(
            backend.position(STORE, 1),
            None,
            "without {lost} nothing is known"
        );
        recover(&backend, &changelog).unwrap();
    }
}
