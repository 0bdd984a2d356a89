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

/// What a step answers: go on, or why not.
pub type Flow = Result<(), Failure>;

/// Where an operator pushes its results.
pub trait Output<K: ?Sized, V: ?Sized> {
    /// Hands a record to the next step.
    ///
    /// # Errors
    /// What the steps behind it answer; an operator passes it up with `?`.
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

    /// The watermark of what the operator pushes: less than that of its input if it holds records back, or gives results an
    /// earlier time.
    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        watermark
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
}

/// What the runtime asks of a fused chain besides pushing records.
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
        let signal = match signal {
            Signal::Time(advance) => {
                let watermark = advance.watermark;
                // An input that is idle before its first record has no time to tell of.
                if watermark > Timestamp::MIN {
                    self.operator.on_watermark(watermark, &mut self.down)?;
                }
                Signal::Time(Advance {
                    watermark: self.operator.output_watermark(watermark),
                    ..advance
                })
            }
            Signal::Clock(now) => {
                if O::USES_CLOCK {
                    self.operator.on_clock(now, &mut self.down)?;
                }
                signal
            }
            Signal::EndOfCycle => {
                self.operator.end_cycle(&mut self.down)?;
                signal
            }
        };
        for side in &self.sides {
            side.signal(signal)?;
        }
        self.down.signal(signal)
    }
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
