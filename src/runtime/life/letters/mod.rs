//! Dead and late letters of a job: which there are, and how they are given back to it.
//!
//! A letter that is to be replayed is written into a topic that its source reads beside its own input (`task/replay.rs`), in a
//! transaction of the id `<job>-replay`. So it is asked for once, whoever is killed: who asks next takes the id over, which ends what an
//! earlier one left open, and then sees what was asked for. And it enters once, because its position there is committed
//! with the cycle that it is part of, like any other. A letter of a topic between processes goes back into that topic (`way.rs`).

mod letter;
mod newest;
mod of_a_job;
mod way;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

pub use self::letter::{AskedLetters, Letter, LetterChoice, LetterKind, LetterState, LetterTime};
use super::log_handle::Log;
use crate::client::consumer::PartitionReader;
use crate::client::{Admin, CommitOutcome, TransactionalWriter, Transport, wait};
use crate::env::failpoint;
use crate::env::progress::Unit;
use crate::protocol::batch::{BatchBuilder, Compression, HeaderList, Record};
use crate::protocol::messages::{OffsetFetchRequest, OffsetSpec};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::letter::{JOB, LETTER, REPLAY_TIME, TIMESTAMP, is_of_a_letter};
use crate::runtime::task::replay::{late_topic, replay_topic};
use crate::runtime::topics::positions::positions_topic;
use crate::types::{
    GroupId, Isolation, Offset, Timestamp, TopicName, TopicPartition, TransactionalId,
};
use way::{BETWEEN, REPLAYS, Way, is_note};

/// A replay's transaction is aborted if it takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A batch is handed over at this size.
const BATCH_BYTES: usize = 256 << 10;
/// Jobs of the log that are named where there is none of a name.
const JOBS_SHOWN_MAX: usize = 10;

/// The letters of a job: those that it wrote to its dead-letter topic, and late records that it can take back
/// ([`Job::replayed`](crate::runtime::Job::replayed)). The job may run or not; what is asked for while it does not waits for its next run.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// # let log = onceflow::prelude::Log::embedded(folder.path().join("data"))?;
/// use onceflow::runtime::{LetterChoice, LetterTime, Letters};
///
/// let Ok(letters) = Letters::of(&log, "parse") else {
///     return Ok(()); // The job has never run here.
/// };
/// letters.visit("dead", &mut |letter| println!("{}: {}", letter.offset, letter.reason))?;
/// // The cause is mended: once more, please.
/// let asked = letters.replay("dead", &LetterChoice::all().reason("invalid digit"), LetterTime::Own)?;
/// println!("{} letters are on their way", asked.count);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Letters {
    transport: Arc<dyn Transport>,
    job: String,
    /// The topics through which the job takes letters back, or in which it is noted that it did.
    replays: BTreeSet<TopicName>,
    /// The topics between its processes.
    repartitions: BTreeSet<TopicName>,
}

impl Letters {
    /// Those of the job `job`.
    ///
    /// # Errors
    /// If there is no such job on the log, or the log does not answer.
    pub fn of(log: &Log, job: &str) -> Result<Self, JobError> {
        Self::on(log.transport(), job)
    }

    pub(crate) fn on(transport: Arc<dyn Transport>, job: &str) -> Result<Self, JobError> {
        let topics = wait(Admin::new(Arc::clone(&transport)).topics())?;
        let names: BTreeSet<TopicName> = topics.into_iter().map(|topic| topic.name).collect();
        if !positions_topic(job).is_ok_and(|topic| names.contains(&topic)) {
            return Err(refused(job, no_such_job(&names)));
        }
        let prefix = format!("{job}-");
        let is_replay = |name: &&TopicName| {
            let rest = name.as_str().strip_prefix(&prefix);
            rest.is_some_and(|rest| REPLAYS.iter().any(|end| rest.ends_with(end)))
        };
        let is_between = |name: &&TopicName| {
            let rest = name.as_str().strip_prefix(&prefix);
            rest.is_some_and(|rest| rest.ends_with(BETWEEN))
        };
        Ok(Self {
            transport,
            job: job.to_owned(),
            replays: names.iter().filter(is_replay).cloned().collect(),
            repartitions: names.iter().filter(is_between).cloned().collect(),
        })
    }

