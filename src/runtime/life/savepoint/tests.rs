//! The bytes of a savepoint's manifest, and what troubles leave of a savepoint that is being made.

use super::*;
use crate::env::simulated::{Call, Fault, FaultEffect, PowerLoss, SimulatedWorld};

/// The bytes stand: what an older release wrote is read, and the other way round.
#[test]
fn a_manifest_has_these_bytes() {
    let mut manifest = Manifest {
        job: "job".to_owned(),
        taken_at: 5,
        state_partitions: 4,
        topology: "source in".to_owned(),
        sources: vec!["in".to_owned()],
        topics: vec![SavedTopic {
            topic: "in".to_owned(),
            id: Some("AAAAAAAAAAAAAAAAAAAAAQ".to_owned()),
            partitions: vec![SavedPosition {
                partition: 0,
                offset: Offset(7),
                metadata: String::new(),
            }],
        }],
        splits: vec![SavedSplit {
            source: "lines".to_owned(),
            split: "/in".to_owned(),
            offset: Offset(9),
            fingerprint: to_hex(&[1, 255]),
            watermark: Some(-2),
        }],
        marks: vec![SavedMark {
            sink: "out".to_owned(),
            part: "0".to_owned(),
            mark: to_hex(&[16]),
        }],
        between: vec![],
        files: vec![SavedFile {
            path: "meta.json".to_owned(),
            length_bytes: 3,
            crc32c: "00000001".to_owned(),
        }],
    };
    let bytes = serde_json::to_string(&manifest).unwrap();
    assert_eq!(
        bytes,
        concat!(
            r#"{"job":"job","taken_at":5,"state_partitions":4,"topology":"source in","sources":["in"],"topics":[{"topic":"in","id":"AAAAAAAAAAAAAAAAAAAAAQ","#,
            r#""partitions":[{"partition":0,"offset":7,"metadata":""}]}],"splits":[{"source":"lines","split":"/in","offset":9,"#,
            r#""fingerprint":"01ff","watermark":-2}],"marks":[{"sink":"out","part":"0","mark":"10"}],"#,
            r#""files":[{"path":"meta.json","length_bytes":3,"crc32c":"00000001"}]}"#
        )
    );
    assert_eq!(serde_json::from_str::<Manifest>(&bytes).unwrap(), manifest);
    manifest.between.push(between::SavedBetween {
        topic: "job-counts-repartition".to_owned(),
        schema: "{}".to_owned(),
        partitions: vec![between::SavedUnderWay {
            partition: 1,
            end: Offset(9),
            metadata: String::new(),
            records: 2,
        }],
    });
    let bytes = serde_json::to_string(&manifest).unwrap();
    let between = concat!(
        r#""between":[{"topic":"job-counts-repartition","schema":"{}","#,
        r#""partitions":[{"partition":1,"end":9,"metadata":"","records":2}]}],"files""#
    );
    assert!(bytes.contains(between), "{bytes}");
    assert_eq!(serde_json::from_str::<Manifest>(&bytes).unwrap(), manifest);
    assert_eq!(from_hex("01ff"), Some(vec![1, 255]));
    assert_eq!(from_hex("0x"), None);
}

const COPY: &str = "/state/savepoint.tmp";
const PLACE: &str = "/backup/monday";

/// A machine with the copy of a state, which the disk has, and a folder for savepoints.
fn machine(crosses_devices: bool) -> SimulatedWorld {
    let world = SimulatedWorld::new(5);
    let files = world.env().files;
    for folder in ["/state", "/backup"] {
        files.create_dir(Path::new(folder)).unwrap();
    }
    files.sync_dir(Path::new("/")).unwrap();
    make_copy(&world.env());
    if crosses_devices {
        let fault = Fault::new(FaultEffect::CrossesDevices).on(&[Call::Rename]);
        world.inject(fault.in_path("savepoint.tmp").for_ever());
    }
    world
}

