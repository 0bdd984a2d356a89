//! The newest letters of a topic, without a read of all of it.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::{Letter, Letters};
use crate::runtime::contract::error::JobError;
use crate::types::{Offset, Timestamp, TopicName, TopicPartition};

/// The least part of a partition that is read, in offsets: a few markers between letters do not make it be read twice.
const WINDOW_MIN: i64 = 64;
/// Factor of the next read where one had too few letters.
const WIDER: i64 = 4;

impl Letters {
    /// The newest letters of a topic, also those of other jobs: `count` at most, the newest first. It reads the ends of the topic's
    /// partitions, and all that says which letters were replayed.
    ///
    /// # Errors
    /// If there is no such topic, or it cannot be read.
    pub fn newest(&self, topic: &str, count: usize) -> Result<Vec<Letter>, JobError> {
        let partitions = self.partitions_of(topic)?;
        let is_of_late = self.is_of_late(&TopicName::new(topic)?)?;
        let asked = self.asked_for(topic)?;
        let mut letters = Vec::new();
        for place in partitions {
            // Times may go back from letter to letter; the order within a partition stays.
            let mut latest = Timestamp::MIN;
            for mut letter in self.newest_of(&place, is_of_late, count)? {
                if let Some(state) = asked.get(&(letter.partition, letter.offset)) {
                    letter.state = *state;
                }
                latest = latest.max(letter.written);
                letters.push((latest, letter));
            }
        }
        letters.sort_by_key(|(latest, it)| Reverse((*latest, it.partition, it.offset)));
        letters.truncate(count);
        Ok(letters.into_iter().map(|(_, letter)| letter).collect())
    }

    /// The last letters of a partition.
    fn newest_of(
        &self,
        place: &TopicPartition,
        is_of_late: bool,
        count: usize,
    ) -> Result<VecDeque<Letter>, JobError> {
        let Some((first, end)) = self.bounds(place)? else {
            return Ok(VecDeque::new());
        };
        let twice = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(2);
        let mut window = twice.max(WINDOW_MIN);
        loop {
            let from = Offset(end.0.saturating_sub(window)).max(first);
            let mut last = VecDeque::new();
            self.read(place, from, end, &mut |record| {
                let letter = Letter::of(place.partition, record, is_of_late);
                if let Some(letter) = letter {
                    if last.len() == count {
                        last.pop_front();
                    }
                    last.push_back(letter);
                }
                Ok(())
            })?;
            if last.len() >= count || from == first {
                return Ok(last);
            }
            window = window.saturating_mul(WIDER);
        }
    }
}
