//! What happens to a record that cannot be processed (design D11): never a silent skip.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::appender::TopicAppender;
use super::context::JobContext;
use super::error::{Failure, FailureInner, JobError};
use super::record::Origin;
use super::source::Raw;
use crate::codec::CodecError;
use crate::types::TopicName;

/// What a job does with a record whose bytes do not decode, or for which a user's function returned an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PoisonPolicy {
    /// The job stops and says which record it was. Nothing of the cycle is committed.
    #[default]
    Fail,
    /// The record goes to this topic, in the same transaction, with headers that say where it was and what was wrong.
    DeadLetter(TopicName),
}

/// One worker's hand on the policy.
#[derive(Clone)]
pub(crate) struct Poison {
    job: Arc<JobContext>,
    dead_letters: Option<Rc<RefCell<TopicAppender>>>,
}

/// Writes a record's key and value as bytes; `None` stays null.
pub(crate) type WriteRaw<'a> =
    dyn FnMut(&mut Option<Vec<u8>>, &mut Option<Vec<u8>>) -> Result<(), CodecError> + 'a;

impl Poison {
    pub(crate) fn new(
        job: Arc<JobContext>,
        dead_letters: Option<Rc<RefCell<TopicAppender>>>,
    ) -> Self {
        Self { job, dead_letters }
    }

    /// For a failure that is no record's fault.
    #[cold]
    pub(crate) fn fatal(&self, failure: Failure, at: Origin) -> Result<(), JobError> {
        match failure.into_inner() {
            FailureInner::Job(e) => Err(e),
            FailureInner::Poison(why) => Err(self.poisoned(at, why)),
        }
    }

    /// Applies the policy to the record at `at`.
    #[cold]
    pub(crate) fn handle(
        &mut self,
        failure: Failure,
        at: Origin,
        raw: &mut WriteRaw<'_>,
    ) -> Result<(), JobError> {
        let why = match failure.into_inner() {
            FailureInner::Job(e) => return Err(e),
            FailureInner::Poison(why) => why,
        };
        let Some(dead_letters) = self.dead_letters.clone() else {
            return Err(self.poisoned(at, why));
        };
        let (mut key, mut value) = (None, None);
        raw(&mut key, &mut value).map_err(|e| {
            self.poisoned(at, format!("{why}; nor can it become a dead letter: {e}"))
        })?;
        let split = self.job.split_name(at.split);
        let offset = at.offset.to_string();
        let headers = [
            ("onceflow.error", Some(why.as_bytes())),
            ("onceflow.job", Some(self.job.name().as_bytes())),
            ("onceflow.source", Some(split.as_bytes())),
            ("onceflow.offset", Some(offset.as_bytes())),
        ];
        let timestamp = self.job.env().clock.wall();
        let appended = dead_letters.borrow_mut().append_with_headers(
            0,
            timestamp,
            key.as_deref(),
            value.as_deref(),
            &headers,
        );
        appended.map_err(|failure| match failure.into_inner() {
            FailureInner::Job(e) => e,
            FailureInner::Poison(refused) => JobError::Sink {
                sink: dead_letters.borrow().topic().to_string(),
                why: format!("record {} of {split} cannot become a dead letter: {refused}; it is one because: {why}", at.offset),
            },
        })
    }

    #[cold]
    pub(crate) fn handle_raw(
        &mut self,
        failure: Failure,
        at: Origin,
        raw: Raw<'_>,
    ) -> Result<(), JobError> {
        self.handle(failure, at, &mut |key, out| match raw {
            Raw::Bytes {
                key: raw_key,
                value,
            } => {
                *key = raw_key.map(<[u8]>::to_vec);
                *out = value.map(<[u8]>::to_vec);
                Ok(())
            }
            Raw::Encode(encode) => encode(out.insert(Vec::new())),
        })
    }

    fn poisoned(&self, at: Origin, why: String) -> JobError {
        JobError::Poison {
            split: self.job.split_name(at.split),
            offset: at.offset,
            why,
        }
    }
}
