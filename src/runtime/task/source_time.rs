//! The time of a source: one worker's part of it, which is the least of its splits' (design D16, D17).
//!
//! The time of a record is the one that came with it, or the one that `event_time` behind the source takes from the value.
//! Nothing of this runs in a job whose steps do not ask for the time.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::alignment::{Alignment, Seat};
use super::context::OperatorContext;
use crate::env::Instant;
use crate::runtime::contract::error::{Failure, JobError};
use crate::runtime::contract::time::{Advance, EventClock, News, SplitClock, Watermarks};
use crate::types::Timestamp;

/// Whether and how a step behind the source says what time it is.
pub(crate) struct SourceTimes {
    watermarks: Cell<Option<Watermarks>>,
    /// Whether the step takes times from values.
    is_from_values: Cell<bool>,
    /// The newest time that it took from the source record under way.
    newest: Cell<Option<Timestamp>>,
    /// The time that the letter under way has instead of its own.
    instead: Cell<Option<Timestamp>>,
}

impl SourceTimes {
    /// The letter under way has this time, or its own.
    pub(crate) fn replay_at(&self, instead: Option<Timestamp>) {
        self.instead.set(instead);
    }
}

impl Default for SourceTimes {
    fn default() -> Self {
        Self {
            watermarks: Cell::new(None),
            is_from_values: Cell::new(false),
            newest: Cell::new(None),
            instead: Cell::new(None),
        }
    }
}

/// Tells a source the times of its records; made by [`OperatorContext::source_time`].
pub struct SourceTime {
    times: Rc<SourceTimes>,
}

impl SourceTime {
    /// Says what time the record under way is of.
    #[inline]
    pub fn set(&self, time: Timestamp) {
        let newest = self.times.newest.get();
        self.times
            .newest
            .set(Some(newest.map_or(time, |newest| newest.max(time))));
    }

    /// The time that the record under way has instead of its own: that of a letter which is replayed with a new one.
    #[must_use]
    #[inline]
    pub fn instead(&self) -> Option<Timestamp> {
        self.times.instead.get()
    }
}

impl OperatorContext {
    /// Says how the watermarks of the source in front follow from its records, and, where the times are in the values, gives the
    /// operator the way to tell them.
    ///
    /// # Errors
    /// If there is a shuffle in between, or another operator says so, too.
    pub fn source_time(
        &mut self,
        watermarks: Watermarks,
        is_from_values: bool,
    ) -> Result<SourceTime, JobError> {
        let refuse = |why: &str| {
            Err(JobError::Topology {
                job: self.job().name().to_owned(),
                why: why.to_owned(),
            })
        };
        if !self.is_at_source() {
            return refuse(
                "`event_time` stands behind a shuffle: move it to the source, before the first `count`, `reduce`, window, or other step \
                 that brings keys together",
            );
        }
        let times = self.source_times();
        if times.watermarks.replace(Some(watermarks)).is_some() {
            return refuse("a source has `event_time` or `watermarks` twice behind it: leave one");
        }
        times.is_from_values.set(is_from_values);
        Ok(SourceTime { times })
    }
}

/// Event time of one worker's part of a source.
pub(crate) struct FeedTime {
    times: Rc<SourceTimes>,
    watermarks: Watermarks,
    is_used: bool,
    /// Whether its records say how far time has come. Letters that are replayed do not: they are of the past.
    follows_records: bool,
    is_from_values: bool,
    clock: EventClock,
    told: Advance,
    alignment: Arc<Alignment>,
}

/// Event time of a split of it.
pub(crate) struct SplitTime {
    clock: SplitClock,
    input: usize,
    is_idle: bool,
    /// Its place among the splits that wait for each other, if it is one of them.
    seat: Option<Seat>,
}

impl FeedTime {
    /// To be called once the chain behind the source is built.
    pub(crate) fn new(context: &OperatorContext) -> Self {
        let times = context.source_times();
        let clock = EventClock::new(Timestamp::MIN);
        Self {
            watermarks: times.watermarks.get().unwrap_or_default(),
            is_from_values: times.is_from_values.get(),
            times,
            is_used: context.job().uses_time,
            follows_records: context.job().uses_time,
            told: clock.now(),
            clock,
            alignment: Arc::clone(&context.job().alignment),
        }
    }

