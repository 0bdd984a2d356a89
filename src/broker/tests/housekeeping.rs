//! Housekeeping while others work: compaction holds nobody up, and never reaches a log that is gone.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::support::{
    create_with, eventually, open_simulated, partition, produce_request, read_committed, topic_name,
};
use crate::broker::{Broker, BrokerConfig, SyncMode};
use crate::env::simulated::SimulatedWorld;
use crate::env::{Access, Dir, DirEntry, File, Files, Lock, LockError, OpenMode, block_on};
use crate::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use crate::protocol::messages::Acks;
use crate::types::Timestamp;

const PATIENCE: Duration = Duration::from_secs(30);

/// Files that stop whoever creates a compacted segment until the test lets go.
struct GatedFiles {
    files: Arc<dyn Files>,
    entered: Sender<()>,
    release: Receiver<()>,
}

impl Files for GatedFiles {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        if mode == OpenMode::CreateNew && path.to_string_lossy().ends_with(".log.cleaned") {
            let _ = self.entered.send(());
            // The test that forgets to let go fails by itself.
            let _ = self.release.recv_timeout(PATIENCE);
        }
        self.files.open(path, mode)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.files.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.files.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.files.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.files.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.files.remove_dir(path)
    }
    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        self.files.open_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.files.exists(path)
    }
    fn access(&self, path: &Path) -> io::Result<Access> {
        self.files.access(path)
    }
    fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        self.files.modified(path)
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        self.files.lock(path)
    }
}

/// A broker with a compacted topic `t` that has old values of two keys, and the test's ends of the gate.
struct Gated {
    world: SimulatedWorld,
    broker: Broker,
    entered: Receiver<()>,
    release: Sender<()>,
}

fn keyed(key: &str, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(
        Timestamp(1_000),
        Some(key.as_bytes()),
        Some(value.as_bytes()),
    );
    builder.finish(BatchProducer::Plain).freeze()
}

fn put(broker: &Broker, key: &str, value: &str) {
    let request = produce_request(&partition("t", 0), keyed(key, value), Acks::All);
    block_on(broker.produce(request)).unwrap();
}

fn create_compacted(broker: &Broker) {
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "300"),
        ("min.cleanable.dirty.ratio", "0.0"),
    ];
    create_with(broker, "t", 1, &configs);
}

fn gated() -> Gated {
    let world = SimulatedWorld::with_threads(5);
    let (entered_sender, entered) = unbounded();
    let (release, release_receiver) = unbounded();
    let mut env = world.env();
    env.files = Arc::new(GatedFiles {
        files: env.files.clone(),
        entered: entered_sender,
        release: release_receiver,
    });
    let config = BrokerConfig {
        sync_mode: SyncMode::Inline,
        ballast_bytes: 0,
        ..BrokerConfig::default()
    };
    let broker = Broker::open(env, "/data".as_ref(), config).unwrap();
    create_compacted(&broker);
    for round in 0..6 {
        for key in ["a", "b"] {
            put(&broker, key, &format!("{key}{round}"));
        }
    }
    Gated {
        world,
        broker,
        entered,
        release,
    }
}

fn size_bytes(broker: &Broker) -> u64 {
    broker.describe_partitions(&topic_name("t")).unwrap()[0].size_bytes
}

/// Runs `meanwhile` while a compaction stands in its execute phase, then lets that go on to its end.
fn during_compaction(gated: &Gated, meanwhile: impl FnOnce(&Broker) + Send) {
    std::thread::scope(|scope| {
        let housekeeping = scope.spawn(|| gated.broker.housekeep());
        gated.entered.recv_timeout(PATIENCE).unwrap();
        let (done, finished) = unbounded();
        let broker = &gated.broker;
        scope.spawn(move || {
            meanwhile(broker);
            done.send(()).unwrap();
        });
        let finished = finished.recv_timeout(PATIENCE);
        // One for each segment that the compaction writes.
        for _ in 0..64 {
            let _ = gated.release.send(());
        }
        housekeeping.join().unwrap();
        finished.expect("what was done meanwhile was held up by the compaction");
    });
}

#[test]
fn appends_and_reads_go_on_while_a_compaction_is_executed() {
    let gated = gated();
    let before = size_bytes(&gated.broker);
    during_compaction(&gated, |broker| {
        // Enough to roll segments of its own.
        for round in 6..10 {
            put(broker, "a", &format!("a{round}"));
        }
        put(broker, "c", "c0");
        let seen = read_committed(broker, "t");
        assert_eq!(seen.len(), 12 + 5);
        assert_eq!(seen[16], "c0");
    });
    let seen = read_committed(&gated.broker, "t");
    assert!(size_bytes(&gated.broker) < before + 5 * 80);
    assert!(!seen.contains(&"b0".to_owned()), "{seen:?}");
    let latest = |prefix: &str| seen.iter().rfind(|v| v.starts_with(prefix)).cloned();
    assert_eq!(
        (latest("a"), latest("b"), latest("c")),
        (Some("a9".into()), Some("b5".into()), Some("c0".into()))
    );
    gated.broker.close().unwrap();
    drop(gated.broker);
    assert_eq!(read_committed(&open_simulated(&gated.world), "t"), seen);
}

#[test]
fn a_compaction_of_a_topic_that_is_deleted_and_made_anew_leaves_the_new_one_alone() {
    let gated = gated();
    during_compaction(&gated, |broker| {
        broker.delete_topic(&topic_name("t")).unwrap();
        create_compacted(broker);
        put(broker, "a", "new");
    });
    assert_eq!(read_committed(&gated.broker, "t"), ["new"]);
    let left = gated
        .world
        .env()
        .files
        .read_dir("/data/log/t-0".as_ref())
        .unwrap();
    assert!(
        !left.iter().any(|entry| entry.name.contains(".cleaned")),
        "{left:?}"
    );
    gated.broker.close().unwrap();
    drop(gated.broker);
    assert_eq!(read_committed(&open_simulated(&gated.world), "t"), ["new"]);
}

#[test]
fn f26_closing_gives_a_compaction_up_and_nothing_of_it_is_left() {
    let gated = gated();
    let before = read_committed(&gated.broker, "t");
    std::thread::scope(|scope| {
        let housekeeping = scope.spawn(|| gated.broker.housekeep());
        gated.entered.recv_timeout(PATIENCE).unwrap();
        let closing = scope.spawn(|| gated.broker.close());
        eventually("the broker refuses calls", || {
            gated.broker.topics().is_err()
        });
        gated.release.send(()).unwrap();
        // Given up within the first segment: nobody comes to the gate again.
        housekeeping.join().unwrap();
        closing.join().unwrap().unwrap();
        assert!(gated.entered.try_recv().is_err());
    });
    drop(gated.broker);
    let broker = open_simulated(&gated.world);
    assert_eq!(read_committed(&broker, "t"), before);
    broker.housekeep();
    assert!(read_committed(&broker, "t").len() < before.len());
}
