//! The committed records of topics, and those of two runs side by side.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::scene::Scene;
use crate::cli::output;
use crate::cli::session::Session;
use crate::client::consumer::PartitionReader;
use crate::env::{Env, OpenMode};
use crate::protocol::batch::Record;
use crate::protocol::messages::OffsetSpec;
use crate::types::{Isolation, Offset, TopicName, TopicPartition};

/// A file is copied in pieces of so many bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Most keys that differ and are named.
const NAMED_MAX: usize = 5;
/// Longest wait for an answer with records that are there.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Calls `visit` with each committed record of a partition from an offset on, up to `end` or to the last one.
pub(super) fn for_each_record(
    session: &Session,
    place: &TopicPartition,
    from: Offset,
    end: Option<Offset>,
    visit: &mut dyn FnMut(&Record<'_>),
) -> anyhow::Result<()> {
    let isolation = Isolation::ReadCommitted;
    let end = match end {
        Some(end) => end,
        None => last_stable_offset(session, place)?,
    };
    let mut reader = PartitionReader::new(session.transport(), place.clone(), from, isolation);
    while reader.position() < end {
        let before = reader.position();
        for batch in session.wait(reader.fetch(ANSWER_MAX))? {
            for record in batch?.iter() {
                let record = record?;
                if record.offset >= from && record.offset < end {
                    visit(&record);
                }
            }
        }
        if reader.position() <= before {
            bail!("{place} cannot be read from {before} to its end at {end}");
        }
    }
    Ok(())
}

/// One past the last record that readers of committed ones see.
pub(super) fn last_stable_offset(
    session: &Session,
    place: &TopicPartition,
) -> anyhow::Result<Offset> {
    let (admin, isolation) = (session.admin(), Isolation::ReadCommitted);
    let end = admin.list_offset(place, OffsetSpec::Latest, isolation);
    Ok(session.wait(end)?.map_or(Offset::ZERO, |end| end.offset))
}

/// Ends of topics at a moment; one that was not there is at its beginning.
pub(super) type Ends = HashMap<TopicPartition, Offset>;

/// Reads how far topics are written.
pub(super) fn ends(session: &Session, topics: &[TopicName]) -> anyhow::Result<Ends> {
    let mut ends = Ends::new();
    for topic in session.wait(session.admin().topics())? {
        if !topics.contains(&topic.name) {
            continue;
        }
        for index in 0..topic.partitions_count {
            let place = TopicPartition::new(topic.name.clone(), index);
            let end = last_stable_offset(session, &place)?;
            ends.insert(place, end);
        }
    }
    Ok(ends)
}

/// The records of a run: all of its log, or those between two moments.
pub(super) struct Run<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) from: Ends,
    pub(super) to: Option<Ends>,
}

impl<'a> Run<'a> {
    /// A run that has a log of its own.
    pub(super) fn alone(scene: &'a Scene<'a>) -> Self {
        Self {
            scene,
            from: Ends::new(),
            to: None,
        }
    }
}

/// The records of one key: how many, and a number over all of them in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Contents {
    count: u64,
    hash: u64,
}

type ByKey = HashMap<Option<Vec<u8>>, Contents>;

/// A topic of two runs.
pub(super) struct Comparison {
    pub(super) topic: TopicName,
    pub(super) records: u64,
    pub(super) keys: u64,
    /// The keys with other records, with how many they have, and how many after a run without kills.
    pub(super) differing: Vec<(Option<Vec<u8>>, u64, u64)>,
}

/// Compares the committed records of a topic in two runs: those of a key in order, those without a key in any.
pub(super) fn compare(
    topic: &TopicName,
    killed: &Run<'_>,
    whole: &Run<'_>,
) -> anyhow::Result<Comparison> {
    let killed = contents_of(topic, killed)?;
    let whole = contents_of(topic, whole)?;
    let keys = killed
        .keys()
        .chain(whole.keys().filter(|key| !killed.contains_key(*key)));
    let of = |contents: &ByKey, key| contents.get(key).copied().unwrap_or_default();
    let mut differing: Vec<_> = keys
        .filter(|key| killed.get(*key) != whole.get(*key))
        .map(|key| (key.clone(), of(&killed, key).count, of(&whole, key).count))
        .collect();
    differing.sort();
    Ok(Comparison {
        topic: topic.clone(),
        records: killed.values().map(|contents| contents.count).sum(),
        keys: killed.len() as u64,
        differing,
    })
}

fn contents_of(topic: &TopicName, run: &Run<'_>) -> anyhow::Result<ByKey> {
    run.scene.with_session(|session| {
        let mut contents = ByKey::new();
        let described = session.wait(session.admin().topic(topic));
        let described = described.with_context(|| {
            let (_, log) = run.scene.option();
            format!(
                "--compare {topic}: the job has no such topic in {}",
                log.display()
            )
        })?;
        for index in 0..described.partitions_count {
            let place = TopicPartition::new(topic.clone(), index);
            let from = run.from.get(&place).copied().unwrap_or(Offset::ZERO);
            let to = run.to.as_ref();
            let to = to.map(|to| to.get(&place).copied().unwrap_or(Offset::ZERO));
            for_each_record(session, &place, from, to, &mut |record| {
                let of_key = contents.entry(record.key.map(<[u8]>::to_vec)).or_default();
                of_key.add(record);
            })?;
        }
        Ok(contents)
    })
}

impl Contents {
    fn add(&mut self, record: &Record<'_>) {
        let mut hasher = DefaultHasher::new();
        record.value.hash(&mut hasher);
        self.count += 1;
        match record.key {
            Some(_) => {
                self.hash.hash(&mut hasher);
                self.hash = hasher.finish();
            }
            None => self.hash = self.hash.wrapping_add(hasher.finish()),
        }
    }
}

impl Comparison {
    pub(super) fn problem(&self) -> Option<String> {
        let mut named = Vec::new();
        for (key, records, whole) in self.differing.iter().take(NAMED_MAX) {
            let key = match key {
                Some(key) => format!("{:?}", String::from_utf8_lossy(key)),
                None => "no key".to_owned(),
            };
            let how = match records == whole {
                true => format!("{records} records, others or in another order"),
                false => format!("{records} records instead of {whole}"),
            };
            named.push(format!("{key} ({how})"));
        }
        let count = output::grouped(self.differing.len() as u64);
        (!named.is_empty()).then(|| {
            format!(
                "{} differs from a run without kills in {count} keys: {}",
                self.topic,
                named.join(", ")
            )
        })
    }
}

/// Copies a directory with all that is in it.
pub(super) fn copy_tree(env: &Env, from: &Path, to: &Path) -> anyhow::Result<()> {
    env.files.create_dir(to)?;
    for entry in env.files.read_dir(from)? {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        match entry.is_dir {
            true => copy_tree(env, &from, &to)?,
            false => copy_file(env, &from, &to)
                .with_context(|| format!("cannot copy {}", from.display()))?,
        }
    }
    Ok(())
}

fn copy_file(env: &Env, from: &Path, to: &Path) -> anyhow::Result<()> {
    let source = env.files.open(from, OpenMode::Read)?;
    let copy = env.files.open(to, OpenMode::CreateNew)?;
    let length_bytes = source.length_bytes()?;
    let mut position = 0;
    let mut piece = vec![0; PIECE_BYTES];
    while position < length_bytes {
        let rest = usize::try_from(length_bytes - position).unwrap_or(usize::MAX);
        let piece = &mut piece[..rest.min(PIECE_BYTES)];
        source.read_exact_at(piece, position)?;
        copy.write_all_at(piece, position)?;
        position += piece.len() as u64;
    }
    Ok(())
}
