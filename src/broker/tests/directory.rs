//! The data directory: owner, format, foreign content (F17–F21, F23).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::support::{
    Home, create, open_simulated, partition, produce, read_committed, try_open_simulated,
};
use crate::broker::{Broker, BrokerConfig};
use crate::env::simulated::SimulatedWorld;
use crate::env::{Access, Env};
use crate::protocol::{ErrorCode, ErrorKind};

fn refusal(home: &Home) -> String {
    home.try_open().unwrap_err().message
}

/// Everything below a directory, with contents: what must be untouched by a refused open.
fn snapshot(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_new_directory_is_made_for_its_owner_only() {
    let home = Home::new();
    let broker = home.open();
    let id = broker.cluster_id();
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(home.path()), 0o700);
    assert_eq!(mode(home.path().join("log")), 0o700);
    assert_eq!(mode(home.path().join("meta.json")), 0o600);
    assert_eq!(mode(home.path().join("topics.json")), 0o600);
    broker.close().unwrap();
    assert_eq!(home.open().cluster_id(), id);
}

#[test]
fn f17_a_second_broker_is_refused_with_the_owners_process_id() {
    let home = Home::new();
    let broker = home.open();
    let message = refusal(&home);
    assert!(message.contains("in use by process"), "{message}");
    assert!(
        message.contains(&std::process::id().to_string()),
        "{message}"
    );
    drop(broker);
    home.open().close().unwrap();
    home.open();
}

#[test]
fn f17_a_closed_broker_gives_the_directory_up_though_handles_live() {
    let home = Home::new();
    let broker = home.open();
    broker.close().unwrap();
    let second = home.open();
    let error = broker.topics().unwrap_err();
    assert_eq!(error.code, ErrorCode::KafkaStorageError);
    assert_eq!(error.kind(), ErrorKind::Fatal);
    // A second close must not say "clean" for the new owner.
    broker.close().unwrap();
    assert!(second.topics().is_ok());
    assert!(!home.path().join("log/.kafka_cleanshutdown").exists());
}

#[test]
fn f18_a_missing_parent_is_named() {
    let home = Home::new();
    let path = home.dir.path().join("no/such/parent");
    let error = Broker::open(Env::real(), &path, BrokerConfig::default()).unwrap_err();
    assert!(error.message.contains("parent does not exist"), "{error}");
    assert!(!home.dir.path().join("no").exists());
}

#[test]
fn f18_a_file_in_place_of_the_directory_is_refused() {
    let home = Home::new();
    fs::write(home.path(), "mine").unwrap();
    assert!(refusal(&home).contains("not a directory"));
    assert_eq!(fs::read(home.path()).unwrap(), b"mine");
}

#[test]
fn f18_a_directory_that_anybody_may_write_is_refused_untouched() {
    let home = Home::new();
    home.open().close().unwrap();
    let before = snapshot(&home.path());
    for mode in [0o777, 0o1777, 0o702] {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
        let message = refusal(&home);
        assert!(
            message.contains("anybody may write") && message.contains("chmod 700"),
            "{message}"
        );
        assert_eq!(snapshot(&home.path()), before);
    }
    // Readers do no harm: the operator is told, no more.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    home.open().close().unwrap();
}

#[test]
fn f18_a_directory_of_another_user_is_refused_before_the_first_write() {
    let world = SimulatedWorld::new(18);
    let root = std::path::Path::new("/data");
    open_simulated(&world).close().unwrap();
    world.set_access(
        root,
        Access {
            owner: 1234,
            is_ours: false,
            ..Access::OURS_ALONE
        },
    );
    world.start_recording();
    let error = try_open_simulated(&world).unwrap_err();
    assert!(
        error.message.contains("user with id 1234") && error.message.contains("chown"),
        "{error}"
    );
    assert_eq!(world.changes_count(), 0, "something was written");
    world.set_access(root, Access::OURS_ALONE);
    open_simulated(&world);
}

#[test]
fn f19_a_symbolic_link_in_place_of_the_directory_is_not_followed() {
    let home = Home::new();
    let elsewhere = home.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, home.path()).unwrap();
    assert!(refusal(&home).contains("symbolic link"));
    assert!(snapshot(&elsewhere).is_empty());
}

#[test]
fn f19_symbolic_links_inside_the_directory_are_not_followed() {
    let home = Home::new();
    home.open().close().unwrap();
    let target = home.dir.path().join("target");
    for name in ["topics.json", "lock", "log/__transaction_state-0"] {
        let path = home.path().join(name);
        fs::rename(&path, &target).unwrap();
        symlink(&target, &path).unwrap();
        let message = refusal(&home);
        assert!(!message.is_empty(), "{name} was followed");
        fs::remove_file(&path).unwrap();
        fs::rename(&target, &path).unwrap();
    }
    home.open();
}

