//! One letter as it is read, and which of them are chosen.

use std::ops::RangeInclusive;

use crate::protocol::batch::{HeaderList, Record};
use crate::runtime::contract::letter::{
    ATTEMPTS, EFFECT, ERROR, FAILED, JOB, LATE, OFFSET, REPLAY, SOURCE, TIMESTAMP, WATERMARK,
    is_of_a_letter,
};
use crate::runtime::task::replay::number_in;
use crate::types::{Offset, Timestamp};

/// Kind of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LetterKind {
    /// It could not be processed.
    Dead,
    /// It came after the result that it belongs to.
    Late,
    /// Its call, or its effect, failed for good.
    Failed,
}

/// State of a letter's replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LetterState {
    /// Nobody asked for it.
    Waiting,
    /// It was asked for; the job has not committed it yet.
    Asked,
    /// The job has committed it.
    Replayed,
}

/// A record that was put aside.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Letter {
    /// Where it is in the topic of letters.
    pub partition: i32,
    /// Its offset there.
    pub offset: Offset,
    /// Its kind.
    pub kind: LetterKind,
    /// The job that wrote it, if it says so.
    pub job: Option<String>,
    /// The split that the record was in, if the letter says so.
    pub source: Option<String>,
    /// Its offset there.
    pub source_offset: Option<Offset>,
    /// The error, or why it is late.
    pub reason: String,
    /// The record's time; [`Timestamp::NONE`] if it has none.
    pub time: Timestamp,
    /// When a dead letter was written; of a late one, the time of the record.
    pub written: Timestamp,
    /// The tries of the record.
    pub attempts: u64,
    /// The idempotency key of the effect that could not be delivered, if it was one.
    pub effect: Option<String>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its own headers.
    pub headers: HeaderList,
    /// The state of its replay.
    pub state: LetterState,
    /// The topic through which its source takes it back, if the letter says so.
    pub(super) replay: Option<String>,
    /// All of its headers.
    pub(super) all_headers: HeaderList,
}

impl Letter {
    /// Reads a record of a topic of letters; `None` if it is no letter. In a topic that is known to be of late records, all are.
    pub(super) fn of(partition: i32, record: &Record<'_>, is_of_late: bool) -> Option<Self> {
        let told = record.headers;
        let text = |name: &str| {
            let value = told.last(name).flatten()?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let (kind, reason) = match (text(ERROR), text(LATE)) {
            // Where a replayed late letter failed, it is a dead one.
            (Some(error), _) if !is_of_late => (LetterKind::Dead, error),
            _ if is_of_late && text(FAILED).is_some() => {
                (LetterKind::Failed, text(FAILED).unwrap_or_default())
            }
            (_, late) if is_of_late => {
                let bound = number_in(told, WATERMARK).map(Timestamp);
                let bound = bound.map(|bound| format!("; time had come to {bound}"));
                let why = late.unwrap_or_else(|| "late".to_owned());
                (LetterKind::Late, why + &bound.unwrap_or_default())
            }
            _ => return None,
        };
        let mut headers = HeaderList::default();
        for (name, value) in told.raw().filter(|header| !is_of_a_letter(header.0)) {
            headers.add_raw(name, value);
        }
        let time = match kind {
            LetterKind::Dead => number_in(told, TIMESTAMP).map_or(Timestamp::NONE, Timestamp),
            LetterKind::Late | LetterKind::Failed => record.timestamp,
        };
        Some(Self {
            partition,
            offset: record.offset,
            kind,
            job: text(JOB),
            source: text(SOURCE).filter(|_| kind == LetterKind::Dead),
            source_offset: number_in(told, OFFSET).map(Offset),
            reason,
            time,
            written: record.timestamp,
            attempts: number_in(told, ATTEMPTS)
                .and_then(|count| u64::try_from(count).ok())
                .unwrap_or(1),
            effect: text(EFFECT),
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
            state: LetterState::Waiting,
            replay: text(REPLAY).filter(|topic| !topic.is_empty()),
            all_headers: HeaderList::from(told),
        })
    }
}

/// Which letters of a topic are to be replayed: those that fit all that was said.
///
/// ```
/// use onceflow::runtime::LetterChoice;
///
/// let choice = LetterChoice::all().reason("invalid digit").source("clicks").offsets(0..=99);
/// # let _ = choice;
/// ```
#[derive(Debug, Clone, Default)]
pub struct LetterChoice {
    reason: Option<String>,
    source: Option<String>,
    partition: Option<i32>,
    offsets: Option<RangeInclusive<i64>>,
}

impl LetterChoice {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Those whose reason has this text in it.
    #[must_use]
    pub fn reason(self, part: &str) -> Self {
        let reason = Some(part.to_owned());
        Self { reason, ..self }
    }

