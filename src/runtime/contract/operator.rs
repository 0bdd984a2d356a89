//! The contract of an operator: the one trait on which everything that users chain is built.
//!
//! An operator sees one record at a time and pushes any number of records on. Operators of one
//! chain are fused into one monomorphised function; nothing is boxed between them. What is not a record
//! reaches a chain as a [`Signal`], in order with its records.

use std::cell::RefCell;
use std::rc::Rc;

use super::error::Failure;
use super::record::{Key, Record};
use super::time::Advance;
use crate::types::Timestamp;

/// Answer of a step: go on, or a failure.
pub type Flow = Result<(), Failure>;

/// Where an operator pushes its results.
pub trait Output<K: ?Sized, V: ?Sized> {
    /// Hands a record to the next step.
    ///
    /// # Errors
    /// The failure of a step behind it; an operator passes it up with `?`.
    fn push(&mut self, record: Record<'_, K, V>) -> Flow;
}

/// One step of a job: records of `(K, V)` in, records of `(OutKey, Out)` out. One instance runs per worker.
///
/// ```
/// use onceflow::runtime::{Flow, Operator, Output, Record, Unkeyed};
///
/// /// Passes on every `n`-th record.
/// struct Every { n: u64, seen: u64 }
///
/// impl<V: ?Sized> Operator<Unkeyed, V> for Every {
///     type OutKey = Unkeyed;
///     type Out = V;
///
///     fn process(&mut self, record: Record<'_, Unkeyed, V>, out: &mut impl Output<Unkeyed, V>) -> Flow {
///         self.seen += 1;
///         if self.seen % self.n == 0 { out.push(record) } else { Ok(()) }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operator on these records (key `{K}`, value `{V}`)",
    note = "implement `Operator<{K}, {V}>` for it"
)]
pub trait Operator<K: ?Sized, V: ?Sized> {
    /// The key type of the records pushed on.
    type OutKey: ?Sized;
    /// The value type of the records pushed on.
    type Out: ?Sized;
    /// Whether every record pushed on has the key of the record that caused it. Then records of one
    /// key stay on their worker, and no shuffle is needed behind this operator.
    const KEEPS_KEY: bool = false;
    /// Whether the operator asks for the time: without one that does, a job keeps no watermarks.
    const USES_TIME: bool = false;
    /// Whether the operator asks for the wall clock: [`on_clock`](Self::on_clock) is called for those only.
    const USES_CLOCK: bool = false;
    /// Whether the operator makes [`Calls`](crate::runtime::Calls): [`on_clock`](Self::on_clock) is called whenever one of them has
    /// an answer, and after a commit while inputs wait.
    const USES_CALLS: bool = false;

    /// Sees one record. Records of one key come in the order of their source partition.
    ///
    /// # Errors
    /// A [`Failure`]; what happens then is the job's poison policy.
    fn process(
        &mut self,
        record: Record<'_, K, V>,
        out: &mut impl Output<Self::OutKey, Self::Out>,
    ) -> Flow;

    /// Told that no later record has a time below `watermark`, which has grown since the last call (I13), and is
    /// [`Timestamp::MAX`] at the end of bounded input. What is pushed here reaches the steps behind before they are told.
    ///
    /// # Errors
    /// A [`Failure`], which ends the attempt: there is no single record to set apart.
    fn on_watermark(
        &mut self,
        _watermark: Timestamp,
        _out: &mut impl Output<Self::OutKey, Self::Out>,
    ) -> Flow {
        Ok(())
    }

    /// Told what the wall clock says, about every 10 ms while the job runs. It may jump. What is pushed here depends on the clock, so that
    /// a replay may give something else; it is committed with the cycle, as anything else is.
    ///
    /// # Errors
    /// As [`on_watermark`](Self::on_watermark).
    fn on_clock(
        &mut self,
        _now: Timestamp,
        _out: &mut impl Output<Self::OutKey, Self::Out>,
    ) -> Flow {
        Ok(())
    }

