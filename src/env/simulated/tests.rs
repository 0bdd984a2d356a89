//! The simulated world keeps its promises: what may be lost, what may not, and that it repeats.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::{
    CACHE_PAGE_BYTES, Call, DataLoss, DiskContents, Fault, FaultEffect, NameLoss, PowerLoss,
    SECTOR_BYTES, SimulatedWorld,
};
use crate::env::{File, OpenMode};

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(world: &SimulatedWorld, name: &str) -> Box<dyn File> {
    let files = world.env().files;
    files.open(path(name), OpenMode::CreateNew).unwrap()
}

fn read(world: &SimulatedWorld, name: &str) -> Option<Vec<u8>> {
    world.env().files.read(path(name), 1 << 30).ok()
}

fn loss(data: DataLoss, names: NameLoss, seed: u64) -> PowerLoss {
    PowerLoss { data, names, seed }
}

/// A world with a durable file of `length` ones, and an open handle on it.
fn with_durable_file(length: usize) -> (SimulatedWorld, Box<dyn File>) {
    let world = SimulatedWorld::new(7);
    let file = create(&world, "/f");
    file.write_all_at(&vec![1; length], 0).unwrap();
    file.sync_data().unwrap();
    world.env().files.sync_dir(path("/")).unwrap();
    (world, file)
}

#[test]
fn synced_bytes_and_names_survive_every_power_loss() {
    for loss in PowerLoss::every_mode(3) {
        let (world, _file) = with_durable_file(10_000);
        let after = world.after_power_loss(loss);
        assert_eq!(read(&after, "/f"), Some(vec![1; 10_000]), "{loss:?}");
    }
}

#[test]
fn disks_have_one_number_if_and_only_if_a_process_finds_the_same_on_them() {
    let mut contents = DiskContents::new();
    let (world, file) = with_durable_file(10_000);
    let durable = contents.number(&world);
    assert_eq!(contents.number(&with_durable_file(10_000).0), durable);
    assert_ne!(contents.number(&with_durable_file(10_001).0), durable);
    file.set_length(10_000).unwrap();
    assert_eq!(contents.number(&world), durable, "nothing was changed");
    file.write_all_at(&[2], 9_999).unwrap();
    let changed = contents.number(&world);
    assert_ne!(changed, durable);
    assert_eq!(contents.number(&world.after_kill()), changed);
    let lost = world.after_power_loss(PowerLoss::STRICT);
    assert_eq!(contents.number(&lost), durable);
    let files = lost.env().files;
    files.rename(path("/f"), path("/g")).unwrap();
    assert_ne!(contents.number(&lost), durable, "another name");
    // Zeros that were written are as good as zeros that were not.
    let (zeros, hole) = (create(&lost, "/zeros"), create(&lost, "/hole"));
    zeros.write_all_at(&[0; 5_000], 0).unwrap();
    let written = contents.number(&lost);
    zeros.set_length(0).unwrap();
    zeros.set_length(5_000).unwrap();
    assert_eq!(contents.number(&lost), written);
    hole.set_length(1).unwrap();
    assert_ne!(contents.number(&lost), written);
}

#[test]
fn a_simplified_loss_leaves_the_same_disk() {
    let world = SimulatedWorld::new(5);
    world.start_recording();
    let file = create(&world, "/f");
    file.write_all_at(&[1; 5_000], 0).unwrap();
    world.env().files.sync_dir(path("/")).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 9_000], 0).unwrap();
    drop(create(&world, "/g"));
    file.sync_data().unwrap();
    let recording = world.stop_recording().unwrap();
    let mut contents = DiskContents::new();
    let mut replay = recording.replay();
    let mut simplified_count = 0;
    loop {
        for loss in PowerLoss::every_mode(9) {
            let simplified = replay.simplified(loss);
            simplified_count += usize::from(simplified != loss);
            let left = contents.number(&replay.after_power_loss(loss));
            let same = contents.number(&replay.after_power_loss(simplified));
            assert_eq!(left, same, "{loss:?} at {}", replay.done_count());
        }
        if !replay.step() {
            break;
        }
    }
    assert!(simplified_count > 32, "only {simplified_count}");
}

