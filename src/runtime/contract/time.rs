//! Event time, as a pure step function: how far the inputs of a node have come, and so how far the node has.
//!
//! A *watermark* W is a promise about what may still come: every later record of that input has a time of at least W
//! (design D16). So a window [start, end) is complete once its end is at or below W, and nothing here adds or
//! subtracts one millisecond.
//!
//! ```text
//!              records, "nothing there"                 watermarks
//!   splits ───────────────────────────► SplitClock ─┐
//!                                                   ├─► EventClock: the minimum ──► the chain, in order with its records
//!   other workers, other ports ─────────────────────┘
//! ```
//! An input that is *idle* does not hold the others back; one that was never heard of does, and so does one that has
//! merely not been asked. The result never goes back (I13), whatever its inputs do.
//! Where it is kept, and how it reaches the operators, is `operator.rs`'s and `worker.rs`'s business.

use std::time::Duration;

use crate::env::Instant;
use crate::types::Timestamp;

/// Rule that makes the watermark of each split of a source from its records.
///
/// ```
/// use std::time::Duration;
/// use onceflow::prelude::*;
///
/// // Records are at most five seconds out of order; a split that has had none for a minute holds nobody back.
/// let watermarks = Watermarks::out_of_order(Duration::from_secs(5)).idle_after(Duration::from_secs(60));
/// # let _ = watermarks;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    rule: Rule,
    idle_after: Option<Duration>,
    /// In milliseconds.
    align_within: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// No record is more than so many milliseconds older than one before it.
    OutOfOrder { millis: i64 },
    /// Nothing is known before the end.
    AtEndOnly,
}

fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Default for Watermarks {
    /// In order: no record is older than one before it in its split.
    fn default() -> Self {
        Self::out_of_order(Duration::ZERO)
    }
}

impl Watermarks {
    /// Bounded disorder: a record is at most `bound` older than the newest one before it in its split. The watermark
    /// is the newest time less `bound`, so records of equal time are never late. Kept in whole milliseconds.
    #[must_use]
    pub fn out_of_order(bound: Duration) -> Self {
        Self::by(Rule::OutOfOrder {
            millis: whole_millis(bound),
        })
    }

    /// No watermark before the source ends: nothing is ever late, and everything closes at the end. For bounded input
    /// in any order; an unbounded source never closes a window so.
    #[must_use]
    pub fn at_end_only() -> Self {
        Self::by(Rule::AtEndOnly)
    }

    fn by(rule: Rule) -> Self {
        Self {
            rule,
            idle_after: None,
            align_within: None,
        }
    }

    /// Lets the others go on without a split that was asked for records and had none for `timeout`, in running time.
    /// A split that is not asked, because the job is busy or its cycle is being closed, is not idle. Idleness
    /// is the one thing here that depends on the wall clock: records that come later than the others allow are late.
    #[must_use]
    pub fn idle_after(self, timeout: Duration) -> Self {
        Self {
            idle_after: Some(timeout),
            ..self
        }
    }

    /// Lets a split wait while its watermark is more than `bound` ahead of the least one of the splits that ask for this: all
    /// those of all sources of the job. So what steps keep for the slower ones, in windows, in `sorted_by_time`, or between two inputs,
    /// is what `bound` of event time brings, and not what the faster ones have ahead; each split goes over it by one record at most.
    ///
    /// Nobody waits for a split that was asked and had nothing (it has caught up), is idle, or has ended; one that waits does not
    /// become idle by that. Results are the same as without: splits wait, and nothing else changes. In a job that is scaled out,
    /// a split waits for those that its own process reads. With [`at_end_only`](Self::at_end_only), which says nothing of the
    /// time before the end, it has no effect.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    ///
    /// // No file is read for more than ten minutes of event time ahead of another.
    /// let watermarks = Watermarks::out_of_order(Duration::from_secs(5)).align_within(Duration::from_secs(600));
    /// # let _ = watermarks;
    /// ```
    #[must_use]
    pub fn align_within(self, bound: Duration) -> Self {
        Self {
            align_within: Some(whole_millis(bound)),
            ..self
        }
    }

    /// Returns the milliseconds that a split may be ahead, if it waits for others.
    pub(crate) fn alignment_millis(self) -> Option<i64> {
        self.align_within.filter(|_| self.rule != Rule::AtEndOnly)
    }

    /// The watermark behind a record of this time, if nothing older was seen.
    fn after(self, newest: Timestamp) -> Timestamp {
        match self.rule {
            Rule::OutOfOrder { millis } => Timestamp(newest.0.saturating_sub(millis)),
            Rule::AtEndOnly => Timestamp::MIN,
        }
    }
}

