//! The topic of letters that are to be replayed, and its reader: a split of the job like any other, so that a letter enters once.
//!
//! Each source that takes letters back has a topic of one partition. A record of it has the letter's key and value, the record's own
//! headers, and those of the letter ([`letter`](crate::runtime::contract::letter)), which are not shown to the job's steps.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::context::{JobContext, Producer};
use super::fetched::{FetchCursor, Taken, emit_unreadable};
use super::source_time::SourceTimes;
use crate::client::consumer::PartitionReader;
use crate::codec::CodecError;
use crate::protocol::batch::{HeaderList, Headers};
use crate::protocol::murmur2;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::letter::{
    ATTEMPTS, REPLAY_TIME, ReadLetter, TIMESTAMP, is_of_a_letter,
};
use crate::runtime::contract::source::{
    AssignedSplit, Emit, Emitted, Pace, Raw, Read, Split, SplitReader,
};
use crate::types::{Isolation, NameError, Offset, Timestamp, TopicName};

/// A letter whose schema is on its way from a registry is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The most of a source's name in the name of its topic of letters.
const NAME_CHARS_MAX: usize = 100;

/// The topic of the dead letters that the source `source` of a job is to take back.
pub(crate) fn replay_topic(job: &str, source: &str) -> Result<TopicName, NameError> {
    TopicName::new(&format!("{job}-{}-replay", plain(source)))
}

/// The topic of the late letters of the topic `letters` that a job is to take back.
pub(crate) fn late_topic(job: &str, letters: &str) -> Result<TopicName, NameError> {
    TopicName::new(&format!("{job}-{}-replay-late", plain(letters)))
}

/// A name as it can be part of a topic's; another one, as the path of a file is, has its hash behind it.
fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() <= NAME_CHARS_MAX && name.chars().all(is_plain) {
        return name.to_owned();
    }
    let chars = name.chars().map(|c| if is_plain(c) { c } else { '_' });
    let chars: String = chars.take(NAME_CHARS_MAX).collect();
    format!("{chars}-{:08x}", murmur2(name.as_bytes()))
}

impl JobContext {
    /// Whether a chain begins at letters that are replayed. Nobody behind it waits for their time: they are of the past.
    pub(crate) fn is_of_letters(&self, producer: Producer) -> bool {
        let letters = self.own_sources_count..self.replay_topics.len();
        matches!(producer, Producer::Source(source) if letters.contains(&source))
    }
}

/// The text of a header as a number.
pub(crate) fn number_in(headers: Headers<'_>, name: &str) -> Option<i64> {
    let value = headers.last(name).flatten()?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether the count of a letter's attempts is a header of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempts {
    /// It comes to the next dead letter by itself.
    Hidden,
    /// The record takes it along, and the stream of late records with it.
    Shown,
}

/// Reads the letters that a source takes back.
pub(crate) struct ReplayReader<K: ?Sized, V: ?Sized> {
    cursor: FetchCursor,
    letters: Arc<dyn ReadLetter<K, V>>,
    times: Rc<SourceTimes>,
    attempts: Attempts,
    headers: HeaderList,
}

impl<K: ?Sized, V: ?Sized> ReplayReader<K, V> {
    pub(crate) fn open(
        job: &JobContext,
        assigned: &AssignedSplit,
        letters: Arc<dyn ReadLetter<K, V>>,
        times: Rc<SourceTimes>,
        attempts: Attempts,
    ) -> Self {
        let Split::Partition(partition) = &assigned.split else {
            unreachable!("letters to replay are in a topic")
        };
        let position = assigned.position.as_ref();
        let reader = PartitionReader::new(
            Arc::clone(job.transport()),
            partition.clone(),
            position.map_or(Offset::ZERO, |position| position.offset),
            Isolation::ReadCommitted,
        );
        Self {
            cursor: FetchCursor::new(reader),
            letters,
            times,
            attempts,
            headers: HeaderList::default(),
        }
    }
}

/// The headers that a letter's record has as a record of its job again.
fn own_headers(list: &mut HeaderList, told: Headers<'_>, attempts: Attempts) {
    list.clear();
    for (name, value) in told.raw().filter(|header| !is_of_a_letter(header.0)) {
        list.add_raw(name, value);
    }
    if attempts == Attempts::Shown {
        let count = number_in(told, ATTEMPTS).unwrap_or(1).saturating_add(1);
        list.add(ATTEMPTS, Some(count.to_string().as_bytes()));
    }
}

impl<K: ?Sized, V: ?Sized> SplitReader<K, V> for ReplayReader<K, V> {
    fn read(&mut self, waker: &Waker, emit: &mut impl Emit<K, V>) -> Result<Read, JobError> {
        let (letters, times, list) = (&self.letters, &self.times, &mut self.headers);
        let attempts = self.attempts;
        let (before, mut is_waiting) = (self.cursor.position(), false);
        let read = self.cursor.read(waker, |offered| {
            let record = match offered {
                Ok(record) => record,
                Err(bad) => return emit_unreadable(emit, bad).map(Taken::Yes),
            };
            let told = record.headers;
            own_headers(list, told, attempts);
            let instead = number_in(told, REPLAY_TIME).map(Timestamp);
            times.replay_at(instead);
            let own = number_in(told, TIMESTAMP).map(Timestamp);
            let (key, value) = (record.key, record.value);
            let taken = letters.read(key, value, &mut |decoded| {
                if let Err(CodecError::Awaited { .. }) = decoded {
                    is_waiting = true;
                    return Ok(Pace::Pause);
                }
                emit.emit(Emitted {
                    record: decoded,
                    timestamp: instead.or(own).unwrap_or(Timestamp::NONE),
                    offset: record.offset,
                    raw: Raw::Letter {
                        key,
                        value,
                        headers: list.headers(),
                        told,
                    },
                })
            });
            match is_waiting {
                true => Ok(Taken::NotYet),
                false => taken.map(Taken::Yes),
            }
        });
        self.times.replay_at(None);
        match is_waiting && self.cursor.position() == before {
            true => read.map(|_| Read::Later(LOOK_AGAIN)),
            false => read,
        }
    }

    fn position(&self) -> Offset {
        self.cursor.position()
    }

    fn has_caught_up(&self) -> bool {
        self.cursor.has_caught_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::contract::letter::LETTER;

    #[test]
    fn every_source_has_a_topic_for_its_letters() {
        let name = |node: &str| replay_topic("job", node).unwrap().to_string();
        assert_eq!(name("clicks"), "job-clicks-replay");
        assert!(name("/a b").starts_with("job-_a_b-") && name("/a b") != name("/a_b"));
        assert_ne!(
            late_topic("job", "clicks").unwrap().as_str(),
            name("clicks")
        );
        let long = "n".repeat(300);
        assert!(name(&long).len() < 200);
    }

    #[test]
    fn a_step_does_not_see_the_headers_of_the_letter() {
        let mut told = HeaderList::default();
        told.add("trace", Some(b"7"));
        told.add(ATTEMPTS, Some(b"2"));
        told.add(LETTER, Some(b"dead-0@3"));
        let mut list = HeaderList::default();
        own_headers(&mut list, told.headers(), Attempts::Hidden);
        assert_eq!(list.headers().len(), 1);
        own_headers(&mut list, told.headers(), Attempts::Shown);
        assert_eq!(number_in(list.headers(), ATTEMPTS), Some(3));
        assert_eq!(number_in(list.headers(), "trace"), Some(7));
    }
}