fn make_copy(env: &Env) {
    let (files, copy) = (&env.files, Path::new(COPY));
    let _ = taking::remove_tree(&**files, copy);
    files.create_dir(copy).unwrap();
    files.create_dir(&copy.join("rocksdb")).unwrap();
    for (name, length) in [("meta.json", 40), ("rocksdb/000007.sst", 9_000)] {
        let file = files.open(&copy.join(name), OpenMode::CreateNew).unwrap();
        file.write_all_at(&vec![7; length], 0).unwrap();
    }
}

fn make(env: &Env) -> Result<Savepoint, JobError> {
    let manifest = Manifest {
        job: "job".to_owned(),
        taken_at: 5,
        state_partitions: 4,
        topology: String::new(),
        sources: vec![],
        topics: vec![],
        splits: vec![],
        marks: vec![],
        between: vec![],
        files: vec![],
    };
    let (copy, place) = (Path::new(COPY), Path::new(PLACE));
    finish(env, copy, place, manifest, Duration::ZERO)
}

/// Whether there is a savepoint; then it is whole.
fn is_there(env: &Env) -> bool {
    match Savepoint::open_in(env, Path::new(PLACE)) {
        Ok(savepoint) => {
            savepoint.verify_in(env).unwrap();
            assert_eq!(savepoint.size_bytes(), 9_040);
            true
        }
        Err(_) => false,
    }
}

#[test]
fn f10_a_savepoint_is_whole_or_none_after_a_power_loss_at_any_moment() {
    for crosses_devices in [false, true] {
        let mut lost = 0;
        for calls_count in 0.. {
            let world = machine(crosses_devices);
            world.power_off_after(calls_count);
            let made = make(&world.env()).is_ok();
            for loss in PowerLoss::every_mode(calls_count) {
                let after = world.after_power_loss(loss);
                let found = is_there(&after.env());
                assert!(found || !made, "{calls_count} calls, {loss:?}");
                lost += usize::from(!found);
                // The rest of one that was not finished is in nobody's way.
                if !found && !after.env().files.exists(Path::new(PLACE)).unwrap() {
                    make_copy(&after.env());
                    make(&after.env()).unwrap();
                }
            }
            if made {
                break;
            }
        }
        assert!(lost > 50, "{lost}");
    }
}

#[test]
fn f13_a_full_disk_leaves_nothing_of_a_savepoint_that_was_being_made() {
    for crosses_devices in [false, true] {
        for calls_count in 0.. {
            let world = machine(crosses_devices);
            let changing = [
                Call::Open,
                Call::CreateDir,
                Call::Rename,
                Call::Write,
                Call::SyncData,
            ];
            let full = Fault::new(FaultEffect::StorageFull).on(&changing);
            world.inject(full.after(calls_count));
            let made = make(&world.env());
            let Err(error) = made else {
                world.clear_faults();
                assert!(is_there(&world.env()) && calls_count > 10, "{calls_count}");
                break;
            };
            assert!(error.to_string().contains("the job goes on"), "{error}");
            world.clear_faults();
            let env = world.env();
            for path in [PLACE, "/backup/monday.unfinished", COPY] {
                let is_left = env.files.exists(Path::new(path)).unwrap();
                assert!(!is_left, "{path} after {calls_count} calls");
            }
            make_copy(&env);
            make(&env).unwrap();
            assert!(is_there(&env));
        }
    }
}

#[test]
fn what_else_is_at_the_place_of_a_savepoint_is_not_touched() {
    let world = machine(false);
    let (env, making) = (world.env(), Path::new("/backup/monday.unfinished"));
    env.files.create_dir(making).unwrap();
    let other = making.join("diary");
    env.files.open(&other, OpenMode::CreateNew).unwrap();
    let refused = make(&env).unwrap_err().to_string();
    assert!(refused.contains("diary"), "{refused}");
    assert!(env.files.exists(&other).unwrap());
    env.files.remove_file(&other).unwrap();
    make_copy(&env);
    env.files.create_dir(Path::new(PLACE)).unwrap();
    let refused = make(&env).unwrap_err().to_string();
    assert!(refused.contains("exists by now"), "{refused}");
    assert!(env.files.exists(Path::new(PLACE)).unwrap());
}