/// The fate of the times of a periodic timer that passed while the job did not run, or was busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Each is made up for, one after the other.
    CatchUp,
    /// They are left out; the next one is on the same grid.
    Skip,
}

impl Missed {
    /// The time behind `due`, which has come, of a timer that fires `every` so often, when it is `now`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::runtime::Missed;
    /// use onceflow::types::Timestamp;
    ///
    /// let every = Duration::from_millis(10);
    /// assert_eq!(Missed::CatchUp.next(Timestamp(20), every, Timestamp(47)), Timestamp(30));
    /// assert_eq!(Missed::Skip.next(Timestamp(20), every, Timestamp(47)), Timestamp(50));
    /// ```
    #[must_use]
    pub fn next(self, due: Timestamp, every: Duration, now: Timestamp) -> Timestamp {
        let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
        let next = due.plus_millis(every);
        match self {
            Self::Skip if next <= now => {
                let late = now.0.saturating_sub(due.0);
                due.plus_millis((late / every).saturating_add(1).saturating_mul(every))
            }
            Self::Skip | Self::CatchUp => next,
        }
    }
}

/// The event time of one split of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SplitClock {
    watermarks: Watermarks,
    watermark: Timestamp,
    /// When the split was first found empty since its last record.
    empty_since: Option<Instant>,
}

impl SplitClock {
    /// A split that goes on from the committed watermark, or begins.
    pub(crate) fn new(watermarks: Watermarks, committed: Option<Timestamp>) -> Self {
        Self {
            watermarks,
            watermark: committed.unwrap_or(Timestamp::MIN),
            empty_since: None,
        }
    }

    /// The lower bound on the times of later records.
    pub(crate) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Notes a record; returns the watermark behind it.
    #[inline]
    pub(crate) fn record(&mut self, time: Timestamp) -> Timestamp {
        self.empty_since = None;
        self.watermark = self.watermark.max(self.watermarks.after(time));
        self.watermark
    }

    /// Notes that the split was asked for records and had none; returns whether it is idle.
    pub(crate) fn empty(&mut self, now: Instant) -> bool {
        let since = *self.empty_since.get_or_insert(now);
        let timeout = self.watermarks.idle_after;
        timeout.is_some_and(|timeout| now.since(since) >= timeout)
    }

    /// When [`empty`](Self::empty) will first say that it is idle, if no record comes.
    pub(crate) fn idle_at(&self) -> Option<Instant> {
        Some(self.empty_since?.plus(self.watermarks.idle_after?))
    }
}

/// Known state of an input of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// It may bring records, none older than this.
    Active(Timestamp),
    /// It has had nothing for a while, and holds nobody back; it had come so far.
    Idle(Timestamp),
    /// Nothing comes from it any more.
    Ended,
}

impl Input {
    fn after(self, news: News) -> Self {
        match (self, news) {
            (_, News::Ended) | (Self::Ended, _) => Self::Ended,
            (Self::Active(had) | Self::Idle(had), News::Idle) => Self::Idle(had),
            (Self::Active(had) | Self::Idle(had), News::Watermark(time)) => {
                Self::Active(had.max(time))
            }
        }
    }
}

/// News of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Every later record has at least this time.
    Watermark(Timestamp),
    /// It has nothing for the time being.
    Idle,
    /// It has ended.
    Ended,
}

/// Time that a node tells those behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The node's watermark.
    pub watermark: Timestamp,
    /// Whether all of its inputs are idle.
    pub is_idle: bool,
}

/// The event time of a node: the minimum over its inputs.
#[derive(Debug, Clone)]
pub(crate) struct EventClock {
    inputs: Vec<Option<Input>>,
    now: Advance,
    /// The minimum over the active inputs as last derived; it may lie behind `now`.
    least: Timestamp,
}

impl EventClock {
    /// A node that had come to `committed` when its state was committed, without inputs. Until it has one it is idle.
    pub(crate) fn new(committed: Timestamp) -> Self {
        Self {
            inputs: Vec::new(),
            now: Advance {
                watermark: committed,
                is_idle: true,
            },
            least: Timestamp::MIN,
        }
    }

    /// Returns the node's time.
    pub(crate) fn now(&self) -> Advance {
        self.now
    }

