//! The store of a table: who changes it, and who reads it beside.

use std::sync::Arc;

use super::context::OperatorContext;
use super::stores::KeyValueStore;
use crate::codec::Datum;
use crate::runtime::contract::change::Change;
use crate::runtime::contract::error::{Failure, JobError};
use crate::runtime::contract::operator::Flow;
use crate::runtime::contract::record::Key;

/// One worker's part of the store of a table, for the operator that makes the table. Made by [`OperatorContext::table_store`].
pub struct TableStore<V> {
    store: KeyValueStore<V>,
    /// Whether somebody behind asks for old values, or reads the store.
    is_shared: bool,
}

impl<V: Clone + Send + 'static> TableStore<V> {
    /// Shows the value of a key to `see`.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    pub fn look<K: ?Sized>(&self, key: Key<'_, K>, see: impl FnOnce(Option<&V>)) -> Flow {
        self.store.look(key, see)
    }

    /// Changes the value of a key; `None` is absent. Gives the change to `push`, unless there was nothing and there is nothing. The old
    /// value is in it where somebody behind asks for it.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk, or what `push` answers.
    ///
    /// # Panics
    /// If the key belongs to another worker: only the keys of records that an operator is given are its own.
    #[inline]
    pub fn change<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        change: impl FnOnce(&mut Option<V>),
        push: impl FnOnce(&Change<V>) -> Flow,
    ) -> Flow {
        if self.is_shared {
            let (old, new) = self.store.update(key, |state| {
                let old = state.clone();
                change(state);
                (old, state.clone())
            })?;
            return match old.is_some() || new.is_some() {
                true => push(&Change { old, new }),
                false => Ok(()),
            };
        }
        self.store.update(key, |state| {
            let was_there = state.is_some();
            change(state);
            // Lent to those behind, so that nothing is copied.
            let change = Change {
                old: None,
                new: state.take(),
            };
            let flow = match was_there || change.new.is_some() {
                true => push(&change),
                false => Ok(()),
            };
            *state = change.new;
            flow
        })?
    }
}

/// Shows the value of a key, if it has one.
type Look<K, V> = Box<dyn FnMut(Key<'_, K>, &mut dyn FnMut(&V)) -> Flow>;

/// Makes one worker's way to the values of a table.
type MakeLook<K, V> =
    Arc<dyn Fn(&mut OperatorContext) -> Result<Look<K, V>, JobError> + Send + Sync>;

/// A table's values as an operator elsewhere in the job reads them: opened on each worker with [`open`](Self::open), where records are
/// together by the table's key. Made by [`Table::view`](crate::runtime::Table::view).
pub struct TableView<K: ?Sized, V> {
    make: MakeLook<K, V>,
    /// The stores that are read.
    stores: Vec<String>,
}

impl<K: ?Sized, V> Clone for TableView<K, V> {
    fn clone(&self) -> Self {
        Self {
            make: Arc::clone(&self.make),
            stores: self.stores.clone(),
        }
    }
}

impl<K: ?Sized + 'static, V: Datum + Clone> TableView<K, V> {
    /// The values of the store `name`, which the table's operator opens with [`OperatorContext::table_store`].
    #[must_use]
    pub fn of_store(name: &str) -> Self {
        let store = name.to_owned();
        Self {
            stores: vec![store.clone()],
            make: Arc::new(move |context| {
                let store: KeyValueStore<V> = context.store_to_read(&store)?;
                Ok(Box::new(move |key, see| {
                    store.look(key, |value| value.map_or((), see))
                }))
            }),
        }
    }
}

impl<K: ?Sized + 'static, V: 'static> TableView<K, V> {
    /// The stores that are read.
    pub(crate) fn stores(&self) -> &[String] {
        &self.stores
    }