#[test]
fn f20_foreign_files_and_leftovers_do_no_harm() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    produce(&broker, &partition("lines", 0), &["a"]);
    broker.close().unwrap();
    for name in [
        "notes.txt",
        "meta.json.tmp",
        "topics.json.tmp",
        "log/README",
        "log/stray-7",
    ] {
        fs::write(home.path().join(name), "what is this").unwrap();
    }
    let broker = home.open();
    assert_eq!(read_committed(&broker, "lines"), ["a"]);
    assert_eq!(
        fs::read(home.path().join("notes.txt")).unwrap(),
        b"what is this"
    );
    assert_eq!(
        fs::read(home.path().join("log/README")).unwrap(),
        b"what is this"
    );
}

#[test]
fn f21_a_newer_format_is_refused_untouched() {
    for name in ["meta.json", "topics.json"] {
        let home = Home::new();
        home.open().close().unwrap();
        let path = home.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let before = snapshot(&home.path());
        let error = home.try_open().unwrap_err();
        assert_eq!(error.code, ErrorCode::UnsupportedVersion, "{error}");
        assert!(error.message.contains("newer release"), "{error}");
        if name == "meta.json" {
            assert_eq!(snapshot(&home.path()), before);
        }
    }
}

#[test]
fn f18_a_directory_that_is_not_ours_is_refused_untouched() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    fs::write(home.path().join("thesis.tex"), "years of work").unwrap();
    let message = refusal(&home);
    assert!(
        message.contains("is not empty") && message.contains("thesis.tex"),
        "{message}"
    );
    assert_eq!(snapshot(&home.path()).len(), 1);
}

#[test]
fn f23_a_half_copied_directory_is_refused() {
    for missing in ["meta.json", "topics.json", "log"] {
        let home = Home::new();
        let broker = home.open();
        create(&broker, "lines", 1);
        broker.close().unwrap();
        let path = home.path().join(missing);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let error = home.try_open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{missing}: {error}");
        assert!(
            error.message.contains("copy the whole directory"),
            "{missing}: {error}"
        );
    }
}

#[test]
fn f23_damage_in_meta_and_topics_is_found_at_every_byte() {
    let home = Home::new();
    let broker = home.open();
    create(&broker, "lines", 1);
    broker.close().unwrap();
    for name in ["meta.json", "topics.json"] {
        let path = home.path().join(name);
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x01;
            fs::write(&path, &bad).unwrap();
            match home.try_open() {
                Err(_) => {}
                // A changed space between two words of JSON means nothing.
                Ok(broker) => {
                    assert!(
                        good[position].is_ascii_whitespace(),
                        "{name}: byte {position} was changed unseen: {}",
                        String::from_utf8_lossy(&bad)
                    );
                    broker.close().unwrap();
                }
            }
        }
        fs::write(&path, &good).unwrap();
    }
    home.open();
}

#[test]
fn f23_files_of_another_data_directory_are_refused() {
    let (home, other) = (Home::new(), Home::new());
    for home in [&home, &other] {
        let broker = home.open();
        create(&broker, "lines", 1);
        produce(&broker, &partition("lines", 0), &["a"]);
        broker.close().unwrap();
    }
    let good = fs::read(home.path().join("topics.json")).unwrap();
    fs::copy(
        other.path().join("topics.json"),
        home.path().join("topics.json"),
    )
    .unwrap();
    assert!(refusal(&home).contains("belongs to the data directory"));
    fs::write(home.path().join("topics.json"), good).unwrap();

    let swapped = home.path().join("log/lines-0");
    fs::remove_dir_all(&swapped).unwrap();
    fs::rename(other.path().join("log/lines-0"), &swapped).unwrap();
    let broker = home.open();
    let described = broker
        .describe_partitions(&super::support::topic_name("lines"))
        .unwrap();
    let why = described[0].offline.clone().unwrap();
    assert!(why.contains("belongs to another topic"), "{why}");
}

#[test]
fn an_interrupted_beginning_is_begun_again() {
    let home = Home::new();
    home.open().close().unwrap();
    let donor = Home::new();
    // What stands on disk after each step of `initialise`, meta.json being the last.
    fs::create_dir(donor.path()).unwrap();
    fs::write(donor.path().join("lock"), "").unwrap();
    donor.open().close().unwrap();
    let donor = Home::new();
    fs::create_dir(donor.path()).unwrap();
    fs::create_dir(donor.path().join("log")).unwrap();
    fs::write(donor.path().join("meta.json.tmp"), "{").unwrap();
    donor.open().close().unwrap();
}