    /// Adds an input, of which nothing older than `watermark` comes; returns its number. One of which nothing is known
    /// ([`Timestamp::MIN`]) holds the node where it is.
    pub(crate) fn add(&mut self, watermark: Timestamp) -> usize {
        let free = self.inputs.iter().position(Option::is_none);
        let number = free.unwrap_or(self.inputs.len());
        let input = Some(Input::Active(watermark));
        match self.inputs.get_mut(number) {
            Some(place) => *place = input,
            None => self.inputs.push(input),
        }
        // An input that comes can hold time, and not advance it: another one, with an earlier time, may be the next to come.
        let derived = self.derive();
        (self.least, self.now.is_idle) = (derived.watermark, derived.is_idle);
        number
    }

    /// Removes an input that others read from now on; returns what changed for those behind.
    pub(crate) fn remove(&mut self, number: usize) -> Option<Advance> {
        self.inputs[number] = None;
        self.settle()
    }

    /// The state of an input, unless it was removed.
    pub(super) fn input(&self, number: usize) -> Option<Input> {
        self.inputs.get(number).copied().flatten()
    }

    /// Notes what an input that is a node itself tells of its time. [`settle`](Self::settle) follows, once all that came at once
    /// was noted.
    ///
    /// # Panics
    /// If there is no such input.
    pub(crate) fn note(&mut self, number: usize, told: Advance) {
        let input = self.known(number);
        *input = match told.watermark {
            Timestamp::MAX => Input::Ended,
            watermark => input.after(News::Watermark(watermark)),
        };
        if told.is_idle {
            *input = input.after(News::Idle);
        }
    }

    fn known(&mut self, number: usize) -> &mut Input {
        let Some(input) = &mut self.inputs[number] else {
            panic!("input {number} was removed, and still sends news of its time");
        };
        input
    }

    /// Takes news of an input; returns what changed for those behind, if anything did.
    ///
    /// # Panics
    /// If there is no such input.
    pub(crate) fn step(&mut self, number: usize, news: News) -> Option<Advance> {
        let input = self.known(number);
        let before = *input;
        let after = before.after(news);
        *input = after;
        if let (Input::Active(had), Input::Active(_)) = (before, after)
            && had > self.least
        {
            // Another input is the minimum, and stays it.
            return None;
        }
        self.settle()
    }

    /// Takes what an input that is a node itself tells of its time; returns what changed for those behind, if anything did.
    ///
    /// # Panics
    /// If there is no such input.
    pub(crate) fn step_to(&mut self, number: usize, told: Advance) -> Option<Advance> {
        if told.watermark == Timestamp::MAX {
            return self.step(number, News::Ended);
        }
        let moved = self.step(number, News::Watermark(told.watermark));
        match told.is_idle {
            true => self.step(number, News::Idle).or(moved),
            false => moved,
        }
    }

    /// Derives anew how far the node has come; says so if it changed. To be called once all inputs were added.
    pub(crate) fn settle(&mut self) -> Option<Advance> {
        let derived = self.derive();
        self.least = derived.watermark;
        let next = Advance {
            // I13: time never goes back, also where an idle input wakes behind the others.
            watermark: self.now.watermark.max(derived.watermark),
            is_idle: derived.is_idle,
        };
        let is_news = next != self.now;
        self.now = next;
        is_news.then_some(next)
    }

