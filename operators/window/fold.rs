//! Folds: how the values of a window become its result.

use std::marker::PhantomData;

use crate::codec::Datum;

/// Fold of a window's values. It must not matter which two states are merged first.
///
/// ```
/// use onceflow::operators::WindowFold;
///
/// /// The sum of all values and how many there are.
/// #[derive(Clone)]
/// struct SumAndCount;
///
/// impl WindowFold<u64> for SumAndCount {
///     type State = (u64, u64);
///
///     fn first(&self, value: &u64) -> (u64, u64) {
///         (*value, 1)
///     }
///
///     fn add(&self, state: &mut (u64, u64), value: &u64) {
///         *state = (state.0 + value, state.1 + 1);
///     }
///
///     fn merge(&self, state: &mut (u64, u64), other: &(u64, u64)) {
///         *state = (state.0 + other.0, state.1 + other.1);
///     }
/// }
/// ```
pub trait WindowFold<V: ?Sized>: Clone + Send + Sync + 'static {
    /// The state of a window that is open, and its result.
    type State: Datum + Clone;

    /// The state of a window with one value.
    fn first(&self, value: &V) -> Self::State;

    /// Takes another value into a state.
    fn add(&self, state: &mut Self::State, value: &V);

    /// Takes another state into a state.
    fn merge(&self, state: &mut Self::State, other: &Self::State);
}

/// Number of values.
#[derive(Clone)]
pub(super) struct Count;

impl<V: ?Sized> WindowFold<V> for Count {
    type State = u64;

    fn first(&self, _: &V) -> u64 {
        1
    }

    fn add(&self, count: &mut u64, _: &V) {
        *count += 1;
    }

    fn merge(&self, count: &mut u64, other: &u64) {
        *count += other;
    }
}

/// Three functions of the user.
pub(super) struct Aggregate<A, I, F, M> {
    initial: I,
    add: F,
    merge: M,
    state: PhantomData<fn() -> A>,
}

impl<A, I, F, M> Aggregate<A, I, F, M> {
    pub(super) fn new(initial: I, add: F, merge: M) -> Self {
        Self {
            initial,
            add,
            merge,
            state: PhantomData,
        }
    }
}

impl<A, I: Clone, F: Clone, M: Clone> Clone for Aggregate<A, I, F, M> {
    fn clone(&self) -> Self {
        Self::new(self.initial.clone(), self.add.clone(), self.merge.clone())
    }
}

impl<V, A, I, F, M> WindowFold<V> for Aggregate<A, I, F, M>
where
    V: ?Sized,
    A: Datum + Clone,
    I: Fn() -> A + Clone + Send + Sync + 'static,
    F: Fn(&mut A, &V) + Clone + Send + Sync + 'static,
    M: Fn(&mut A, &A) + Clone + Send + Sync + 'static,
{
    type State = A;

    fn first(&self, value: &V) -> A {
        let mut state = (self.initial)();
        (self.add)(&mut state, value);
        state
    }

    fn add(&self, state: &mut A, value: &V) {
        (self.add)(state, value);
    }

    fn merge(&self, state: &mut A, other: &A) {
        (self.merge)(state, other);
    }
}

/// Values combined with each other.
#[derive(Clone)]
pub(super) struct Reduce<F> {
    combine: F,
}

impl<F> Reduce<F> {
    pub(super) fn new(combine: F) -> Self {
        Self { combine }
    }
}

impl<V, F> WindowFold<V> for Reduce<F>
where
    V: Datum + Clone,
    F: Fn(&mut V, &V) + Clone + Send + Sync + 'static,
{
    type State = V;

    fn first(&self, value: &V) -> V {
        value.clone()
    }

    fn add(&self, state: &mut V, value: &V) {
        (self.combine)(state, value);
    }

    fn merge(&self, state: &mut V, other: &V) {
        (self.combine)(state, other);
    }
}