    /// Those of this split, `clicks-3`, or of all partitions of this topic, `clicks`.
    #[must_use]
    pub fn source(self, name: &str) -> Self {
        let source = Some(name.to_owned());
        Self { source, ..self }
    }

    /// Those in this partition of the topic of letters.
    #[must_use]
    pub fn partition(self, partition: i32) -> Self {
        let partition = Some(partition);
        Self { partition, ..self }
    }

    /// Those at these offsets of the topic of letters.
    #[must_use]
    pub fn offsets(self, offsets: RangeInclusive<i64>) -> Self {
        let offsets = Some(offsets);
        Self { offsets, ..self }
    }

    /// Whether a letter is one of them.
    #[must_use]
    pub fn has(&self, letter: &Letter) -> bool {
        let reason = self.reason.as_ref();
        let source = self.source.as_ref();
        let offsets = self.offsets.as_ref();
        reason.is_none_or(|part| letter.reason.contains(part))
            && source.is_none_or(|name| is_of_source(letter, name))
            && self.partition.is_none_or(|it| it == letter.partition)
            && offsets.is_none_or(|offsets| offsets.contains(&letter.offset.0))
    }
}

fn is_of_source(letter: &Letter, name: &str) -> bool {
    letter.source.as_ref().is_some_and(|source| {
        let partition = source
            .strip_prefix(name)
            .and_then(|it| it.strip_prefix('-'));
        let is_number = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit());
        source == name || partition.is_some_and(is_number)
    })
}

/// The time that letters have when they are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LetterTime {
    /// Their own: what was late is late again, unless a longer grace or a slower watermark has room for it.
    #[default]
    Own,
    /// This one, in place of what `event_time` takes from the value, too.
    At(Timestamp),
}

/// The answer to whoever asked for a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AskedLetters {
    /// The letters that the job gets.
    pub count: u64,
    /// Those that were chosen, and had been asked for before.
    pub asked_before: u64,
    /// Those that were chosen, and are another job's.
    pub of_others: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_split_or_a_topic() {
        let letter = |source: &str| {
            let mut letter = sample();
            letter.source = Some(source.to_owned());
            letter
        };
        let choice = LetterChoice::all().source("clicks");
        assert!(choice.has(&letter("clicks-3")) && choice.has(&letter("clicks")));
        assert!(!choice.has(&letter("clicks-late-3")) && !choice.has(&letter("click-3")));
        assert!(!choice.clone().offsets(3..=4).has(&letter("clicks-3")));
        assert!(choice.offsets(7..=7).partition(1).has(&letter("clicks-3")));
    }

    fn sample() -> Letter {
        Letter {
            partition: 1,
            offset: Offset(7),
            kind: LetterKind::Dead,
            job: None,
            source: None,
            source_offset: None,
            reason: "bad".to_owned(),
            time: Timestamp::NONE,
            written: Timestamp(0),
            attempts: 1,
            effect: None,
            key: None,
            value: None,
            headers: HeaderList::default(),
            state: LetterState::Waiting,
            replay: None,
            all_headers: HeaderList::default(),
        }
    }
}