    /// The topics that have letters of the job. Looks into the first records of every topic of the log.
    ///
    /// # Errors
    /// If the log does not answer.
    pub fn topics(&self) -> Result<Vec<TopicName>, JobError> {
        let mut found = Vec::new();
        for topic in wait(Admin::new(Arc::clone(&self.transport)).topics())? {
            let name = topic.name;
            if self.replays.contains(&name) || name.as_str().starts_with("__") {
                continue;
            }
            let is_of_late = self.is_of_late(&name)?;
            for partition in 0..topic.partitions_count {
                let place = TopicPartition::new(name.clone(), partition);
                let mut has_one = false;
                self.read_first(&place, &mut |record| {
                    let letter = Letter::of(partition, record, is_of_late);
                    has_one |= letter.is_some_and(|letter| !self.is_of_another(&letter));
                })?;
                if has_one {
                    found.push(name);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Whether the job takes back what is in this topic as late.
    fn is_of_late(&self, topic: &TopicName) -> Result<bool, JobError> {
        Ok(self
            .replays
            .contains(&late_topic(&self.job, topic.as_str())?))
    }

    fn is_of_another(&self, letter: &Letter) -> bool {
        let job = letter.job.as_ref();
        job.is_some_and(|job| *job != self.job) && letter.kind == LetterKind::Dead
    }

    /// Shows each letter of a topic, also those of other jobs, in the order of its partitions and offsets.
    ///
    /// # Errors
    /// If there is no such topic, or it cannot be read.
    pub fn visit(&self, topic: &str, visit: &mut dyn FnMut(&Letter)) -> Result<(), JobError> {
        self.try_visit(topic, &mut |letter| {
            visit(letter);
            Ok(())
        })
    }

    fn try_visit(
        &self,
        topic: &str,
        visit: &mut dyn FnMut(&Letter) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        let partitions = self.partitions_of(topic)?;
        let is_of_late = self.is_of_late(&TopicName::new(topic)?)?;
        let asked = self.asked_for(topic)?;
        for place in partitions {
            let partition = place.partition;
            self.read_all(&place, &mut |record| {
                let Some(mut letter) = Letter::of(partition, record, is_of_late) else {
                    return Ok(());
                };
                if let Some(state) = asked.get(&(partition, record.offset)) {
                    letter.state = *state;
                }
                visit(&letter)
            })?;
        }
        Ok(())
    }

    /// The partitions of a topic of letters.
    fn partitions_of(&self, topic: &str) -> Result<Vec<TopicPartition>, JobError> {
        let name = TopicName::new(topic)?;
        let Some(found) = wait(self.transport.topic(&name))? else {
            let why = format!(
                "there is no topic {topic:?}: `onceflow letters list --job {}` says which topics have some",
                self.job
            );
            return Err(refused(&self.job, why));
        };
        let partitions = 0..found.partitions_count;
        Ok(partitions
            .map(|partition| TopicPartition::new(name.clone(), partition))
            .collect())
    }

    /// Which letters of a topic were asked for.
    fn asked_for(&self, topic: &str) -> Result<HashMap<(i32, Offset), LetterState>, JobError> {
        let places: Vec<TopicPartition> = self
            .replays
            .iter()
            .map(|name| TopicPartition::new(name.clone(), 0))
            .collect();
        let request = OffsetFetchRequest {
            group: GroupId::new(&self.job)?,
            partitions: Some(places.clone()),
            require_stable: false,
        };
        let committed: BTreeMap<TopicPartition, Offset> =
            wait(self.transport.offset_fetch(request))?
                .into_iter()
                .filter_map(|(place, committed)| Some((place, committed?.offset)))
                .collect();
        let mut asked = HashMap::new();
        for place in &places {
            let taken_below = committed.get(place).copied().unwrap_or(Offset::ZERO);
            self.read_all(place, &mut |record| {
                if let Some((of, partition, offset)) = letter_of(record)
                    && of == topic
                {
                    // What went into the input of a step has left the hands of whoever asked.
                    let is_in_input = is_note(place.topic.as_str());
                    let state = match is_in_input || record.offset < taken_below {
                        true => LetterState::Replayed,
                        false => LetterState::Asked,
                    };
                    asked.insert((partition, offset), state);
                }
                Ok(())
            })?;
        }
        Ok(asked)
    }

    fn read_first(
        &self,
        place: &TopicPartition,
        visit: &mut dyn FnMut(&Record<'_>),
    ) -> Result<(), JobError> {
        let Some((first, end)) = self.bounds(place)? else {
            return Ok(());
        };
        let mut reader = self.reader(place, first);
        while reader.position() < end {
            if let Some(batch) = reader.fetch_now()?.next() {
                let batch = batch?;
                let record = batch.iter().next().transpose()?;
                record.iter().for_each(visit);
                break;
            }
        }
        Ok(())
    }

    fn read_all(
        &self,
        place: &TopicPartition,
        visit: &mut dyn FnMut(&Record<'_>) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        match self.bounds(place)? {
            Some((first, end)) => self.read(place, first, end, visit),
            None => Ok(()),
        }
    }

    /// Shows the records of a part of a partition, and those behind it that are read with the last one.
    fn read(
        &self,
        place: &TopicPartition,
        from: Offset,
        end: Offset,
        visit: &mut dyn FnMut(&Record<'_>) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        let mut reader = self.reader(place, from);
        let (env, total) = (self.transport.env(), u64::try_from(end.since(from)).ok());
        let mut told = env.progress(format!("reading {place}"), Unit::Things("offsets"), total);
        while reader.position() < end {
            told.at(u64::try_from(reader.position().since(from)).unwrap_or(0));
            for batch in reader.fetch_now()? {
                let batch = batch?;
                for record in batch.iter() {
                    visit(&record?)?;
                }
            }
        }
        Ok(())
    }

    /// A reader of what is committed in a partition.
    fn reader(&self, place: &TopicPartition, from: Offset) -> PartitionReader {
        let transport = Arc::clone(&self.transport);
        PartitionReader::new(transport, place.clone(), from, Isolation::ReadCommitted)
    }

    /// The first offset of a partition, and the end of what is committed.
    fn bounds(&self, place: &TopicPartition) -> Result<Option<(Offset, Offset)>, JobError> {
        let list = |spec| {
            wait(
                self.transport
                    .list_offset(place, spec, Isolation::ReadCommitted),
            )
        };
        let (first, end) = (list(OffsetSpec::Earliest)?, list(OffsetSpec::Latest)?);
        Ok(first
            .zip(end)
            .map(|(first, end)| (first.offset, end.offset)))
    }

    /// Asks the job for letters once more: each of them enters it exactly once, where its source or its late record did, and is committed
    /// with the cycle that it is part of. One that fails again becomes a dead letter again, with one more in its header
    /// `onceflow.attempts`, and is not tried again by itself. All of them are asked for, or none is. Blocks until that is durable.
    ///
    /// # Errors
    /// If none is chosen that was not asked for before; if one is chosen that the job cannot take back; if somebody else
    /// replays letters of the job at this moment; if the log fails. Nothing is asked for then.
    pub fn replay(
        &self,
        topic: &str,
        choice: &LetterChoice,
        time: LetterTime,
    ) -> Result<AskedLetters, JobError> {
        let id = TransactionalId::new(&format!("{}-replay", self.job))?;
        // Ends what an earlier one left open: from here on it is known what was asked for.
        let writer = wait(TransactionalWriter::init(
            Arc::clone(&self.transport),
            id,
            TIMEOUT,
        ))?;
        let mut known = self.clone();
        known.make_notes(topic, choice)?;
        let mut asking = Asking {
            letters: &known,
            topic,
            time,
            writer: &writer,
            builders: BTreeMap::new(),
            headers: HeaderList::default(),
            asked: AskedLetters::default(),
        };
        let result = known
            .try_visit(topic, &mut |letter| match choice.has(letter) {
                true => asking.take(letter),
                false => Ok(()),
            })
            .and_then(|()| asking.finish());
        if result.is_err() {
            // What cannot be aborted now times out; nobody sees it.
            drop(wait(writer.abort()));
        }
        result
    }

    /// Finds a letter's way back.
    fn way_of(&self, topic: &str, letter: &Letter) -> Result<Way, JobError> {
        if let Some(step) = self.step_of(letter) {
            return Ok(Way::Step(step));
        }
        let way = match (letter.kind, &letter.replay, &letter.source) {
            (LetterKind::Late | LetterKind::Failed, ..) => late_topic(&self.job, topic)?,
            (LetterKind::Dead, Some(way), _) => TopicName::new(way)?,
            // One of an earlier release: a partition is named after its topic.
            (LetterKind::Dead, None, Some(source)) => {
                let name = source.rsplit_once('-').map_or(source.as_str(), |it| it.0);
                replay_topic(&self.job, name)?
            }
            (LetterKind::Dead, None, None) => return Err(self.no_way(topic, letter)),
        };
        match self.replays.contains(&way) {
            true => Ok(Way::Source(way)),
            false => Err(self.no_way(topic, letter)),
        }
    }

    fn no_way(&self, topic: &str, letter: &Letter) -> JobError {
        let source = letter.source.as_deref().unwrap_or("an unknown source");
        refused(
            &self.job,
            format!(
                "the letter {topic}-{}@{} is of {source}, which takes none back. Run the job once with `PoisonPolicy::DeadLetter`, so that it has \
                 a topic for them; sources of your own without `Source::letters`, and broadcast tables, take none: choose without it (by \
                 source, or offsets)",
                letter.partition, letter.offset
            ),
        )
    }
}

/// Says that a job is not among those of the log.
fn no_such_job(topics: &BTreeSet<TopicName>) -> String {
    let jobs = topics
        .iter()
        .filter_map(|it| it.as_str().strip_suffix("-positions"));
    let jobs: Vec<&str> = jobs.take(JOBS_SHOWN_MAX).collect();
    match jobs.is_empty() {
        true => "no job of this name has run on this log, nor has any other: is it the right log?"
            .to_owned(),
        false => format!(
            "no job of this name has run on this log, but these have: {}. Correct the name, or the log",
            jobs.join(", ")
        ),
    }
}

fn refused(job: &str, why: impl Into<String>) -> JobError {
    JobError::Letters {
        job: job.to_owned(),
        why: why.into(),
    }
}

/// Which letter a record to replay is.
fn letter_of(record: &Record<'_>) -> Option<(String, i32, Offset)> {
    let text = std::str::from_utf8(record.headers.last(LETTER).flatten()?).ok()?;
    let (place, offset) = text.rsplit_once('@')?;
    let (topic, partition) = place.rsplit_once('-')?;
    let offset = Offset(offset.parse().ok()?);
    Some((topic.to_owned(), partition.parse().ok()?, offset))
}

/// A replay under way.
struct Asking<'a> {
    letters: &'a Letters,
    topic: &'a str,
    time: LetterTime,
    writer: &'a TransactionalWriter,
    builders: BTreeMap<TopicPartition, BatchBuilder>,
    headers: HeaderList,
    asked: AskedLetters,
}

impl Asking<'_> {
    fn take(&mut self, letter: &Letter) -> Result<(), JobError> {
        if self.letters.is_of_another(letter) {
            self.asked.of_others += 1;
            return Ok(());
        }
        if letter.state != LetterState::Waiting {
            self.asked.asked_before += 1;
            return Ok(());
        }
        let way = self.letters.way_of(self.topic, letter)?;
        let now = self.letters.transport.env().clock.wall();
        self.asked.count += 1;
        let (key, value) = (letter.key.as_deref(), letter.value.as_deref());
        let step = match way {
            Way::Source(topic) => {
                self.tell(letter);
                return self.write(&TopicPartition::new(topic, 0), now, key, value);
            }
            Way::Step(step) => step,
        };
        // The note has no content: the record is in the step's input.
        self.tell(letter);
        self.write(&TopicPartition::new(step.notes, 0), now, None, None)?;
        let time = match self.time {
            LetterTime::Own => letter.time,
            LetterTime::At(time) => time,
        };
        self.headers.clear();
        self.headers.add_all(letter.headers.headers());
        self.write(&step.input, time, key, value)
    }

    /// Adds a record with the headers that were made.
    fn write(
        &mut self,
        place: &TopicPartition,
        time: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), JobError> {
        let new = || BatchBuilder::new(Compression::None, None);
        let builder = self.builders.entry(place.clone()).or_insert_with(new);
        builder.push_with_headers_of(time, key, value, self.headers.headers());
        match builder.size_bytes() >= BATCH_BYTES {
            true => hand_over(self.writer, place, builder),
            false => Ok(()),
        }
    }

    /// The headers of the record to replay.
    fn tell(&mut self, letter: &Letter) {
        let headers = &mut self.headers;
        headers.clear();
        let is_new = |name: &[u8]| {
            let new = [LETTER, REPLAY_TIME, TIMESTAMP, JOB];
            is_of_a_letter(name) && new.iter().any(|new| new.as_bytes() == name)
        };
        for (name, value) in letter.all_headers.headers().raw() {
            if !is_new(name) {
                headers.add_raw(name, value);
            }
        }
        let place = format!("{}-{}@{}", self.topic, letter.partition, letter.offset);
        headers.add(LETTER, Some(place.as_bytes()));
        headers.add(JOB, Some(self.letters.job.as_bytes()));
        headers.add(TIMESTAMP, Some(letter.time.0.to_string().as_bytes()));
        if let LetterTime::At(time) = self.time {
            headers.add(REPLAY_TIME, Some(time.0.to_string().as_bytes()));
        }
    }

    fn finish(&mut self) -> Result<AskedLetters, JobError> {
        let asked = self.asked;
        if asked.count == 0 {
            return Err(self.none_chosen());
        }
        for (place, builder) in &mut self.builders {
            if !builder.is_empty() {
                hand_over(self.writer, place, builder)?;
            }
        }
        failpoint("letters.written");
        match wait(self.writer.commit())? {
            CommitOutcome::Committed => {}
            CommitOutcome::Aborted | CommitOutcome::Unknown => {
                return Err(refused(
                    &self.letters.job,
                    "nobody said whether they were asked for: `onceflow letters list` says so; ask again, none is asked for twice",
                ));
            }
        }
        failpoint("letters.asked");
        Ok(asked)
    }

    fn none_chosen(&self) -> JobError {
        let AskedLetters {
            asked_before,
            of_others,
            ..
        } = self.asked;
        let (job, topic) = (&self.letters.job, self.topic);
        let why = match (asked_before, of_others) {
            (0, 0) => format!(
                "{topic} has none that fit: `onceflow letters list {topic} --job {job}` says which there are"
            ),
            (0, _) => format!(
                "{topic} has {of_others} that fit, and all of them are of other jobs: ask in the name of those (`onceflow letters show` says whose \
                 each is)"
            ),
            _ => format!(
                "{topic} has {asked_before} that fit, and all of them were replayed before, or will be by the next run of the job: a letter \
                 that fails again becomes a new one, which can be replayed"
            ),
        };
        refused(job, why)
    }
}

fn hand_over(
    writer: &TransactionalWriter,
    place: &TopicPartition,
    builder: &mut BatchBuilder,
) -> Result<(), JobError> {
    Ok(writer.partition(place).hand_over(builder)?)
}
