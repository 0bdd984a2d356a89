//! The contract of `env`, held by the real world and by the simulated one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::simulated::SimulatedWorld;
use super::{Env, LockError, OpenMode};

/// Runs each test against both worlds.
macro_rules! contract {
    ($($name:ident)*) => {
        mod real {
            $(#[test]
            fn $name() {
                let root = tempfile::tempdir().unwrap();
                super::$name(&super::Env::real(), root.path());
            })*
        }
        mod simulated {
            $(#[test]
            fn $name() {
                let env = super::SimulatedWorld::with_threads(1).env();
                super::$name(&env, std::path::Path::new("/"));
            })*
        }
    };
}

contract! {
    open_modes_treat_absent_and_present_files_as_they_say
    reads_stop_at_the_end_and_writes_extend_with_zeros
    set_length_cuts_and_extends_with_zeros
    a_file_is_not_larger_than_read_allows
    directories_list_sorted_and_remove_only_when_empty
    rename_replaces_files_and_moves_directories
    f10_replace_leaves_the_new_bytes_and_no_temporary
    an_open_file_outlives_its_name
    f17_a_lock_is_held_once_and_freed_by_drop
    writeback_is_advice
    threads_report_their_panics
    clocks_move_forward
    random_numbers_stay_below_their_bound
}

fn names(env: &Env, path: &Path) -> Vec<String> {
    let entries = env.files.read_dir(path).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

fn write(env: &Env, path: &Path, bytes: &[u8]) {
    let file = env.files.open(path, OpenMode::OpenOrCreate).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

fn read(env: &Env, path: &Path) -> Vec<u8> {
    env.files.read(path, 1 << 20).unwrap()
}

fn open_modes_treat_absent_and_present_files_as_they_say(env: &Env, root: &Path) {
    let path = root.join("file");
    let kind = |mode| env.files.open(&path, mode).err().map(|e| e.kind());
    assert_eq!(kind(OpenMode::Read), Some(std::io::ErrorKind::NotFound));
    assert_eq!(kind(OpenMode::Write), Some(std::io::ErrorKind::NotFound));
    assert!(!env.files.exists(&path).unwrap());
    assert_eq!(kind(OpenMode::CreateNew), None);
    assert!(env.files.exists(&path).unwrap());
    assert_eq!(
        kind(OpenMode::CreateNew),
        Some(std::io::ErrorKind::AlreadyExists)
    );
    assert_eq!(kind(OpenMode::OpenOrCreate), None);
    assert_eq!(kind(OpenMode::Write), None);
    let reader = env.files.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_at(b"x", 0).is_err());
    let orphan = root.join("absent").join("file");
    let error = env.files.open(&orphan, OpenMode::CreateNew).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

fn reads_stop_at_the_end_and_writes_extend_with_zeros(env: &Env, root: &Path) {
    let file = env
        .files
        .open(&root.join("file"), OpenMode::CreateNew)
        .unwrap();
    file.write_all_at(b"head", 0).unwrap();
    file.write_all_at(b"tail", 10_000).unwrap();
    assert_eq!(file.length_bytes().unwrap(), 10_004);
    let mut bytes = vec![1; 20_000];
    assert_eq!(file.read_full_at(&mut bytes, 0).unwrap(), 10_004);
    assert_eq!(&bytes[..4], b"head");
    assert!(bytes[4..10_000].iter().all(|byte| *byte == 0));
    assert_eq!(&bytes[10_000..10_004], b"tail");
    assert_eq!(file.read_at(&mut bytes, 10_004).unwrap(), 0);
    assert_eq!(file.read_at(&mut bytes, 1 << 40).unwrap(), 0);
    let error = file.read_exact_at(&mut bytes[..8], 10_000).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    file.sync_data().unwrap();
}

fn set_length_cuts_and_extends_with_zeros(env: &Env, root: &Path) {
    let file = env
        .files
        .open(&root.join("file"), OpenMode::CreateNew)
        .unwrap();
    file.write_all_at(&[7; 9000], 0).unwrap();
    file.set_length(4100).unwrap();
    file.set_length(9000).unwrap();
    let mut bytes = vec![1; 9000];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..4100].iter().all(|byte| *byte == 7));
    assert!(bytes[4100..].iter().all(|byte| *byte == 0));
}