#[test]
fn unsynced_bytes_are_lost_without_a_trace() {
    let (world, file) = with_durable_file(100);
    file.write_all_at(&[2; 50], 80).unwrap();
    file.set_length(20).unwrap();
    let after = world.after_power_loss(PowerLoss::STRICT);
    assert_eq!(read(&after, "/f"), Some(vec![1; 100]));
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let world = SimulatedWorld::new(7);
    world.env().files.create_dir(path("/d")).unwrap();
    let file = create(&world, "/d/f");
    file.write_all_at(b"durable", 0).unwrap();
    file.sync_data().unwrap();
    world.env().files.sync_dir(path("/d")).unwrap();
    // The directory's own name was not synced.
    let after = world.after_power_loss(PowerLoss::STRICT);
    assert_eq!(world.env().files.exists(path("/d")).ok(), None);
    assert!(!after.env().files.exists(path("/d")).unwrap());
}

#[test]
fn a_synced_name_does_not_carry_the_files_bytes() {
    let world = SimulatedWorld::new(7);
    create(&world, "/f").write_all_at(b"cached", 0).unwrap();
    world.env().files.sync_dir(path("/")).unwrap();
    let after = world.after_power_loss(PowerLoss::STRICT);
    assert_eq!(read(&after, "/f"), Some(Vec::new()));
}

#[test]
fn f10_a_rename_is_lost_or_kept_whole() {
    let outcomes: BTreeSet<_> = (0..64)
        .map(|seed| {
            let (world, _file) = with_durable_file(3);
            let other = create(&world, "/f.tmp");
            other.write_all_at(b"new", 0).unwrap();
            other.sync_data().unwrap();
            world.env().files.sync_dir(path("/")).unwrap();
            world
                .env()
                .files
                .rename(path("/f.tmp"), path("/f"))
                .unwrap();
            let after = world.after_power_loss(loss(DataLoss::Nothing, NameLoss::Some, seed));
            (read(&after, "/f"), read(&after, "/f.tmp"))
        })
        .collect();
    let lost = (Some(vec![1; 3]), Some(b"new".to_vec()));
    let kept = (Some(b"new".to_vec()), None);
    assert_eq!(outcomes, BTreeSet::from([lost, kept]));
}

#[test]
fn a_removed_file_comes_back_unless_its_directory_was_synced() {
    let (world, _file) = with_durable_file(3);
    world.env().files.remove_file(path("/f")).unwrap();
    let after = world.after_power_loss(PowerLoss::STRICT);
    assert_eq!(read(&after, "/f"), Some(vec![1; 3]));
    after.env().files.remove_file(path("/f")).unwrap();
    after.env().files.sync_dir(path("/")).unwrap();
    for loss in PowerLoss::every_mode(1) {
        assert_eq!(read(&after.after_power_loss(loss), "/f"), None);
    }
}

#[test]
fn f4_a_zero_filled_loss_keeps_sizes_and_loses_bytes() {
    let (world, file) = with_durable_file(10);
    file.write_all_at(&[2; 10], 5).unwrap();
    let after = world.after_power_loss(loss(DataLoss::ZeroFilled, NameLoss::Nothing, 0));
    let expected = [vec![1; 10], vec![0; 5]].concat();
    assert_eq!(read(&after, "/f"), Some(expected));
}

#[test]
fn f1_the_last_write_tears_at_every_sector_and_nowhere_else() {
    let grain_bytes = SECTOR_BYTES;
    let lengths: BTreeSet<usize> = (0..200)
        .map(|seed| {
            let (world, file) = with_durable_file(100);
            file.write_all_at(&[2; 100], 100).unwrap();
            file.write_all_at(&[3; 2000], 200).unwrap();
            let torn = loss(
                DataLoss::LastWriteTorn { grain_bytes },
                NameLoss::Nothing,
                seed,
            );
            let bytes = read(&world.after_power_loss(torn), "/f").unwrap();
            assert_eq!(bytes[100..200], [2; 100]);
            assert!(bytes[200..].iter().all(|byte| *byte == 3));
            bytes.len()
        })
        .collect();
    assert_eq!(lengths, BTreeSet::from([200, 512, 1024, 1536, 2048, 2200]));
}

