//! The committed records of topics, and those of two runs side by side.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;

use anyhow::{Context, bail};

use super::checks::with_directory;
use crate::cli::output;
use crate::cli::session::Session;
use crate::client::consumer::PartitionReader;
use crate::env::{Env, OpenMode};
use crate::protocol::batch::Record;
use crate::protocol::messages::OffsetSpec;
use crate::types::{Isolation, Offset, TopicName, TopicPartition};

/// A file is copied in pieces of so many bytes.
const PIECE_BYTES: usize = 1 << 20;
/// How many keys that differ are named.
const NAMED_MAX: usize = 5;

/// Calls `visit` with each committed record of a partition from an offset on.
pub(super) fn for_each_record(
    session: &Session,
    place: &TopicPartition,
    from: Offset,
    visit: &mut dyn FnMut(&Record<'_>),
) -> anyhow::Result<()> {
    let isolation = Isolation::ReadCommitted;
    let end = session.wait(
        session
            .admin()
            .list_offset(place, OffsetSpec::Latest, isolation),
    )?;
    let end = end.map_or(Offset::ZERO, |end| end.offset);
    let mut reader = PartitionReader::new(session.transport(), place.clone(), from, isolation);
    while reader.position() < end {
        let before = reader.position();
        for batch in reader.fetch_now()? {
            for record in batch?.iter() {
                let record = record?;
                if record.offset >= from {
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

/// Compares the committed records of a topic in two data directories: those of a key in order, those without a key in any.
pub(super) fn compare(
    env: &Env,
    topic: &TopicName,
    data: &Path,
    reference: &Path,
) -> anyhow::Result<Comparison> {
    let killed = contents_of(env, topic, data)?;
    let whole = contents_of(env, topic, reference)?;
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

fn contents_of(env: &Env, topic: &TopicName, data: &Path) -> anyhow::Result<ByKey> {
    with_directory(env, data, |session| {
        let mut contents = ByKey::new();
        let described = session.wait(session.admin().topic(topic));
        let described = described.with_context(|| {
            format!(
                "--compare {topic}: the job has no such topic in {}",
                data.display()
            )
        })?;
        for index in 0..described.partitions_count {
            let place = TopicPartition::new(topic.clone(), index);
            for_each_record(session, &place, Offset::ZERO, &mut |record| {
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
