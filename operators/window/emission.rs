//! When windows give results.

use crate::codec::Datum;
use crate::runtime::{Keyed, Upstream};

/// When a window gives results, and so of what type they are: [`OnClose`], [`OnUpdate`] or [`Every`](super::Every).
pub trait Emission: Clone + Send + Sync + 'static {
    /// The type of a result, for windows with such states.
    type Of<S: Clone + 'static>: 'static;
    /// Whether each change of a window is a result.
    const IS_ON_UPDATE: bool;

    /// Hands the result that a state stands for to `give`.
    fn with<S: Clone + 'static, R>(state: &S, give: impl FnOnce(&Self::Of<S>) -> R) -> R;

    /// The result with another state.
    fn map<S: Clone + 'static, R: Clone + 'static>(
        result: &Self::Of<S>,
        function: impl FnOnce(&S) -> R,
    ) -> Self::Of<R>;

    /// The result that says that a window is no more, if there is such a result.
    fn gone<S: Clone + 'static>() -> Option<Self::Of<S>>;

    /// Puts behind the windows that keep the store `name` what holds their results back.
    #[track_caller]
    fn finish<K, S, Up>(
        self,
        name: &str,
        results: Keyed<K, Self::Of<S>, Up>,
    ) -> Keyed<K, Self::Of<S>, impl Upstream<K, Self::Of<S>>>
    where
        K: Datum + ?Sized,
        S: Datum + Clone,
        Up: Upstream<K, Self::Of<S>>;
}

/// A window gives its result once, when it closes.
#[derive(Debug, Clone, Copy)]
pub struct OnClose;

/// Each change of a window is a result: the whole of it so far, or `None` if the window is no more.
#[derive(Debug, Clone, Copy)]
pub struct OnUpdate;

impl Emission for OnClose {
    type Of<S: Clone + 'static> = S;
    const IS_ON_UPDATE: bool = false;

    fn with<S: Clone + 'static, R>(state: &S, give: impl FnOnce(&S) -> R) -> R {
        give(state)
    }

    fn map<S: Clone + 'static, R: Clone + 'static>(
        result: &S,
        function: impl FnOnce(&S) -> R,
    ) -> R {
        function(result)
    }

    fn gone<S: Clone + 'static>() -> Option<S> {
        None
    }

    fn finish<K, S, Up>(
        self,
        _name: &str,
        results: Keyed<K, S, Up>,
    ) -> Keyed<K, S, impl Upstream<K, S>>
    where
        K: Datum + ?Sized,
        S: Datum + Clone,
        Up: Upstream<K, S>,
    {
        results
    }
}

impl Emission for OnUpdate {
    type Of<S: Clone + 'static> = Option<S>;
    const IS_ON_UPDATE: bool = true;

    fn with<S: Clone + 'static, R>(state: &S, give: impl FnOnce(&Option<S>) -> R) -> R {
        give(&Some(state.clone()))
    }

    fn map<S: Clone + 'static, R: Clone + 'static>(
        result: &Option<S>,
        function: impl FnOnce(&S) -> R,
    ) -> Option<R> {
        result.as_ref().map(function)
    }

    fn gone<S: Clone + 'static>() -> Option<Option<S>> {
        Some(None)
    }

    fn finish<K, S, Up>(
        self,
        _name: &str,
        results: Keyed<K, Option<S>, Up>,
    ) -> Keyed<K, Option<S>, impl Upstream<K, Option<S>>>
    where
        K: Datum + ?Sized,
        S: Datum + Clone,
        Up: Upstream<K, Option<S>>,
    {
        results
    }
}