    /// The values that `map` makes of these, where it makes one.
    #[must_use]
    pub fn filter_map<W: 'static>(
        &self,
        map: impl Fn(&V) -> Option<W> + Clone + Send + Sync + 'static,
    ) -> TableView<K, W> {
        let make = Arc::clone(&self.make);
        TableView {
            stores: self.stores.clone(),
            make: Arc::new(move |context| {
                let (mut look, map) = (make(context)?, map.clone());
                Ok(Box::new(move |key, see| {
                    look(key, &mut |value| map(value).iter().for_each(&mut *see))
                }))
            }),
        }
    }

    /// The values that `join` makes of what a key has here and there: called where it has a value in one of them at least.
    ///
    /// # Panics
    /// If both read one store.
    #[must_use]
    pub fn join<W: 'static, U: 'static>(
        &self,
        other: &TableView<K, W>,
        join: impl Fn(Option<&V>, Option<&W>) -> Option<U> + Clone + Send + Sync + 'static,
    ) -> TableView<K, U>
    where
        V: Clone,
    {
        if let Some(store) = self.stores.iter().find(|it| other.stores.contains(it)) {
            // A change of the store is one of both: neither side's could say what the result was before.
            panic!(
                "a view of two tables cannot read the store {store:?} twice: keep one of them in a store of its own, with \
                 `.changes().to_table(name)`"
            );
        }
        let (make, make_other) = (Arc::clone(&self.make), Arc::clone(&other.make));
        TableView {
            stores: [&self.stores[..], &other.stores[..]].concat(),
            make: Arc::new(move |context| {
                let (mut look, mut look_other) = (make(context)?, make_other(context)?);
                let join = join.clone();
                Ok(Box::new(move |key, see| {
                    // One after the other: both may be in one store.
                    let (mut here, mut is_there, mut result) = (None::<V>, false, None);
                    look(key, &mut |value| here = Some(value.clone()))?;
                    look_other(key, &mut |there| {
                        is_there = true;
                        result = join(here.as_ref(), Some(there));
                    })?;
                    if !is_there && here.is_some() {
                        result = join(here.as_ref(), None);
                    }
                    result.iter().for_each(see);
                    Ok(())
                }))
            }),
        }
    }

    /// Opens one worker's way to the values.
    ///
    /// # Errors
    /// If a store cannot be opened.
    pub fn open(&self, context: &mut OperatorContext) -> Result<TableReader<K, V>, JobError> {
        Ok(TableReader {
            look: (self.make)(context)?,
        })
    }
}

/// One worker's way to the values of a table: the state of the open cycle. Made by [`TableView::open`].
pub struct TableReader<K: ?Sized, V> {
    look: Look<K, V>,
}

impl<K: ?Sized, V> TableReader<K, V> {
    /// Shows the value of a key to `see`; returns what that returns.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    #[inline]
    pub fn get<T>(
        &mut self,
        key: Key<'_, K>,
        see: impl FnOnce(Option<&V>) -> T,
    ) -> Result<T, Failure> {
        let (mut see, mut seen) = (Some(see), None);
        (self.look)(key, &mut |value| {
            if let Some(see) = see.take() {
                seen = Some(see(Some(value)));
            }
        })?;
        Ok(match (see, seen) {
            (_, Some(seen)) => seen,
            (Some(see), None) => see(None),
            (None, None) => unreachable!("who saw a value answered"),
        })
    }
}

impl OperatorContext {
    /// Opens this worker's part of the store of a table, which was declared with
    /// [`Keyed::with_store`](crate::runtime::Keyed::with_store), for the operator that makes the table. See [`store`](Self::store).
    ///
    /// # Errors
    /// As [`store`](Self::store).
    pub fn table_store<V: Datum + Sized + Clone>(
        &mut self,
        name: &str,
    ) -> Result<TableStore<V>, JobError> {
        Ok(TableStore {
            store: self.store(name)?,
            is_shared: self.is_table_shared(name),
        })
    }

    /// Whether somebody behind the table of a store asks for the old values of its changes, or reads the store: then its operator pushes
    /// changes with both values, while it does not have its hands on the store.
    #[must_use]
    pub fn is_table_shared(&self, name: &str) -> bool {
        self.job().shared_stores.contains(name)
    }
}