fn a_file_is_not_larger_than_read_allows(env: &Env, root: &Path) {
    let path = root.join("file");
    write(env, &path, b"four");
    assert_eq!(env.files.read(&path, 4).unwrap(), b"four");
    let error = env.files.read(&path, 3).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

fn directories_list_sorted_and_remove_only_when_empty(env: &Env, root: &Path) {
    let dir = root.join("dir");
    env.files.create_dir(&dir).unwrap();
    env.files.create_dir(&dir).unwrap();
    write(env, &dir.join("b"), b"12");
    write(env, &dir.join("a"), b"");
    env.files.create_dir(&dir.join("c")).unwrap();
    let entries = env.files.read_dir(&dir).unwrap();
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.is_dir, entry.length_bytes))
        .collect();
    assert_eq!(shown, [("a", false, 0), ("b", false, 2), ("c", true, 0)]);
    assert!(env.files.remove_dir(&dir).is_err());
    assert!(env.files.remove_file(&dir.join("c")).is_err());
    assert!(env.files.remove_dir(&dir.join("a")).is_err());
    assert!(env.files.create_dir(&dir.join("a")).is_err());
    env.files.remove_dir(&dir.join("c")).unwrap();
    env.files.remove_file(&dir.join("a")).unwrap();
    env.files.remove_file(&dir.join("b")).unwrap();
    env.files.sync_dir(&dir).unwrap();
    env.files.remove_dir(&dir).unwrap();
    assert!(!env.files.exists(&dir).unwrap());
    let error = env.files.remove_file(&dir).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let error = env.files.create_dir(&dir.join("orphan")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

fn rename_replaces_files_and_moves_directories(env: &Env, root: &Path) {
    let (a, b) = (root.join("a"), root.join("b"));
    write(env, &a, b"new");
    write(env, &b, b"old");
    env.files.rename(&a, &b).unwrap();
    assert_eq!(read(env, &b), b"new");
    assert!(!env.files.exists(&a).unwrap());
    let (from, to) = (root.join("from"), root.join("to"));
    env.files.create_dir(&from).unwrap();
    write(env, &from.join("inside"), b"kept");
    env.files.rename(&from, &to).unwrap();
    assert_eq!(read(env, &to.join("inside")), b"kept");
    assert!(env.files.rename(&b, &to).is_err());
    assert!(env.files.rename(&to, &b).is_err());
    assert!(env.files.rename(&to, &to.join("below")).is_err());
    assert!(env.files.rename(&from, &to).is_err());
}

fn f10_replace_leaves_the_new_bytes_and_no_temporary(env: &Env, root: &Path) {
    let dir = root.join("dir");
    env.files.create_dir(&dir).unwrap();
    let path = dir.join("meta");
    write(env, &dir.join("meta.tmp"), b"left by a crash");
    env.files.replace(&path, b"one").unwrap();
    env.files.replace(&path, b"second").unwrap();
    assert_eq!(read(env, &path), b"second");
    assert_eq!(names(env, &dir), ["meta"]);
}

fn an_open_file_outlives_its_name(env: &Env, root: &Path) {
    let path = root.join("file");
    let file = env.files.open(&path, OpenMode::CreateNew).unwrap();
    env.files.remove_file(&path).unwrap();
    file.write_all_at(b"still", 0).unwrap();
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"still");
    file.sync_data().unwrap();
}

fn f17_a_lock_is_held_once_and_freed_by_drop(env: &Env, root: &Path) {
    let path = root.join("lock");
    let held = env.files.lock(&path).unwrap();
    let owner = String::from_utf8(read(env, &path)).unwrap();
    match env.files.lock(&path).err() {
        Some(LockError::Held { owner: shown }) => assert_eq!(shown, owner.trim()),
        other => panic!("a second lock was not refused: {other:?}"),
    }
    drop(held);
    drop(env.files.lock(&path).unwrap());
}

