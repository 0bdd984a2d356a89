//! The ways on which letters go back into their job.
//!
//! A failure behind a topic between processes (`task/repartition.rs`) is the record of that topic, so it goes back into the same
//! partition, byte for byte: the step finds it where its key belongs, whichever process has that, and its position is committed as
//! that of any other record. It has no mark of a sender, so time neither moves nor waits for it. In the same transaction a note of it
//! is written into `<job>-<step>-replay-step`, because the topic itself is purged when it is read.

use crate::client::{Admin, wait};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::letter::REPLAY;
use crate::runtime::topics::job_topics::replay_configs;
use crate::types::{TopicName, TopicPartition};

use super::{Letter, LetterChoice, LetterKind, LetterState, Letters};

/// The ends of the names of topics that say which letters were asked for.
pub(super) const REPLAYS: [&str; 3] = ["-replay", "-replay-late", NOTES];
/// That of notes of letters that went into the input of a step.
const NOTES: &str = "-replay-step";
/// That of topics between processes.
pub(super) const BETWEEN: &str = "-repartition";

/// The way of a letter back.
pub(super) enum Way {
    /// Through this topic, which its source reads.
    Source(TopicName),
    /// Into the input of a step.
    Step(StepInput),
}

/// The input of a step in a job that is scaled out.
pub(super) struct StepInput {
    /// The partition that the letter was in.
    pub(super) input: TopicPartition,
    /// The topic of notes.
    pub(super) notes: TopicName,
}

/// Whether a topic has notes only.
pub(super) fn is_note(topic: &str) -> bool {
    topic.ends_with(NOTES)
}

impl Letters {
    /// The input of the step that a dead letter is of, if it is of one.
    pub(super) fn step_of(&self, letter: &Letter) -> Option<StepInput> {
        let says_way = letter.all_headers.headers().last(REPLAY).flatten();
        if letter.kind != LetterKind::Dead || says_way.is_some_and(|way| !way.is_empty()) {
            return None;
        }
        // Without a key it was never a record of the topic, where it could be taken for a mark.
        letter.key.as_ref()?;
        let (topic, partition) = letter.source.as_ref()?.rsplit_once('-')?;
        let input = TopicPartition::new(TopicName::new(topic).ok()?, partition.parse().ok()?);
        let notes = format!("{}{NOTES}", topic.strip_suffix(BETWEEN)?);
        self.repartitions
            .contains(&input.topic)
            .then_some(StepInput {
                input,
                notes: TopicName::new(&notes).ok()?,
            })
    }

    /// Makes the topics of notes that a replay needs, where they are absent.
    pub(super) fn make_notes(
        &mut self,
        topic: &str,
        choice: &LetterChoice,
    ) -> Result<(), JobError> {
        let mut missing = std::collections::BTreeSet::new();
        self.visit(topic, &mut |letter| {
            let is_chosen = choice.has(letter) && !self.is_of_another(letter);
            let is_new = is_chosen && letter.state == LetterState::Waiting;
            if let Some(step) = self.step_of(letter).filter(|_| is_new)
                && !self.replays.contains(&step.notes)
            {
                missing.insert(step.notes);
            }
        })?;
        let admin = Admin::new(std::sync::Arc::clone(&self.transport));
        for name in missing {
            // Somebody else may have made it meanwhile.
            if wait(self.transport.topic(&name))?.is_none() {
                wait(admin.create_topic_with(&name, 1, replay_configs()))?;
            }
            self.replays.insert(name);
        }
        Ok(())
    }
}
