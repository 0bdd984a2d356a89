//! The stores of a worker: opened by operators, visited by the worker at the end of each cycle.
//!
//! Opening a store registers it, so that no operator can have one whose changes are never committed.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::changelog::Changelog;
use super::context::{JobContext, OperatorContext};
use super::ordered_store::is_ordered_key;
use super::timed_store::is_timed_key;
use crate::codec::{Datum, StoredVersions, TypeIdentity, Versioned};
use crate::runtime::contract::error::Failure;
use crate::runtime::contract::operator::Flow;
use crate::runtime::contract::record::Key;
use crate::state::{CycleStore, Store};

/// A store whose values may be of any type, shared by its operator and its worker, which are on one thread.
pub(crate) type SharedStore = Rc<RefCell<dyn CycleStore>>;

/// Which kind of store an operator opens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoreKind<'a> {
    /// One value for each key.
    Values,
    /// Values and timers with times.
    Timed,
    /// Values in an order, which the schema's key begins with.
    Ordered(&'a str),
}

impl StoreKind<'_> {
    /// Whether a store with keys of this type was declared as one of the kind.
    pub(crate) fn fits(self, key: &TypeIdentity) -> bool {
        match self {
            Self::Values => !is_timed_key(key) && !is_ordered_key(key),
            Self::Timed => is_timed_key(key),
            Self::Ordered(order) => {
                let behind = key.as_str().strip_prefix(order);
                behind.is_some_and(|behind| behind.starts_with(": "))
            }
        }
    }
}

/// An open store with its changelog.
pub(crate) struct OpenStore {
    pub(crate) store: SharedStore,
    pub(crate) changelog: Changelog,
    /// Whether the operator that changes it was made; who only reads it may be made before.
    pub(crate) has_owner: bool,
    /// The same store, with its type.
    typed: Rc<dyn Any>,
}

impl OpenStore {
    pub(crate) fn new<R: Clone + Send + 'static>(
        store: &Rc<RefCell<Store<R>>>,
        changelog: Changelog,
    ) -> Self {
        Self {
            store: Rc::clone(store) as SharedStore,
            changelog,
            has_owner: true,
            typed: Rc::clone(store) as Rc<dyn Any>,
        }
    }

    /// The store, if its rows are of this type.
    pub(crate) fn typed<R: 'static>(&self) -> Option<Rc<RefCell<Store<R>>>> {
        Rc::clone(&self.typed).downcast().ok()
    }
}

impl JobContext {
    /// The versions of a store's values.
    pub(crate) fn versions_of(&self, store: &str) -> StoredVersions {
        StoredVersions {
            earlier: self.versions.get(store).map(Arc::clone),
            are_told_apart: self.backend.are_told_apart(store),
        }
    }
}

impl OperatorContext {
    /// Returns the job's state partitions.
    #[must_use]
    pub fn state_partitions(&self) -> u16 {
        self.job.state_partitions
    }

    /// The codec of a store's values, which reads their earlier versions, too.
    pub(super) fn codec_of<V: Datum + ?Sized>(&self, name: &str) -> Versioned<V::DefaultCodec> {
        let first = self.job.renamed.get(name).map_or(name, String::as_str);
        Versioned::new(V::DefaultCodec::default(), self.job.versions_of(first))
    }
}

/// One value for each key: this worker's part of a named store, as its operator sees it. Made by
/// [`OperatorContext::store`](crate::runtime::OperatorContext::store).
///
/// Changes belong to the open cycle: they are committed with its results and positions, or none of them is.
pub struct KeyValueStore<V> {
    store: Rc<RefCell<Store<V>>>,
}

impl<V: Clone + Send + 'static> KeyValueStore<V> {
    pub(crate) fn new(store: Rc<RefCell<Store<V>>>) -> Self {
        Self { store }
    }

    /// Changes the value of a key; `None` is absent. Returns what `change` returns.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    ///
    /// # Panics
    /// If the key belongs to another worker: only the keys of records that an operator is given are its own.
    #[inline]
    pub fn update<K: ?Sized, R>(
        &mut self,
        key: Key<'_, K>,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, Failure> {
        let key = key.hashed();
        Ok(self.store.borrow_mut().update(key, change)?)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    pub fn get<K: ?Sized>(&self, key: Key<'_, K>) -> Result<Option<V>, Failure> {
        let key = key.hashed();
        Ok(self.store.borrow_mut().get(key)?.cloned())
    }

    /// Shows the value of a key to `see`.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    pub fn look<K: ?Sized>(&self, key: Key<'_, K>, see: impl FnOnce(Option<&V>)) -> Flow {
        see(self.store.borrow_mut().get(key.hashed())?);
        Ok(())
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// # Panics
    /// As [`update`](Self::update).
    pub fn put<K: ?Sized>(&mut self, key: Key<'_, K>, value: V) -> Result<(), Failure> {
        self.update(key, |stored| *stored = Some(value))
    }

    /// Removes the value of a key, and returns it.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// # Panics
    /// As [`update`](Self::update).
    pub fn remove<K: ?Sized>(&mut self, key: Key<'_, K>) -> Result<Option<V>, Failure> {
        self.update(key, Option::take)
    }
}