    /// The watermark of what the operator pushes: less than that of its input if it holds records back (then it is the least time
    /// among them), or gives results an earlier time. Asked when time goes on, behind [`on_watermark`](Self::on_watermark), and when
    /// the clock ticks and a cycle ends. Those behind are never told of less than they were before, nor of more than `watermark`.
    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        watermark
    }

    /// Whether the operator waits for something that comes neither with a record nor with time, such as an answer from outside.
    /// Then those behind are not told that nothing comes for the time being, though all inputs are idle: they would let time pass.
    fn is_waiting(&self) -> bool {
        false
    }

    /// Called when a cycle closes and every record of it was processed; may push more.
    ///
    /// # Errors
    /// A [`Failure`], which aborts the cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<Self::OutKey, Self::Out>) -> Flow {
        Ok(())
    }
}

/// News that reach every step of a chain, in order with its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Time went on.
    Time(Advance),
    /// The wall clock says so.
    Clock(Timestamp),
    /// Every record of the cycle was processed.
    EndOfCycle,
}

/// An operator with what follows it: itself an output.
pub(crate) struct Step<O, D> {
    pub(crate) operator: O,
    /// The streams beside the one that leads on.
    pub(crate) sides: Vec<SharedStage>,
    pub(crate) down: D,
    pub(crate) time: StepTime,
}

/// The time that an operator was told, and the time that those behind it were told.
#[derive(Debug, Default)]
pub(crate) struct StepTime {
    heard: Option<Timestamp>,
    told: Option<Advance>,
    is_idle: bool,
}

impl StepTime {
    /// Notes that time went on in front, or became idle; returns the watermark if it has grown.
    pub(super) fn hear(&mut self, advance: Advance) -> Option<Timestamp> {
        self.is_idle = advance.is_idle;
        // An input that is idle before its first record has no time to tell of.
        let before = self.heard.unwrap_or(Timestamp::MIN);
        let has_grown = advance.watermark > before;
        self.heard = Some(advance.watermark.max(before));
        has_grown.then_some(advance.watermark)
    }

    /// Says what those behind are to be told, if it is news; `output` is what the operator makes of how far it was told.
    /// One that `is_waiting` is not idle.
    pub(super) fn tell(
        &mut self,
        is_waiting: bool,
        output: impl FnOnce(Timestamp) -> Timestamp,
    ) -> Option<Signal> {
        let heard = self.heard?;
        // T13, I13: what the operator still has in hand may be older than what those behind were told, which does not go back.
        let before = self.told.map_or(Timestamp::MIN, |told| told.watermark);
        let advance = Advance {
            watermark: output(heard).min(heard).max(before),
            is_idle: self.is_idle && !is_waiting,
        };
        let is_news = self.told != Some(advance);
        self.told = Some(advance);
        is_news.then_some(Signal::Time(advance))
    }
}

/// The calls of the runtime to a fused chain besides pushing records.
pub trait Stage<K: ?Sized, V: ?Sized>: Output<K, V> {
    /// Tells this step, and then all behind it. What the step pushes because of it comes before it.
    fn signal(&mut self, signal: Signal) -> Flow;
}

/// A stage that is told of time and ends of cycles by another one than pushes into it.
pub(crate) type SharedStage = Rc<dyn Signalled>;

/// A stage whose types are hidden, while another one has its hands on it, too.
pub(crate) trait Signalled {
    fn signal(&self, signal: Signal) -> Flow;
}

impl<K: ?Sized, V: ?Sized> Signalled for RefCell<Box<dyn Stage<K, V>>> {
    fn signal(&self, signal: Signal) -> Flow {
        self.borrow_mut().signal(signal)
    }
}

/// An output that holds an operator to its word: with [`Operator::KEEPS_KEY`], what it pushes stays with the worker that
/// owns the key.
pub(super) struct SameKey<'a, D> {
    down: &'a mut D,
    partition_hash: u32,
}

impl<'a, D> SameKey<'a, D> {
    #[inline]
    pub(super) fn new<K: ?Sized>(key: &Key<'_, K>, down: &'a mut D) -> Self {
        Self {
            down,
            partition_hash: key.partition_hash(),
        }
    }
}

impl<K: ?Sized, V: ?Sized, D: Output<K, V>> Output<K, V> for SameKey<'_, D> {
    #[inline]
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        assert_eq!(
            record.key.partition_hash(),
            self.partition_hash,
            "an operator with KEEPS_KEY pushed a record of another key: its state would be looked for on another worker"
        );
        self.down.push(record)
    }
}