    /// The minimum over the active inputs. Where all are idle, the maximum: it does not matter in which order they fell
    /// asleep. Where all have ended, the end of time.
    fn derive(&self) -> Advance {
        let (mut active, mut idle, mut has_ended) = (None::<Timestamp>, None::<Timestamp>, false);
        for input in self.inputs.iter().flatten() {
            match *input {
                Input::Active(time) => active = Some(active.map_or(time, |least| least.min(time))),
                Input::Idle(time) => idle = Some(idle.map_or(time, |most| most.max(time))),
                Input::Ended => has_ended = true,
            }
        }
        let (watermark, is_idle) = match (active, idle, has_ended) {
            (Some(least), _, _) => (least, false),
            (None, Some(most), _) => (most, true),
            (None, None, true) => (Timestamp::MAX, false),
            (None, None, false) => (Timestamp::MIN, true),
        };
        Advance { watermark, is_idle }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const B0: Watermarks = Watermarks {
        rule: Rule::OutOfOrder { millis: 0 },
        idle_after: None,
        align_within: None,
    };

    fn at(millis: u64) -> Instant {
        Instant(Duration::from_millis(millis))
    }

    fn watermark(time: i64) -> News {
        News::Watermark(Timestamp(time))
    }

    fn clock(inputs: usize) -> EventClock {
        let mut clock = EventClock::new(Timestamp::MIN);
        for number in 0..inputs {
            assert_eq!(clock.add(Timestamp::MIN), number);
        }
        clock
    }

    #[test]
    fn t1_records_of_equal_time_are_never_below_the_watermark() {
        let mut split = SplitClock::new(B0, None);
        assert_eq!(split.record(Timestamp(1_000)), Timestamp(1_000));
        assert!(Timestamp(1_000) >= split.watermark());
        let mut split = SplitClock::new(Watermarks::out_of_order(Duration::from_millis(5)), None);
        split.record(Timestamp(1_000));
        assert_eq!(split.record(Timestamp(997)), Timestamp(995));
    }

    #[test]
    fn t2_t6_t7_a_split_is_idle_once_it_was_asked_and_found_empty_for_the_timeout() {
        let mut split = SplitClock::new(B0.idle_after(Duration::from_millis(50)), None);
        for millis in (0..10_000).step_by(10) {
            split.record(Timestamp(0));
            assert!(!split.empty(at(millis)), "a record came 10 ms ago");
        }
        split.record(Timestamp(0));
        // Nobody asked for an hour: busy elsewhere is not idle.
        assert_eq!(split.idle_at(), None);
        assert!(!split.empty(at(3_600_000)));
        assert_eq!(split.idle_at(), Some(at(3_600_050)));
        assert!(!split.empty(at(3_600_049)));
        assert!(split.empty(at(3_600_050)));
        split.record(Timestamp(0));
        assert!(!split.empty(at(3_600_060)));
    }

    #[test]
    fn t3_a_node_without_inputs_is_idle_and_one_that_comes_later_is_not_late() {
        let mut clock = clock(0);
        assert!(clock.now().is_idle);
        assert_eq!(clock.now().watermark, Timestamp::MIN);
        let input = clock.add(Timestamp::MIN);
        assert!(!clock.now().is_idle);
        assert_eq!(
            clock.step(input, watermark(7)),
            Some(Advance {
                watermark: Timestamp(7),
                is_idle: false
            })
        );
    }

    #[test]
    fn t4_all_idle_is_the_same_in_whichever_order_they_fell_asleep() {
        for order in [[0, 1], [1, 0]] {
            let mut clock = clock(2);
            clock.step(0, watermark(5));
            clock.step(1, watermark(4));
            for input in order {
                clock.step(input, News::Idle);
            }
            assert_eq!(
                clock.now(),
                Advance {
                    watermark: Timestamp(5),
                    is_idle: true
                }
            );
        }
    }

    #[test]
    fn t5_an_input_that_wakes_alone_leads_and_never_takes_time_back() {
        let mut clock = clock(2);
        clock.step(0, watermark(10));
        clock.step(1, watermark(3));
        clock.step(1, News::Idle);
        assert_eq!(clock.now().watermark, Timestamp(10));
        clock.step(0, News::Idle);
        // Input 1 wakes behind: time stands where it was, and goes on with it.
        let woken = clock.step(1, watermark(4));
        assert_eq!(
            woken,
            Some(Advance {
                watermark: Timestamp(10),
                is_idle: false
            })
        );
        assert_eq!(clock.step(1, watermark(9)), None);
        assert_eq!(
            clock.step(1, watermark(12)).map(|it| it.watermark),
            Some(Timestamp(12))
        );
        // Input 0 wakes with what it had: it holds again, without taking time back.
        assert_eq!(clock.step(0, watermark(10)), None);
        assert_eq!(clock.step(1, watermark(20)), None);
        assert_eq!(
            clock.step(0, watermark(15)).map(|it| it.watermark),
            Some(Timestamp(15))
        );
    }

    #[test]
    fn t8_t16_what_was_committed_stands_before_the_first_record() {
        let mut split = SplitClock::new(B0, Some(Timestamp(25)));
        assert_eq!(split.record(Timestamp(3)), Timestamp(25));
        let mut clock = EventClock::new(Timestamp(25));
        let input = clock.add(Timestamp::MIN);
        assert_eq!(clock.step(input, watermark(3)), None);
        assert_eq!(clock.now().watermark, Timestamp(25));
    }

    #[test]
    fn t10_an_input_that_was_never_heard_of_holds() {
        let mut clock = clock(1);
        clock.step(0, watermark(100));
        let added = clock.add(Timestamp::MIN);
        assert_eq!(clock.step(0, watermark(200)), None);
        assert_eq!(
            clock.step(added, watermark(150)).map(|it| it.watermark),
            Some(Timestamp(150))
        );
    }

    #[test]
    fn t8_inputs_that_are_restored_one_after_the_other_give_the_least_time() {
        for committed in [[100, 0], [0, 100]] {
            let mut clock = EventClock::new(Timestamp::MIN);
            for time in committed {
                clock.add(Timestamp(time));
            }
            assert_eq!(clock.settle().map(|it| it.watermark), Some(Timestamp(0)));
        }
    }

    #[test]
    fn t11_two_inputs_give_the_lesser_time() {
        let mut clock = clock(2);
        clock.step(0, watermark(100));
        assert_eq!(
            clock.step(1, watermark(10)).map(|it| it.watermark),
            Some(Timestamp(10))
        );
    }

    #[test]
    fn t15_when_all_inputs_ended_time_is_at_its_end() {
        let mut clock = clock(2);
        clock.step(0, News::Ended);
        assert_eq!(
            clock.step(1, watermark(3)).map(|it| it.watermark),
            Some(Timestamp(3))
        );
        // One that has ended does not wake the other: it may still bring something.
        assert_eq!(
            clock.step(1, News::Idle),
            Some(Advance {
                watermark: Timestamp(3),
                is_idle: true
            })
        );
        assert_eq!(
            clock.step(1, News::Ended).map(|it| it.watermark),
            Some(Timestamp::MAX)
        );
    }

    #[test]
    fn input_without_order_says_nothing_before_its_end() {
        let mut split = SplitClock::new(Watermarks::at_end_only(), None);
        assert_eq!(split.record(Timestamp(1_000)), Timestamp::MIN);
    }

    /// The model: all that was ever said, looked at anew each time.
    fn model(said: &[Vec<News>], committed: i64) -> (i64, bool) {
        let last = |news: &Vec<News>| {
            let time = news.iter().fold(i64::MIN, |most, it| match it {
                News::Watermark(time) => most.max(time.0),
                _ => most,
            });
            let state = match news.contains(&News::Ended) {
                true => News::Ended,
                false => news
                    .last()
                    .copied()
                    .unwrap_or(News::Watermark(Timestamp::MIN)),
            };
            (time, state)
        };
        let all: Vec<_> = said.iter().map(last).collect();
        let active = all
            .iter()
            .filter(|it| matches!(it.1, News::Watermark(_)))
            .map(|it| it.0)
            .min();
        let idle = all
            .iter()
            .filter(|it| it.1 == News::Idle)
            .map(|it| it.0)
            .max();
        let time = active
            .or(idle)
            .unwrap_or(if said.is_empty() { i64::MIN } else { i64::MAX });
        (
            time.max(committed),
            active.is_none() && (idle.is_some() || said.is_empty()),
        )
    }

    fn news() -> impl Strategy<Value = News> {
        prop_oneof![
            6 => (-20i64..20).prop_map(watermark),
            2 => Just(News::Idle),
            1 => Just(News::Ended),
        ]
    }

    proptest! {
        /// T4, T5, T9, T11: whatever is said in whatever order, the clock is what the model derives from all that was said,
        /// and never behind what it was; it says so exactly when it changed.
        #[test]
        fn t9_the_clock_is_the_model_and_never_goes_back(
            steps in prop::collection::vec((0usize..3, news()), 0..60),
            committed in -30i64..30,
        ) {
            let mut clock = EventClock::new(Timestamp(committed));
            (0..3).for_each(|_| { clock.add(Timestamp::MIN); });
            let mut said = vec![Vec::new(); 3];
            let mut most = committed;
            for (input, news) in steps {
                let before = clock.now();
                let change = clock.step(input, news);
                said[input].push(news);
                let (time, is_idle) = model(&said, committed);
                most = most.max(time);
                prop_assert_eq!(clock.now(), Advance { watermark: Timestamp(most), is_idle });
                prop_assert_eq!(change, (clock.now() != before).then_some(clock.now()));
            }
        }

        /// D16: inputs whose disorder is within their bound bring nothing that is older than the node's time.
        #[test]
        fn nothing_is_older_than_the_watermark_while_disorder_is_within_its_bound(
            records in prop::collection::vec((0usize..3, -4i64..=0, 0i64..5), 0..80),
        ) {
            let mut clock = clock(3);
            let watermarks = Watermarks::out_of_order(Duration::from_millis(4));
            let mut splits = [SplitClock::new(watermarks, None); 3];
            let mut newest = [0i64; 3];
            for (input, back, forward) in records {
                newest[input] += forward;
                let time = Timestamp(newest[input] + back);
                prop_assert!(time >= clock.now().watermark);
                let watermark = splits[input].record(time);
                clock.step(input, News::Watermark(watermark));
            }
        }
    }
}
