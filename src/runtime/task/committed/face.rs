//! The face of a store: how its rows are shown to who has not their types.

use std::any::Any;
use std::borrow::Borrow;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use super::{QueryError, TimedRows, View};
use crate::codec::{Codec, CodecError, Datum, Schema, SortKey};
use crate::runtime::contract::window::Window;
use crate::types::Timestamp;

/// Values of one type, or places of one order, as JSON, and back.
#[derive(Clone, Copy)]
pub(crate) struct JsonOf {
    pub(crate) to_json: fn(&[u8]) -> Result<Value, CodecError>,
    pub(crate) from_json: fn(&Value) -> Result<Vec<u8>, CodecError>,
}

impl JsonOf {
    fn of<T: Datum + ?Sized>() -> Self {
        Self {
            to_json: T::to_json,
            from_json: T::from_json,
        }
    }
}

/// A kind of stores.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// One value for each key.
    Values,
    /// Values with times.
    Timed,
    /// Values of each key in an order, whose places these are.
    Ordered(JsonOf),
}

/// View of a store's rows.
#[derive(Clone)]
pub(crate) struct Face {
    pub(crate) kind: Kind,
    pub(crate) key: JsonOf,
    pub(crate) value: JsonOf,
    /// The windows that its owner holds in it, if it says how they are read.
    pub(crate) windows: Option<WindowsFace>,
}

impl Face {
    fn new<K: Datum + ?Sized, V: Datum + ?Sized>(kind: Kind) -> Self {
        Self {
            kind,
            key: JsonOf::of::<K>(),
            value: JsonOf::of::<V>(),
            windows: None,
        }
    }

    pub(crate) fn values<K: Datum + ?Sized, V: Datum + ?Sized>() -> Self {
        Self::new::<K, V>(Kind::Values)
    }

    pub(crate) fn timed<K: Datum + ?Sized, V: Datum + ?Sized>() -> Self {
        Self::new::<K, V>(Kind::Timed)
    }

    pub(crate) fn ordered<K, S, V>() -> Self
    where
        K: Datum + ?Sized,
        S: SortKey,
        V: Datum + ?Sized,
    {
        Self::new::<K, V>(Kind::Ordered(JsonOf {
            to_json: |mut bytes| Ok(S::decode_sorted(&mut bytes)?.place_to_json()),
            from_json: |json| {
                let mut bytes = Vec::new();
                S::place_from_json(json)?.encode_sorted(&mut bytes);
                Ok(bytes)
            },
        }))
    }
}

/// Windows of a key, with the state of each.
type States<A> = Vec<(Window, A)>;

/// Reads the windows of a key that are open in a store and have some of these times.
pub(crate) type ReadOpenWindows<K, A> = Arc<
    dyn Fn(&View<'_>, &Arc<str>, &K, &Range<Timestamp>) -> Result<States<A>, QueryError>
        + Send
        + Sync,
>;

/// The same for who has not the types: the key as bytes, the states as JSON.
type ShowOpenWindows = Arc<
    dyn Fn(&View<'_>, &Arc<str>, &[u8], &Range<Timestamp>) -> Result<States<Value>, QueryError>
        + Send
        + Sync,
>;

/// View of the windows that are open.
#[derive(Clone)]
pub(crate) struct WindowsFace {
    /// The types of keys and states.
    pub(crate) schema: Schema,
    /// A [`ReadOpenWindows`].
    typed: Arc<dyn Any + Send + Sync>,
    pub(crate) show: ShowOpenWindows,
}

impl WindowsFace {
    /// `read` reads the windows of a key from the rows of its store.
    pub(crate) fn new<K, S, A>(
        read: impl Fn(
            &View<'_>,
            &TimedRows<K, S>,
            &K,
            &Range<Timestamp>,
        ) -> Result<States<A>, QueryError>
        + Send
        + Sync
        + 'static,
    ) -> Self
    where
        K: Datum + ?Sized,
        S: 'static,
        A: Datum + Clone,
        A::DefaultCodec: Codec<A>,
    {
        let typed: ReadOpenWindows<K, A> = Arc::new(move |view, store, key, times| {
            read(view, &TimedRows::new(Arc::clone(store)), key, times)
        });
        let read = Arc::clone(&typed);
        let show: ShowOpenWindows = Arc::new(move |view, store, key, times| {
            let key = K::DefaultCodec::default().decode(key)?.into_owned();
            let states = read(view, store, key.borrow(), times)?.into_iter();
            let shown = states.map(|(window, state)| {
                let mut bytes = Vec::new();
                A::DefaultCodec::default().encode(&state, &mut bytes)?;
                Ok((window, A::to_json(&bytes)?))
            });
            shown.collect()
        });
        Self {
            schema: Schema::of::<K, A>(),
            typed: Arc::new(typed),
            show,
        }
    }

    /// The way to read them, if those are the types.
    pub(crate) fn typed<K: ?Sized + 'static, A: 'static>(&self) -> Option<ReadOpenWindows<K, A>> {
        self.typed.downcast_ref::<ReadOpenWindows<K, A>>().cloned()
    }
}
