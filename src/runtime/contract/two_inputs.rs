//! The contract of an operator with two inputs of different types, and its place at the end of both their chains.
//!
//! ```text
//!   chain of the left input  ──► LeftPort ──┐
//!                                           ├─► TwoInputStep: one operator, one clock ──► the chain behind
//!   chain of the right input ──► RightPort ─┘
//! ```
//! One instance a worker stands behind both ports. Its time is the lesser of both inputs' (T11), and its cycle ends when both
//! have ended theirs. Nothing is boxed: each port knows the types of its records.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

use super::operator::{Flow, Output, SameKey, SharedStage, Signal, Stage, StepTime, tell_all};
use super::record::Record;
use super::time::EventClock;
use crate::types::Timestamp;

/// One step of a job with two inputs: records of `(K, L)` on the left, records of `(K, R)` on the right. One instance runs per
/// worker, where all records of a key meet, of both inputs. Made part of a job with
/// [`Keyed::connect`](crate::runtime::Keyed::connect).
///
/// Between the two inputs there is no order. The methods that both kinds of operators have are those of
/// [`Operator`](crate::runtime::Operator).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operator on these two inputs (key `{K}`, left `{L}`, right `{R}`)",
    note = "implement `TwoInputOperator<{K}, {L}, {R}>` for it"
)]
pub trait TwoInputOperator<K: ?Sized, L: ?Sized, R: ?Sized> {
    /// The key type of the records pushed on.
    type OutKey: ?Sized;
    /// The value type of the records pushed on.
    type Out: ?Sized;
    /// Whether every record pushed on has the key of the record that caused it.
    const KEEPS_KEY: bool = false;
    /// Whether the operator asks for the time.
    const USES_TIME: bool = false;
    /// Whether the operator asks for the wall clock.
    const USES_CLOCK: bool = false;

    /// Sees one record of the left input.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure); what happens then is the job's poison policy.
    fn process_left(
        &mut self,
        record: Record<'_, K, L>,
        out: &mut impl Output<Self::OutKey, Self::Out>,
    ) -> Flow;

    /// Sees one record of the right input.
    ///
    /// # Errors
    /// As [`process_left`](Self::process_left).
    fn process_right(
        &mut self,
        record: Record<'_, K, R>,
        out: &mut impl Output<Self::OutKey, Self::Out>,
    ) -> Flow;

    /// Told that no later record of either input has a time below `watermark`: the lesser of the two inputs' watermarks, which has
    /// grown since the last call (I13), and is [`Timestamp::MAX`] once both have ended.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure), which ends the attempt.
    fn on_watermark(
        &mut self,
        _watermark: Timestamp,
        _out: &mut impl Output<Self::OutKey, Self::Out>,
    ) -> Flow {
        Ok(())
    }

    /// Told what the wall clock says; see [`Operator::on_clock`](crate::runtime::Operator::on_clock).
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

    /// The watermark of what the operator pushes: see [`Operator::output_watermark`](crate::runtime::Operator::output_watermark).
    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        watermark
    }

    /// Called when a cycle closes and every record of it was processed, of both inputs; may push more.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure), which aborts the cycle.
    fn end_cycle(&mut self, _out: &mut impl Output<Self::OutKey, Self::Out>) -> Flow {
        Ok(())
    }
}

/// The number of inputs.
const PORTS: usize = 2;
const LEFT: usize = 0;
const RIGHT: usize = 1;

/// An operator behind two chains, with what follows it.
pub(crate) struct TwoInputStep<O, D> {
    operator: O,
    /// The streams beside the one that leads on.
    sides: Vec<SharedStage>,
    down: D,
    /// The time over both inputs.
    clock: EventClock,
    time: StepTime,
    /// Inputs that have ended the cycle.
    ended: usize,
}

impl<O, D> TwoInputStep<O, D> {
    pub(crate) fn new(operator: O, sides: Vec<SharedStage>, down: D) -> Self {
        let mut clock = EventClock::new(Timestamp::MIN);
        for port in 0..PORTS {
            // One that was never heard of holds the other.
            assert_eq!(
                clock.add(Timestamp::MIN),
                port,
                "ports are numbered as inputs"
            );
        }
        Self {
            operator,
            sides,
            down,
            clock,
            time: StepTime::default(),
            ended: 0,
        }
    }