impl<K: ?Sized, V: ?Sized, O, D> Output<K, V> for Step<O, D>
where
    O: Operator<K, V>,
    D: Output<O::OutKey, O::Out>,
{
    #[inline]
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        if O::KEEPS_KEY {
            let mut down = SameKey::new(&record.key, &mut self.down);
            return self.operator.process(record, &mut down);
        }
        self.operator.process(record, &mut self.down)
    }
}

impl<K: ?Sized, V: ?Sized, O, D> Stage<K, V> for Step<O, D>
where
    O: Operator<K, V>,
    D: Stage<O::OutKey, O::Out>,
{
    fn signal(&mut self, signal: Signal) -> Flow {
        match signal {
            Signal::Time(advance) => {
                if let Some(watermark) = self.time.hear(advance) {
                    self.operator.on_watermark(watermark, &mut self.down)?;
                }
            }
            Signal::Clock(now) => {
                if O::USES_CLOCK || O::USES_CALLS {
                    self.operator.on_clock(now, &mut self.down)?;
                }
            }
            Signal::EndOfCycle => self.operator.end_cycle(&mut self.down)?,
        }
        let operator = &self.operator;
        let output = |heard| operator.output_watermark(heard);
        if let Some(time) = self.time.tell(operator.is_waiting(), output) {
            tell_all(&self.sides, &mut self.down, time)?;
        }
        match signal {
            Signal::Time(_) => Ok(()),
            Signal::Clock(_) | Signal::EndOfCycle => tell_all(&self.sides, &mut self.down, signal),
        }
    }
}

/// Tells the streams beside, and then the one that leads on.
pub(super) fn tell_all<K: ?Sized, V: ?Sized>(
    sides: &[SharedStage],
    down: &mut impl Stage<K, V>,
    signal: Signal,
) -> Flow {
    sides.iter().try_for_each(|side| side.signal(signal))?;
    down.signal(signal)
}

impl<K: ?Sized, V: ?Sized> Output<K, V> for Box<dyn Stage<K, V>> {
    fn push(&mut self, record: Record<'_, K, V>) -> Flow {
        (**self).push(record)
    }
}

impl<K: ?Sized, V: ?Sized> Stage<K, V> for Box<dyn Stage<K, V>> {
    fn signal(&mut self, signal: Signal) -> Flow {
        (**self).signal(signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::contract::record::{Meta, Origin, Unkeyed};

    /// Holds records back until it is told to let them go, or 10 ms have passed them.
    #[derive(Default)]
    struct Holds {
        held: Vec<i64>,
        lets_go: bool,
    }

    impl Holds {
        fn release(&mut self, below: i64, out: &mut impl Output<Unkeyed, i64>) -> Flow {
            let (go, stay): (Vec<i64>, Vec<i64>) =
                self.held.iter().partition(|time| **time < below);
            self.held = stay;
            go.iter().try_for_each(|time| out.push(record(time)))
        }
    }

    impl Operator<Unkeyed, i64> for Holds {
        type OutKey = Unkeyed;
        type Out = i64;
        const USES_TIME: bool = true;

        fn process(
            &mut self,
            record: Record<'_, Unkeyed, i64>,
            _out: &mut impl Output<Unkeyed, i64>,
        ) -> Flow {
            self.held.push(*record.value);
            Ok(())
        }

        fn on_watermark(
            &mut self,
            watermark: Timestamp,
            out: &mut impl Output<Unkeyed, i64>,
        ) -> Flow {
            self.release(watermark.0.saturating_sub(10), out)
        }

        fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
            let oldest = self.held.iter().copied().min();
            oldest.map_or(watermark, |oldest| watermark.min(Timestamp(oldest)))
        }

        fn end_cycle(&mut self, out: &mut impl Output<Unkeyed, i64>) -> Flow {
            match self.lets_go {
                true => self.release(i64::MAX, out),
                false => Ok(()),
            }
        }
    }

    fn record(time: &i64) -> Record<'_, Unkeyed, i64> {
        let meta = Meta {
            timestamp: Timestamp(*time),
            origin: Origin::default(),
        };
        Record::new(Key::none(), time, meta)
    }

