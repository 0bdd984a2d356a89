//! The treatment of a record that cannot be processed (design D11): never a silent skip.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::appender::TopicAppender;
use super::context::JobContext;
use super::quarantine::Attempt;
use super::replay::number_in;
use crate::protocol::batch::{HeaderList, Headers};
use crate::runtime::contract::error::{Failure, FailureInner, JobError};
use crate::runtime::contract::letter;
use crate::runtime::contract::record::{Meta, Origin};
use crate::runtime::contract::source::Raw;
use crate::state::Trace;
use crate::types::TopicName;

/// The treatment of a record whose bytes do not decode, or for which a user's function returned an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PoisonPolicy {
    /// The job stops and says which record it was. Nothing of the cycle is committed.
    #[default]
    Fail,
    /// The record of the source goes to this topic, in the same transaction, with its key, value and headers as they are, and headers that say where it was, its time, and what was wrong.
    ///
    /// A source record is processed whole or is a dead letter: nothing that it pushed or changed before it failed stays, also
    /// behind shuffles and in stores. Where there is such a part, the cycle is given up and done again without the record. In a
    /// job with stores that takes two attempts a record, in one without two a cycle. In a job that is spread over processes,
    /// the unit ends at a repartition topic: what fails behind one is the record of that topic, and its letter holds that.
    ///
    /// A failure at the end of a cycle (behind `changes_per_commit`) is of no single record, and stops the job.
    DeadLetter(TopicName),
}

/// One worker's hand on the policy.
#[derive(Clone)]
pub(crate) struct Poison {
    job: Arc<JobContext>,
    dead_letters: Option<Rc<RefCell<TopicAppender>>>,
    trace: Trace,
}

impl Poison {
    pub(crate) fn new(
        job: Arc<JobContext>,
        dead_letters: Option<Rc<RefCell<TopicAppender>>>,
        trace: Trace,
    ) -> Self {
        Self {
            job,
            dead_letters,
            trace,
        }
    }

    /// For a failure that is no record's fault.
    #[cold]
    pub(crate) fn fatal(&self, failure: Failure, at: Origin) -> Result<(), JobError> {
        match failure.into_inner() {
            FailureInner::Job(e) => Err(e),
            FailureInner::Poison(why) => Err(self.poisoned(at, why)),
        }
    }

    /// Applies the policy to a source's record, which failed before or after it left a trace.
    #[cold]
    pub(crate) fn handle_raw(
        &mut self,
        failure: Failure,
        meta: Meta,
        raw: Raw<'_>,
    ) -> Result<(), JobError> {
        match self.trace.is_left() {
            true => self.set_apart(failure, meta.origin),
            false => match failure.into_inner() {
                FailureInner::Job(e) => Err(e),
                FailureInner::Poison(why) => self.letter(&why, meta, raw),
            },
        }
    }

    /// Applies the policy to a record that has effects, or may have: to make it a dead letter whole, its cycle is done again
    /// without it.
    #[cold]
    pub(crate) fn set_apart(&mut self, failure: Failure, at: Origin) -> Result<(), JobError> {
        let why = match failure.into_inner() {
            FailureInner::Job(e) => return Err(e),
            FailureInner::Poison(why) => why,
        };
        let plan = match (&self.dead_letters, self.job.splits.get(at.split)) {
            (Some(_), Some(plan)) => plan,
            _ => return Err(self.poisoned(at, why)),
        };
        if !plan.is_rereadable {
            let why = format!(
                "{why}; it left part of its effects, so it can become a dead letter only if it is read again, which its source does not allow: \
                 read a file or a topic, or let records fail before the first step that writes, counts or shuffles"
            );
            return Err(self.poisoned(at, why));
        }
        let quarantine = &self.job.progress.quarantine;
        // Without stores nothing goes from record to record; with them, only a record alone is to blame for certain.
        let is_certain = self.job.stores.is_empty() || self.job.alone.split() == Some(at.split);
        let attempt = match is_certain {
            true => quarantine.poison(plan.split, at.offset, why),
            false => quarantine.suspect(plan.split, at.offset),
        };
        match attempt {
            Attempt::GoesOn if self.job.stores.is_empty() => Ok(()),
            _ => Err(JobError::NotCommitted {
                job: self.job.name().to_owned(),
            }),
        }
    }