    /// Of letters that are replayed: nobody waits for their time.
    pub(crate) fn of_letters(context: &OperatorContext) -> Self {
        let time = Self::new(context);
        Self {
            watermarks: Watermarks::default(),
            follows_records: false,
            ..time
        }
    }

    /// Whether somebody asks for the time, and the records tell it.
    #[inline]
    pub(crate) fn follows_records(&self) -> bool {
        self.follows_records
    }

    /// Whether anybody asks for the time.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.is_used
    }

    /// A split whose watermark was `committed`.
    pub(crate) fn open_split(&mut self, committed: Option<Timestamp>) -> SplitTime {
        let split = self.new_split(committed);
        if !self.follows_records {
            self.ended(&split);
        }
        split
    }

    fn new_split(&mut self, committed: Option<Timestamp>) -> SplitTime {
        SplitTime {
            clock: SplitClock::new(self.watermarks, committed),
            input: self.clock.add(committed.unwrap_or(Timestamp::MIN)),
            is_idle: false,
            seat: self.watermarks.alignment_millis().map(|bound_millis| {
                let watermark = committed.unwrap_or(Timestamp::MIN);
                Seat::take(&self.alignment, bound_millis, watermark)
            }),
        }
    }

    /// There are no splits, and none will come.
    pub(crate) fn has_no_splits(&mut self) {
        let input = self.clock.add(Timestamp::MIN);
        self.clock.step(input, News::Ended);
    }

    pub(crate) fn close_split(&mut self, split: &SplitTime) {
        self.clock.remove(split.input);
    }

    /// Whether a record can be processed: it needs a time.
    #[inline]
    pub(crate) fn check(&self, timestamp: Timestamp) -> Result<(), Failure> {
        if self.is_used && !self.is_from_values && timestamp == Timestamp::NONE {
            return Err(Failure::poison(
                "the record has no time, and a step of the job asks for it: take it from the value with `event_time`",
            ));
        }
        Ok(())
    }

    /// A record was processed.
    #[inline]
    pub(crate) fn record(&mut self, split: &mut SplitTime, timestamp: Timestamp) {
        let time = match self.is_from_values {
            true => self.times.newest.take(),
            false => Some(timestamp),
        };
        if let Some(time) = time {
            let before = split.clock.watermark();
            let watermark = split.clock.record(time);
            if watermark != before || std::mem::take(&mut split.is_idle) {
                self.clock.step(split.input, News::Watermark(watermark));
            }
        }
    }

    /// The split was asked and had nothing; how long until it is idle, if no record comes.
    pub(crate) fn empty(&mut self, split: &mut SplitTime, now: Instant) -> Option<Duration> {
        if split.clock.empty(now) {
            split.is_idle = true;
            self.clock.step(split.input, News::Idle);
            return None;
        }
        split.clock.idle_at().map(|at| at.since(now))
    }

    /// The split has ended.
    pub(crate) fn ended(&mut self, split: &SplitTime) {
        self.clock.step(split.input, News::Ended);
    }

    /// All splits were opened, for now.
    pub(crate) fn settle(&mut self) {
        self.clock.settle();
    }

    /// Returns the part's time, if that is news.
    #[inline]
    pub(crate) fn news(&mut self) -> Option<Advance> {
        let now = self.clock.now();
        let is_news = now != self.told;
        self.told = now;
        is_news.then_some(now)
    }
}

impl SplitTime {
    /// Whether the split must wait for others before the next record is read.
    #[inline]
    pub(crate) fn waits(&mut self) -> bool {
        let watermark = self.clock.watermark();
        let seat = self.seat.as_mut();
        seat.is_some_and(|seat| seat.is_beyond(watermark) && seat.look(watermark))
    }

    /// As [`waits`](Self::waits), by what the others tell now.
    pub(crate) fn waits_now(&mut self) -> bool {
        let watermark = self.clock.watermark();
        let seat = self.seat.as_mut();
        seat.is_some_and(|seat| seat.look(watermark))
    }

    /// Whether time goes on without the split.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// The split was read; nobody need wait for it if it is `away`.
    pub(crate) fn come_to(&mut self, is_away: bool) {
        let watermark = self.clock.watermark();
        if let Some(seat) = &mut self.seat {
            seat.come_to(watermark, is_away);
        }
    }

    /// The watermark to commit.
    pub(crate) fn committed(&self) -> Option<Timestamp> {
        let watermark = self.clock.watermark();
        (watermark > Timestamp::MIN).then_some(watermark)
    }
}