    /// Takes what a port was told; tells the operator and all behind it what both together say.
    fn signal<K, L, R>(&mut self, port: usize, signal: Signal) -> Flow
    where
        K: ?Sized,
        L: ?Sized,
        R: ?Sized,
        O: TwoInputOperator<K, L, R>,
        D: Stage<O::OutKey, O::Out>,
    {
        match signal {
            Signal::Time(told) => {
                let advance = self.clock.step_to(port, told);
                if let Some(watermark) = advance.and_then(|advance| self.time.hear(advance)) {
                    self.operator.on_watermark(watermark, &mut self.down)?;
                }
            }
            // Every chain of a worker is told of the same clock.
            Signal::Clock(_) if port != LEFT => return Ok(()),
            Signal::Clock(now) => {
                if O::USES_CLOCK {
                    self.operator.on_clock(now, &mut self.down)?;
                }
            }
            Signal::EndOfCycle => {
                self.ended += 1;
                if self.ended < PORTS {
                    return Ok(());
                }
                self.ended = 0;
                self.operator.end_cycle(&mut self.down)?;
            }
        }
        let operator = &self.operator;
        let output = |heard| operator.output_watermark(heard);
        if let Some(time) = self.time.tell(false, output) {
            tell_all(&self.sides, &mut self.down, time)?;
        }
        match signal {
            Signal::Time(_) => Ok(()),
            Signal::Clock(_) | Signal::EndOfCycle => tell_all(&self.sides, &mut self.down, signal),
        }
    }
}

/// One worker's instance, shared by its two ports, which are on one thread.
pub(crate) type SharedStep<O, D> = Rc<RefCell<TwoInputStep<O, D>>>;

/// The end of the left input's chain.
pub(crate) struct LeftPort<O, D, R: ?Sized> {
    step: SharedStep<O, D>,
    other: PhantomData<fn(&R)>,
}

/// The end of the right input's chain.
pub(crate) struct RightPort<O, D, L: ?Sized> {
    step: SharedStep<O, D>,
    other: PhantomData<fn(&L)>,
}

impl<O, D, R: ?Sized> LeftPort<O, D, R> {
    pub(crate) fn new(step: SharedStep<O, D>) -> Self {
        Self {
            step,
            other: PhantomData,
        }
    }
}

impl<O, D, L: ?Sized> RightPort<O, D, L> {
    pub(crate) fn new(step: SharedStep<O, D>) -> Self {
        Self {
            step,
            other: PhantomData,
        }
    }
}

impl<K: ?Sized, L: ?Sized, R: ?Sized, O, D> Output<K, L> for LeftPort<O, D, R>
where
    O: TwoInputOperator<K, L, R>,
    D: Output<O::OutKey, O::Out>,
{
    #[inline]
    fn push(&mut self, record: Record<'_, K, L>) -> Flow {
        let TwoInputStep { operator, down, .. } = &mut *self.step.borrow_mut();
        match O::KEEPS_KEY {
            true => operator.process_left(record, &mut SameKey::new(&record.key, down)),
            false => operator.process_left(record, down),
        }
    }
}

impl<K: ?Sized, L: ?Sized, R: ?Sized, O, D> Output<K, R> for RightPort<O, D, L>
where
    O: TwoInputOperator<K, L, R>,
    D: Output<O::OutKey, O::Out>,
{
    #[inline]
    fn push(&mut self, record: Record<'_, K, R>) -> Flow {
        let TwoInputStep { operator, down, .. } = &mut *self.step.borrow_mut();
        match O::KEEPS_KEY {
            true => operator.process_right(record, &mut SameKey::new(&record.key, down)),
            false => operator.process_right(record, down),
        }
    }
}

impl<K: ?Sized, L: ?Sized, R: ?Sized, O, D> Stage<K, L> for LeftPort<O, D, R>
where
    O: TwoInputOperator<K, L, R>,
    D: Stage<O::OutKey, O::Out>,
{
    fn signal(&mut self, signal: Signal) -> Flow {
        self.step.borrow_mut().signal::<K, L, R>(LEFT, signal)
    }
}

impl<K: ?Sized, L: ?Sized, R: ?Sized, O, D> Stage<K, R> for RightPort<O, D, L>
where
    O: TwoInputOperator<K, L, R>,
    D: Stage<O::OutKey, O::Out>,
{
    fn signal(&mut self, signal: Signal) -> Flow {
        self.step.borrow_mut().signal::<K, L, R>(RIGHT, signal)
    }
}