    /// Writes a dead letter of a record that has no effects.
    #[cold]
    pub(crate) fn letter(&mut self, why: &str, meta: Meta, raw: Raw<'_>) -> Result<(), JobError> {
        let at = meta.origin;
        let Some(dead_letters) = self.dead_letters.clone() else {
            return Err(self.poisoned(at, why.to_owned()));
        };
        let mut encoded = Vec::new();
        let mut before = None;
        let (key, value, own) = match raw {
            Raw::Bytes {
                key,
                value,
                headers,
            } => (key, value, headers),
            Raw::Letter {
                key,
                value,
                headers,
                told,
            } => {
                before = Some(told);
                (key, value, headers)
            }
            Raw::Encode(encode) => {
                encode(&mut encoded).map_err(|e| {
                    self.poisoned(at, format!("{why}; nor can it become a dead letter: {e}"))
                })?;
                (None, Some(&*encoded), Headers::default())
            }
        };
        let headers = self.headers_of_a_letter(why, meta, own, before);
        // Its own time would have retention delete it early.
        let timestamp = self.job.env().clock.wall();
        let appended = dead_letters.borrow_mut().append_with_headers(
            0,
            timestamp,
            key,
            value,
            headers.headers(),
        );
        if appended.is_ok() {
            self.job.progress.meters.note_dead_letter(why);
        }
        appended.map_err(|failure| match failure.into_inner() {
            FailureInner::Job(e) => e,
            FailureInner::Poison(refused) => JobError::Sink {
                sink: dead_letters.borrow().topic().to_string(),
                why: format!(
                    "record {} of {} cannot become a dead letter: {refused}; it is one because: {why}",
                    at.offset,
                    self.job.split_name(at.split)
                ),
            },
        })
    }

    /// The record's own headers, and behind them those that say why it is a letter, and of what. `before` are those of the letter
    /// that was replayed, if it was one.
    fn headers_of_a_letter(
        &self,
        why: &str,
        meta: Meta,
        own: Headers<'_>,
        before: Option<Headers<'_>>,
    ) -> HeaderList {
        let at = meta.origin;
        // A letter that was replayed, and failed again, tells of the record that it was first.
        let text = |name: &str, now: String| {
            let value = before.and_then(|before| before.last(name).flatten());
            let text = value.and_then(|value| std::str::from_utf8(value).ok());
            text.map_or(now, str::to_owned)
        };
        let split = text(letter::SOURCE, self.job.split_name(at.split));
        let offset = text(letter::OFFSET, at.offset.to_string());
        let time = text(letter::TIMESTAMP, meta.timestamp.0.to_string());
        let way = text(letter::REPLAY, self.job.replay_topic(at.split));
        let tried = |before| number_in(before, letter::ATTEMPTS).unwrap_or(1);
        let attempts = before.map_or(1, |before| tried(before).saturating_add(1));
        let attempts = attempts.to_string();
        let told = [
            (letter::ERROR, why),
            (letter::JOB, self.job.name()),
            (letter::REPLAY, &way),
            (letter::SOURCE, &split),
            (letter::OFFSET, &offset),
            (letter::TIMESTAMP, &time),
            (letter::ATTEMPTS, &attempts),
        ];
        let mut headers = HeaderList::default();
        // A letter that was sent again, and failed again, tells of its last failure.
        let is_kept = |name: &[u8]| told.iter().all(|told| told.0.as_bytes() != name);
        for (name, value) in own.raw().filter(|own| is_kept(own.0)) {
            headers.add_raw(name, value);
        }
        for (name, value) in told {
            headers.add(name, Some(value.as_bytes()));
        }
        headers
    }

    fn poisoned(&self, at: Origin, why: String) -> JobError {
        JobError::Poison {
            split: self.job.split_name(at.split),
            offset: at.offset,
            why,
        }
    }
}