#[test]
fn f3_blocks_reach_the_disk_in_any_order_but_never_split() {
    let grain_bytes = CACHE_PAGE_BYTES;
    let patterns: BTreeSet<Vec<u8>> = (0..300)
        .map(|seed| {
            let (world, file) = with_durable_file(3 * 4096);
            file.write_all_at(&[2; 3 * 4096], 0).unwrap();
            let mixed = loss(DataLoss::Blocks { grain_bytes }, NameLoss::Nothing, seed);
            let bytes = read(&world.after_power_loss(mixed), "/f").unwrap();
            let blocks = bytes.chunks(4096);
            let is_whole = |block: &[u8]| block.iter().all(|byte| *byte == block[0]);
            blocks
                .map(|block| if is_whole(block) { block[0] } else { 0 })
                .collect()
        })
        .collect();
    assert_eq!(patterns.len(), 8, "each block old or new: {patterns:?}");
    assert!(patterns.iter().flatten().all(|byte| [1, 2].contains(byte)));
}

#[test]
fn two_writes_into_one_block_cannot_be_reordered() {
    for seed in 0..200 {
        let (world, file) = with_durable_file(512);
        file.write_all_at(b"a", 0).unwrap();
        file.write_all_at(b"b", 1).unwrap();
        let grain_bytes = SECTOR_BYTES;
        let mixed = loss(DataLoss::Blocks { grain_bytes }, NameLoss::Nothing, seed);
        let bytes = read(&world.after_power_loss(mixed), "/f").unwrap();
        let start = &bytes[..2];
        assert!([[1, 1], [b'a', 1], [b'a', b'b']].contains(&[start[0], start[1]]));
    }
}

#[test]
fn a_suffix_is_lost_across_files_in_the_order_of_writing() {
    let survivors: BTreeSet<_> = (0..100)
        .map(|seed| {
            let world = SimulatedWorld::new(1);
            let (a, b) = (create(&world, "/a"), create(&world, "/b"));
            world.env().files.sync_dir(path("/")).unwrap();
            for file in [&a, &b, &a, &b] {
                let end = file.length_bytes().unwrap();
                file.write_all_at(b"x", end).unwrap();
            }
            let after = world.after_power_loss(loss(DataLoss::Suffix, NameLoss::Suffix, seed));
            (
                read(&after, "/a").unwrap().len(),
                read(&after, "/b").unwrap().len(),
            )
        })
        .collect();
    assert_eq!(
        survivors,
        BTreeSet::from([(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)])
    );
}

#[test]
fn a_killed_process_leaves_the_page_cache_and_nothing_more_durable() {
    let (world, file) = with_durable_file(10);
    file.write_all_at(&[2; 10], 10).unwrap();
    let after = world.after_kill();
    assert_eq!(read(&after, "/f").unwrap().len(), 20);
    let later = after.after_power_loss(PowerLoss::STRICT);
    assert_eq!(read(&later, "/f").unwrap().len(), 10);
}

#[test]
fn handles_of_a_world_without_power_are_dead() {
    let (world, file) = with_durable_file(10);
    let env = world.env();
    let after = world.after_power_loss(PowerLoss::STRICT);
    assert!(file.write_at(b"x", 0).is_err());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(file.length_bytes().is_err());
    assert!(file.set_length(0).is_err());
    assert!(file.sync_data().is_err());
    assert!(env.files.open(path("/f"), OpenMode::Read).is_err());
    assert!(env.files.read_dir(path("/")).is_err());
    assert!(env.files.lock(path("/lock")).is_err());
    assert_eq!(read(&after, "/f"), Some(vec![1; 10]));
}