fn writeback_is_advice(env: &Env, root: &Path) {
    let file = env
        .files
        .open(&root.join("file"), OpenMode::CreateNew)
        .unwrap();
    file.write_all_at(&[1; 100_000], 0).unwrap();
    file.start_writeback(0, 100_000);
    file.start_writeback(u64::MAX, u64::MAX);
    assert_eq!(file.length_bytes().unwrap(), 100_000);
}

fn threads_report_their_panics(env: &Env, _: &Path) {
    let ran = Arc::new(AtomicBool::new(false));
    let flag = ran.clone();
    let body = move || flag.store(true, Ordering::SeqCst);
    let handle = env.spawn.spawn("of-test", Box::new(body)).unwrap();
    assert_eq!(handle.join(), Ok(()));
    assert!(ran.load(Ordering::SeqCst));
    let body = || panic!("on purpose");
    let handle = env.spawn.spawn("of-panics", Box::new(body)).unwrap();
    assert_eq!(handle.join(), Err("on purpose".to_owned()));
    assert!(env.spawn.parallelism() >= 1);
}

fn clocks_move_forward(env: &Env, _: &Path) {
    let (before, wall_before) = (env.clock.now(), env.clock.wall());
    env.clock.sleep(Duration::from_millis(2));
    assert!(env.clock.now().since(before) >= Duration::from_millis(2));
    assert!(env.clock.wall() > wall_before);
}

fn random_numbers_stay_below_their_bound(env: &Env, _: &Path) {
    assert_ne!(env.random.next_u128(), env.random.next_u128());
    let drawn: std::collections::BTreeSet<u64> = (0..400).map(|_| env.random.below(5)).collect();
    assert_eq!(drawn, (0..5).collect());
}

#[test]
fn f19_symbolic_links_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let files = Env::real().files;
    let link = |name: &str, target: &Path| -> PathBuf {
        let path = root.path().join(name);
        std::os::unix::fs::symlink(target, &path).unwrap();
        path
    };
    let target = root.path().join("target");
    write(&Env::real(), &target, b"not ours");
    let to_file = link("to_file", &target);
    for mode in [OpenMode::Read, OpenMode::Write, OpenMode::OpenOrCreate] {
        let error = files.open(&to_file, mode).err().unwrap();
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    assert!(files.open(&to_file, OpenMode::CreateNew).is_err());
    assert!(files.lock(&to_file).is_err());
    let to_dir = link("to_dir", root.path());
    assert!(files.create_dir(&to_dir).is_err());
    assert!(files.sync_dir(&to_dir).is_err());
    assert!(
        files
            .exists(&link("dangling", Path::new("/nowhere")))
            .unwrap()
    );
    assert_eq!(read(&Env::real(), &target), b"not ours");
}

#[test]
fn f18_files_and_directories_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let files = Env::real().files;
    let (dir, file) = (root.path().join("dir"), root.path().join("file"));
    files.create_dir(&dir).unwrap();
    files.open(&file, OpenMode::CreateNew).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&file)), (0o700, 0o600));
}

/// A child of this process shares its open files from the fork to the `exec`.
#[test]
fn f17_a_lock_is_free_when_it_is_dropped_while_children_are_started() {
    let env = Env::real();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("lock");
    let is_over = Arc::new(AtomicBool::new(false));
    #[allow(clippy::disallowed_methods, reason = "children of the real machine")]
    let starting = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            while !is_over.load(Ordering::Relaxed) {
                let child = std::process::Command::new("true").spawn();
                child.unwrap().wait().unwrap();
            }
        }
    });
    let held = (0..5_000).filter(|_| env.files.lock(&path).is_err());
    let held = held.count();
    is_over.store(true, Ordering::Relaxed);
    starting.join().unwrap();
    assert_eq!(held, 0);
}
