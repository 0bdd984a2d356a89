//! Event time between the processes of a job, as a pure step function: what each sender to a repartition topic has told last, and
//! so how far one partition of the topic has come.
//!
//! A *sender* is a task, not a process: a partition of a source or a state partition, on one way to the topic. Whoever has the
//! task speaks for it, so a new owner goes on where the last one was.
//!
//! ```text
//! worker that has the tasks ── records, then a mark ──► partition ──► SenderClocks: the least of all senders ──► the feed's clock
//!                               in one transaction                       └─► committed with the position (I13)
//! ```
//! A mark is a promise: no later record of these senders in this partition is older. A sender that was never heard of holds the
//! partition where it is. What is restored is what was committed with the position, never what is left in the topic.

use std::sync::Arc;

use super::time::{Advance, EventClock, Input};
use crate::types::Timestamp;

mod bytes;

/// The start of a way to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A source; its tasks are the partitions of its topic.
    Source,
    /// A step behind a repartition topic; its tasks are the state partitions.
    Step,
}

/// A way that records take to a repartition topic, under names that do not depend on the order of a program's lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    pub(crate) from: Origin,
    pub(crate) name: Arc<str>,
    /// Tells ways from one beginning apart: streams that were forked and merged again.
    pub(crate) number: u8,
}

/// A way, and how many tasks send on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Senders {
    pub(crate) way: Way,
    pub(crate) tasks_count: u32,
}

/// Some of the tasks that send on a way, by their partitions: a bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tasks(Vec<u8>);

impl Tasks {
    pub(crate) fn add(&mut self, partition: u32) {
        let (byte, bit) = Self::place(partition);
        if self.0.len() <= byte {
            self.0.resize(byte + 1, 0);
        }
        self.0[byte] |= bit;
    }

    pub(crate) fn remove(&mut self, partition: u32) {
        let (byte, bit) = Self::place(partition);
        if let Some(bits) = self.0.get_mut(byte) {
            *bits &= !bit;
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let all = 0..u32::try_from(self.0.len() * 8).unwrap_or(u32::MAX);
        all.filter(|partition| {
            let (byte, bit) = Self::place(*partition);
            self.0[byte] & bit != 0
        })
    }

    fn place(partition: u32) -> (usize, u8) {
        ((partition / 8) as usize, 1 << (partition % 8))
    }
}

/// A promise about what may still come from some senders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) way: Way,
    pub(crate) tasks: Tasks,
    pub(crate) told: Advance,
}

/// Clocks of the senders to one repartition partition.
#[derive(Debug, Clone)]
pub(crate) struct SenderClocks {
    /// Each way, and the numbers of its senders among the inputs of the clock.
    ways: Vec<(Way, Vec<usize>)>,
    clock: EventClock,
}

impl SenderClocks {
    /// The clocks as they were committed, of these senders and no others. One that is not among the committed was never heard of.
    pub(crate) fn new(senders: &[Senders], committed: &[u8]) -> Self {
        let committed = bytes::decode_clocks(committed);
        let mut clock = EventClock::new(Timestamp::MIN);
        let mut ways = Vec::new();
        for Senders { way, tasks_count } in senders {
            let known = committed.iter().find(|(it, _)| it == way);
            let known = known.map_or(&[][..], |(_, known)| known);
            let inputs = (0..*tasks_count as usize).map(|task| {
                let number = clock.add(Timestamp::MIN);
                if let Some(told) = known.get(task).copied().flatten() {
                    clock.note(number, told);
                }
                number
            });
            ways.push((way.clone(), inputs.collect()));
        }
        clock.settle();
        Self { ways, clock }
    }

    /// Returns the partition's time.
    pub(crate) fn now(&self) -> Advance {
        self.clock.now()
    }

    /// Takes a mark; returns what changed, if anything did. One of a way that the job does not have any more says nothing.
    pub(crate) fn take(&mut self, mark: &Mark) -> Option<Advance> {
        let (_, inputs) = self.ways.iter_mut().find(|(way, _)| *way == mark.way)?;
        for task in mark.tasks.iter() {
            let task = task as usize;
            while inputs.len() <= task {
                // A source has grown. Those that were not heard of hold.
                inputs.push(self.clock.add(Timestamp::MIN));
            }
            self.clock.note(inputs[task], mark.told);
        }
        self.clock.settle()
    }

    /// The bytes that restore the clocks.
    pub(crate) fn committed(&self) -> Vec<u8> {
        let ways = self.ways.iter().map(|(way, inputs)| {
            let told = inputs.iter().map(|input| match self.clock.input(*input)? {
                Input::Active(Timestamp::MIN) => None,
                Input::Active(watermark) => Some(Advance {
                    watermark,
                    is_idle: false,
                }),
                Input::Idle(watermark) => Some(Advance {
                    watermark,
                    is_idle: true,
                }),
                Input::Ended => Some(Advance {
                    watermark: Timestamp::MAX,
                    is_idle: false,
                }),
            });
            (way, told.collect())
        });
        bytes::encode_clocks(&ways.collect::<Vec<_>>())
    }

    /// The most bytes that the clocks of these senders take.
    pub(crate) fn committed_bytes_max(senders: &[Senders]) -> usize {
        bytes::clocks_bytes_max(senders)
    }
}

#[cfg(test)]
mod tests;