#[test]
fn power_fails_at_the_call_that_was_named() {
    let (world, file) = with_durable_file(10);
    world.power_off_after(2);
    assert!(file.write_at(b"x", 0).is_ok());
    assert!(file.sync_data().is_ok());
    assert!(file.write_at(b"y", 0).is_err());
    assert!(world.is_off());
}

#[test]
fn f11_a_failed_sync_loses_its_pages_though_the_next_one_succeeds() {
    let (world, file) = with_durable_file(4);
    world.inject(Fault::new(FaultEffect::InputOutput).on(&[Call::SyncData]));
    file.write_all_at(b"lost", 0).unwrap();
    assert!(file.sync_data().is_err());
    assert_eq!(read(&world, "/f").unwrap(), b"lost");
    file.write_all_at(b"kept", 4).unwrap();
    file.sync_data().unwrap();
    let after = world.after_power_loss(PowerLoss::STRICT);
    assert_eq!(read(&after, "/f").unwrap(), b"\x01\x01\x01\x01kept");
}

#[test]
fn f13_a_full_disk_takes_what_fits_and_works_again_with_room() {
    let world = SimulatedWorld::new(7);
    world.set_capacity(Some(3 * 4096));
    let file = create(&world, "/f");
    file.write_all_at(&[1; 4096], 0).unwrap();
    assert_eq!(file.write_at(&[2; 10_000], 4096).unwrap(), 8192);
    let error = file.write_at(b"x", 3 * 4096).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(world.env().files.create_dir(path("/d")).is_err());
    file.write_all_at(&[3; 100], 0).unwrap();
    file.set_length(4096).unwrap();
    assert_eq!(world.used_bytes(), 4096);
    file.write_all_at(&[4; 8192], 4096).unwrap();
    world.env().files.remove_file(path("/f")).unwrap();
    assert_eq!(world.used_bytes(), 0);
}