    /// All that came, in order: records by their times, and how far time was told to have come.
    #[derive(Debug, Default, PartialEq)]
    struct Seen(Vec<Came>);

    #[derive(Debug, PartialEq)]
    enum Came {
        Record(i64),
        Time(i64),
        End,
    }

    impl Output<Unkeyed, i64> for Seen {
        fn push(&mut self, record: Record<'_, Unkeyed, i64>) -> Flow {
            self.0.push(Came::Record(*record.value));
            Ok(())
        }
    }

    impl Stage<Unkeyed, i64> for Seen {
        fn signal(&mut self, signal: Signal) -> Flow {
            self.0.push(match signal {
                Signal::Time(advance) => Came::Time(advance.watermark.0),
                Signal::Clock(_) | Signal::EndOfCycle => Came::End,
            });
            Ok(())
        }
    }

    fn step() -> Step<Holds, Seen> {
        Step {
            operator: Holds::default(),
            sides: Vec::new(),
            down: Seen::default(),
            time: StepTime::default(),
        }
    }

    /// Waits for an answer, and holds time meanwhile.
    struct Waits(bool);

    impl Operator<Unkeyed, i64> for Waits {
        type OutKey = Unkeyed;
        type Out = i64;
        const USES_CLOCK: bool = true;

        fn process(
            &mut self,
            _: Record<'_, Unkeyed, i64>,
            _: &mut impl Output<Unkeyed, i64>,
        ) -> Flow {
            Ok(())
        }

        fn is_waiting(&self) -> bool {
            self.0
        }
    }

    #[test]
    fn a6_a_step_that_waits_for_an_answer_is_not_idle() {
        let mut step = Step {
            operator: Waits(true),
            sides: Vec::new(),
            down: Told::default(),
            time: StepTime::default(),
        };
        let idle = |is_idle| Advance {
            watermark: Timestamp(7),
            is_idle,
        };
        step.signal(Signal::Time(idle(true))).unwrap();
        assert_eq!(step.down.0, [idle(false)]);
        step.operator.0 = false;
        step.signal(Signal::Clock(Timestamp(0))).unwrap();
        assert_eq!(step.down.0, [idle(false), idle(true)]);
    }

    /// The times that were told.
    #[derive(Default)]
    struct Told(Vec<Advance>);

    impl Output<Unkeyed, i64> for Told {
        fn push(&mut self, _: Record<'_, Unkeyed, i64>) -> Flow {
            Ok(())
        }
    }

    impl Stage<Unkeyed, i64> for Told {
        fn signal(&mut self, signal: Signal) -> Flow {
            if let Signal::Time(advance) = signal {
                self.0.push(advance);
            }
            Ok(())
        }
    }

    fn time(watermark: i64) -> Signal {
        Signal::Time(Advance {
            watermark: Timestamp(watermark),
            is_idle: false,
        })
    }

    #[test]
    fn t13_time_does_not_pass_what_an_operator_holds_back() {
        let mut step = step();
        step.push(record(&5)).unwrap();
        step.push(record(&8)).unwrap();
        step.signal(time(10)).unwrap();
        // Nothing new is known behind it: nothing is told.
        step.signal(time(12)).unwrap();
        assert_eq!(step.down.0, [Came::Time(5)]);
        step.signal(time(16)).unwrap();
        assert_eq!(step.down.0[1..], [Came::Record(5), Came::Time(8)]);
        // One that is held and older than what was told takes nothing back.
        step.push(record(&3)).unwrap();
        step.signal(time(17)).unwrap();
        assert_eq!(step.down.0[3..], [Came::Record(3)]);
        step.signal(time(i64::MAX)).unwrap();
        assert_eq!(step.down.0[4..], [Came::Record(8), Came::Time(i64::MAX)]);
    }

    #[test]
    fn t13_what_is_let_go_at_the_end_of_a_cycle_lets_time_go_on_behind_it() {
        let mut step = step();
        step.push(record(&5)).unwrap();
        step.signal(time(10)).unwrap();
        step.operator.lets_go = true;
        step.signal(Signal::EndOfCycle).unwrap();
        let expected = [Came::Time(5), Came::Record(5), Came::Time(10), Came::End];
        assert_eq!(step.down.0, expected);
    }
}
