//! [`Asked`]: the ids that are being asked for, and those that could not be had. It decides; `codec.rs` asks.

use std::collections::HashMap;
use std::time::Duration;

use crate::env::Instant;

/// An id that could not be had is not asked for again for so long: it may be registered meanwhile.
const NOT_AGAIN: Duration = Duration::from_secs(60);
/// The most ids that are remembered at once.
const IDS_MAX: usize = 1000;

/// The step to take for a record whose id nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the registry; the record waits.
    Ask,
    /// It is being asked for; the record waits.
    Wait,
    /// It cannot be had: the record cannot be read.
    Refuse(String),
}

enum State {
    UnderWay,
    Failed { why: String, at: Instant },
}

/// Ids that are not known.
#[derive(Default)]
pub(super) struct Asked(HashMap<u32, State>);

impl Asked {
    /// A record with this id came.
    pub(super) fn step(&mut self, id: u32, now: Instant) -> Step {
        match self.0.get(&id) {
            Some(State::UnderWay) => return Step::Wait,
            Some(State::Failed { why, at }) if now.since(*at) < NOT_AGAIN => {
                return Step::Refuse(why.clone());
            }
            _ => {}
        }
        if self.0.len() >= IDS_MAX {
            self.0.retain(|_, state| matches!(state, State::UnderWay));
        }
        if self.0.len() >= IDS_MAX {
            return Step::Wait;
        }
        self.0.insert(id, State::UnderWay);
        Step::Ask
    }

    /// The registry has told: the id is known from now on.
    pub(super) fn told(&mut self, id: u32) {
        self.0.remove(&id);
    }

    /// The id could not be had.
    pub(super) fn failed(&mut self, id: u32, why: String, now: Instant) {
        self.0.insert(id, State::Failed { why, at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;

    #[test]
    fn an_id_is_asked_for_once_and_again_after_a_while() {
        let now = Env::real().clock.now();
        let mut asked = Asked::default();
        assert_eq!(asked.step(1, now), Step::Ask);
        assert_eq!(asked.step(1, now), Step::Wait);
        assert_eq!(asked.step(2, now), Step::Ask);
        asked.failed(1, "no".to_owned(), now);
        assert_eq!(asked.step(1, now), Step::Refuse("no".to_owned()));
        assert_eq!(asked.step(1, now.plus(NOT_AGAIN)), Step::Ask);
        asked.told(2);
        assert_eq!(asked.step(2, now), Step::Ask);
    }

    #[test]
    fn not_more_than_so_many_ids_are_remembered() {
        let now = Env::real().clock.now();
        let mut asked = Asked::default();
        for id in 0..2 * u32::try_from(IDS_MAX).unwrap() {
            assert_eq!(asked.step(id, now), Step::Ask);
            asked.failed(id, String::new(), now);
        }
        assert!(asked.0.len() <= IDS_MAX);
    }
}
