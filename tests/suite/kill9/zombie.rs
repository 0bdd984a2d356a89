//! A zombie: a holder of a transactional id that comes back after another has taken it over, in one process,
//! because the directory's lock admits no second one.

use std::time::Duration;

use onceflow::client::ErrorKind;
use onceflow::client::consumer::PartitionReader;
use onceflow::client::{CommitOutcome, TransactionalWriter, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::internals::protocol::messages::{CommittedOffset, GroupMember};
use onceflow::prelude::Log;
use onceflow::types::{GroupId, Isolation, Offset, TopicName, TopicPartition, TransactionalId};

const TIMEOUT: Duration = Duration::from_secs(60);

struct World {
    log: Log,
    _folder: tempfile::TempDir,
    partition: TopicPartition,
    group: GroupId,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::embedded(folder.path().join("data")).unwrap();
        let topic = TopicName::new("outputs").unwrap();
        wait(log.admin().create_topic(&topic, 1)).unwrap();
        Self {
            log,
            _folder: folder,
            partition: TopicPartition::new(topic, 0),
            group: GroupId::new("job").unwrap(),
        }
    }

    fn writer(&self) -> TransactionalWriter {
        let id = TransactionalId::new("job-0").unwrap();
        wait(TransactionalWriter::init(self.log.transport(), id, TIMEOUT)).unwrap()
    }

    fn append(&self, writer: &TransactionalWriter, value: &str) -> Result<Offset, ErrorKind> {
        let mut batch = BatchBuilder::new(Compression::None, None);
        batch.push(self.log.env().clock.wall(), None, Some(value.as_bytes()));
        let written = writer.partition(&self.partition).append(&mut batch);
        written.map_err(|error| error.kind())
    }

    fn send_offset(&self, writer: &TransactionalWriter, offset: i64) -> Result<(), ErrorKind> {
        let committed = CommittedOffset {
            offset: Offset(offset),
            leader_epoch: -1,
            metadata: String::new(),
        };
        let offsets = vec![(self.partition.clone(), committed)];
        let sent = wait(writer.send_offsets(self.group.clone(), GroupMember::default(), offsets));
        sent.map_err(|error| error.kind())
    }

    /// Reads until a reader sees anything: a commit shows a moment after it is confirmed.
    fn committed_values(&self) -> Vec<String> {
        let deadline = std::time::Instant::now() + TIMEOUT;
        loop {
            let values = self.visible();
            if !values.is_empty() || std::time::Instant::now() > deadline {
                return values;
            }
            std::thread::yield_now();
        }
    }

    fn visible(&self) -> Vec<String> {
        let transport = self.log.transport();
        let place = self.partition.clone();
        let mut reader =
            PartitionReader::new(transport, place, Offset::ZERO, Isolation::ReadCommitted);
        let mut seen = Vec::new();
        for batch in reader.fetch_now().unwrap() {
            for record in batch.unwrap().iter() {
                let value = record.unwrap().value.unwrap_or_default().to_vec();
                seen.push(String::from_utf8(value).unwrap());
            }
        }
        seen
    }

    fn committed(&self) -> Option<i64> {
        let positions = wait(self.log.admin().committed(&self.group)).unwrap();
        positions.into_iter().find_map(|(_, at)| Some(at?.offset.0))
    }
}

#[test]
fn c11_c12_nothing_that_a_zombie_does_becomes_visible() {
    let world = World::new();
    let zombie = world.writer();
    world.append(&zombie, "before").unwrap();
    world.send_offset(&zombie, 7).unwrap();

    let owner = world.writer();
    assert_eq!(world.append(&zombie, "data"), Err(ErrorKind::Fenced));
    assert_eq!(world.send_offset(&zombie, 8), Err(ErrorKind::Fenced));
    let outcome = wait(zombie.commit()).map_err(|error| error.kind());
    assert_eq!(outcome, Err(ErrorKind::Fenced));
    assert_eq!((world.visible(), world.committed()), (vec![], None));

    world.append(&owner, "owner").unwrap();
    world.send_offset(&owner, 1).unwrap();
    assert_eq!(wait(owner.commit()).unwrap(), CommitOutcome::Committed);
    assert_eq!(
        (world.committed_values(), world.committed()),
        (vec!["owner".to_owned()], Some(1))
    );
}

/// Each call alone, as the zombie's first: fencing must not hang on an earlier refusal.
#[test]
fn c12_a_zombie_is_refused_at_its_first_call_whichever_it_is() {
    for call in 0..3 {
        let world = World::new();
        let zombie = world.writer();
        world.append(&zombie, "before").unwrap();
        let _owner = world.writer();
        let refused = match call {
            0 => world.append(&zombie, "data").map(drop),
            1 => world.send_offset(&zombie, 8),
            _ => wait(zombie.commit())
                .map(drop)
                .map_err(|error| error.kind()),
        };
        assert_eq!(refused, Err(ErrorKind::Fenced), "call {call}");
        assert_eq!((world.visible(), world.committed()), (vec![], None));
    }
}