#[test]
fn faults_strike_the_kth_matching_call_once_or_for_ever() {
    let (world, file) = with_durable_file(4);
    let other = create(&world, "/other");
    let full = Fault::new(FaultEffect::StorageFull)
        .on(&[Call::Write])
        .in_path("/f");
    world.inject(full.clone().after(1));
    assert!(file.write_at(b"x", 0).is_ok());
    assert!(other.write_at(b"x", 0).is_ok());
    let error = file.write_at(b"x", 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(file.write_at(b"x", 0).is_ok());
    world.inject(full.for_ever());
    assert!(file.write_at(b"x", 0).is_err());
    assert!(file.write_at(b"x", 0).is_err());
    assert_eq!(world.faults_struck(), 3);
    world.clear_faults();
    assert!(file.write_at(b"x", 0).is_ok());
}

#[test]
fn f15_short_and_interrupted_calls_lose_and_double_nothing() {
    let (world, file) = with_durable_file(0);
    let calls = [Call::Read, Call::Write];
    world.inject(Fault::new(FaultEffect::Short(3)).on(&calls).for_ever());
    world.inject(Fault::new(FaultEffect::Interrupted).on(&calls).for_ever());
    let bytes: Vec<u8> = (0..100).collect();
    file.write_all_at(&bytes, 0).unwrap();
    assert_eq!(read(&world, "/f"), Some(bytes));
    assert_eq!(world.calls_count_of(Call::Write), 34);
}

#[test]
fn f16_a_stall_takes_virtual_time() {
    let (world, file) = with_durable_file(0);
    let clock = world.env().clock;
    let before = clock.now();
    let stall = FaultEffect::Stall(Duration::from_secs(60));
    world.inject(Fault::new(stall).on(&[Call::SyncData]));
    file.sync_data().unwrap();
    assert_eq!(clock.now().since(before), Duration::from_secs(60));
}

#[test]
fn c24_the_wall_clock_jumps_and_the_monotonic_one_does_not() {
    let world = SimulatedWorld::new(1);
    let clock = world.env().clock;
    let (now, wall) = (clock.now(), clock.wall());
    world.jump_wall(-3_600_000);
    assert_eq!(clock.now(), now);
    assert_eq!(clock.wall(), wall.plus_millis(-3_600_000));
    let after = world.after_kill();
    assert_eq!(after.env().clock.wall(), clock.wall());
}

#[test]
fn damage_is_on_the_disk_too() {
    let (world, _file) = with_durable_file(4);
    world.flip_bit(path("/f"), 2, 7).unwrap();
    world.overwrite(path("/f"), 0, b"z").unwrap();
    let after = world.after_power_loss(PowerLoss::STRICT);
    assert_eq!(read(&after, "/f").unwrap(), [b'z', 1, 0x81, 1]);
    after.truncate(path("/f"), 1).unwrap();
    assert_eq!(read(&after, "/f").unwrap(), b"z");
    assert!(after.flip_bit(path("/f"), 1, 0).is_err());
}

#[test]
fn a_world_without_threads_refuses_them() {
    let env = SimulatedWorld::new(1).env();
    let refusal = env.spawn.spawn("of-sync", Box::new(|| {})).err().unwrap();
    assert_eq!(refusal.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_spawned_thread_sleeps_until_the_test_moves_time() {
    let world = SimulatedWorld::with_threads(1);
    let env = world.env();
    let (send, receive) = std::sync::mpsc::channel();
    let clock = env.clock.clone();
    let body = move || {
        send.send("asleep").unwrap();
        clock.sleep(Duration::from_secs(10));
        send.send("awake").unwrap();
    };
    let handle = env.spawn.spawn("of-sleeps", Box::new(body)).unwrap();
    assert_eq!(receive.recv(), Ok("asleep"));
    assert!(receive.try_recv().is_err());
    // The thread may fall asleep only after time moved once: move it until it wakes.
    while receive.try_recv() != Ok("awake") {
        world.advance(Duration::from_secs(10));
        std::thread::yield_now();
    }
    handle.join().unwrap();
}

/// Step of a scripted run; positions and lengths cross sectors and pages.
#[derive(Debug, Clone)]
enum Operation {
    Write {
        file: u8,
        position: u16,
        length: u16,
    },
    SetLength {
        file: u8,
        length: u16,
    },
    Sync {
        file: u8,
    },
    SyncDir,
    Replace {
        file: u8,
    },
    Remove {
        file: u8,
    },
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let file = 0..3u8;
    prop_oneof![
        6 => (file.clone(), 0..10_000u16, 1..6_000u16)
            .prop_map(|(file, position, length)| Operation::Write { file, position, length }),
        1 => (file.clone(), 0..12_000u16).prop_map(|(file, length)| Operation::SetLength { file, length }),
        2 => file.clone().prop_map(|file| Operation::Sync { file }),
        2 => Just(Operation::SyncDir),
        1 => file.clone().prop_map(|file| Operation::Replace { file }),
        1 => file.prop_map(|file| Operation::Remove { file }),
        1 => Just(Operation::Reopen),
    ]
}

/// Applies an operation; `round` makes its bytes its own.
fn apply(world: &mut SimulatedWorld, operation: &Operation, round: u8) {
    let files = world.env().files;
    let name = |file: &u8| format!("/{file}");
    let open = |file: &u8| {
        files
            .open(path(&name(file)), OpenMode::OpenOrCreate)
            .unwrap()
    };
    match operation {
        Operation::Write {
            file,
            position,
            length,
        } => {
            let bytes = vec![round; usize::from(*length)];
            open(file)
                .write_all_at(&bytes, u64::from(*position))
                .unwrap();
        }
        Operation::SetLength { file, length } => {
            open(file).set_length(u64::from(*length)).unwrap();
        }
        Operation::Sync { file } => open(file).sync_data().unwrap(),
        Operation::SyncDir => files.sync_dir(path("/")).unwrap(),
        Operation::Replace { file } => files.replace(path(&name(file)), &[round; 700]).unwrap(),
        Operation::Remove { file } => {
            let _ = files.remove_file(path(&name(file)));
        }
        Operation::Reopen => *world = world.after_kill(),
    }
}

/// Names and bytes of all files.
fn contents(world: &SimulatedWorld) -> Vec<(String, Vec<u8>)> {
    let entries = world.env().files.read_dir(path("/")).unwrap();
    let with_bytes = |name: String| {
        let bytes = read(world, &format!("/{name}")).unwrap();
        (name, bytes)
    };
    entries
        .into_iter()
        .map(|entry| with_bytes(entry.name))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_power_loss_mixes_only_what_was_there(
        operations in prop::collection::vec(operation(), 1..25), seed: u64,
    ) {
        let mut world = SimulatedWorld::new(seed);
        let mut seen: Vec<Vec<u8>> = Vec::new();
        for (round, operation) in (1u8..).zip(&operations) {
            apply(&mut world, operation, round);
            seen.extend(contents(&world).into_iter().map(|(_, bytes)| bytes));
        }
        let was_there = |position: usize, byte: u8| {
            byte == 0 || seen.iter().any(|bytes| bytes.get(position) == Some(&byte))
        };
        let volatile = contents(&world);
        let nothing = loss(DataLoss::Nothing, NameLoss::Nothing, seed);
        prop_assert_eq!(&contents(&world.after_power_loss(nothing)), &volatile);
        for loss in PowerLoss::every_mode(seed) {
            let after = world.after_power_loss(loss);
            let found = contents(&after);
            for (_, bytes) in &found {
                let strange = bytes.iter().enumerate().find(|(at, byte)| !was_there(*at, **byte));
                prop_assert_eq!(strange, None, "{:?}", loss);
            }
            // The disk after a power loss is settled, and equal losses leave equal disks.
            prop_assert_eq!(&contents(&after.after_power_loss(PowerLoss::STRICT)), &found);
            prop_assert_eq!(&contents(&world.after_power_loss(loss)), &found);
        }
    }

    #[test]
    fn nothing_is_lost_once_everything_was_synced(
        operations in prop::collection::vec(operation(), 1..25), seed: u64,
    ) {
        let mut world = SimulatedWorld::new(seed);
        for (round, operation) in (1u8..).zip(&operations) {
            apply(&mut world, operation, round);
        }
        for file in 0..3 {
            apply(&mut world, &Operation::Sync { file }, 0);
        }
        apply(&mut world, &Operation::SyncDir, 0);
        let volatile = contents(&world);
        for loss in PowerLoss::every_mode(seed) {
            prop_assert_eq!(&contents(&world.after_power_loss(loss)), &volatile, "{:?}", loss);
        }
    }

    #[test]
    fn a_recording_replays_to_the_same_disks(
        operations in prop::collection::vec(operation(), 1..25), seed: u64,
    ) {
        let mut world = SimulatedWorld::new(seed);
        world.start_recording();
        let live = world.clone();
        let mut noted = Vec::new();
        for (round, operation) in (1u8..).zip(&operations) {
            if matches!(operation, Operation::Reopen) {
                continue;
            }
            apply(&mut world, operation, round);
            noted.push((live.changes_count(), contents(&live)));
        }
        let recording = live.stop_recording().unwrap();
        let mut replay = recording.replay();
        loop {
            for (_, expected) in noted.iter().filter(|(count, _)| *count == replay.done_count()) {
                prop_assert_eq!(&contents(&replay.after_kill()), expected);
            }
            if !replay.step() {
                break;
            }
        }
        for loss in PowerLoss::every_mode(seed) {
            let replayed = contents(&replay.after_power_loss(loss));
            prop_assert_eq!(replayed, contents(&live.after_power_loss(loss)));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_trace(
        operations in prop::collection::vec(operation(), 1..25), seed: u64, failing in 0..40u64,
    ) {
        let run = || {
            let mut world = SimulatedWorld::new(seed);
            world.inject(Fault::new(FaultEffect::Short(700)).on(&[Call::Write]).after(failing).for_ever());
            for (round, operation) in (1u8..).zip(&operations) {
                apply(&mut world, operation, round);
            }
            let loss = PowerLoss::every_mode(seed).last().unwrap();
            (world.trace_hash(), world.env().random.next_u64(), contents(&world.after_power_loss(loss)))
        };
        prop_assert_eq!(run(), run());
    }
}
