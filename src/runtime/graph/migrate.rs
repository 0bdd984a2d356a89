//! State that earlier builds of a job kept: how a step says under which name, and how its values are read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::connect::Connected;
use super::stream::{Keyed, Upstream};
use super::topology::{Graph, Topology};
use crate::codec::{Datum, Parts, Schema, ValueVersions};

impl Graph {
    /// The owner of a store says where its values have a user's in them.
    fn show_parts(&self, store: &str, parts: Parts) {
        self.change(|topology| topology.parts.insert(store.to_owned(), parts));
    }

    /// Earlier builds kept values of `version` in the stores of the node, or in the one of that name, which were `Old` and are read as
    /// `New`, or had parts of that type.
    fn migrate<Old, New>(
        &self,
        node: usize,
        only: Option<&str>,
        version: u8,
        convert: impl Fn(Old) -> New + Send + Sync + 'static,
    ) where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        let node = self.step_of(node);
        self.change(|topology| {
            let of_step = topology.stores_of_step(node);
            let fitting = of_step.iter().filter(|name| topology.holds::<New>(name));
            let fitting = fitting.filter(|name| only.is_none_or(|only| only == name.as_str()));
            let fitting: Vec<String> = fitting.cloned().collect();
            if fitting.is_empty() {
                let why = topology.no_store_for::<New>(version, only, &of_step);
                topology.faults.push(why);
            }
            let convert = Arc::new(convert);
            for store in fitting {
                let convert = Arc::clone(&convert);
                topology.read_version(&store, version, move |old: Old| convert(old));
            }
        });
    }
}

impl Topology {
    /// The stores of a node, and of others of the same name, which are parts of one step.
    fn stores_of_step(&self, node: usize) -> BTreeSet<String> {
        let Some(node) = self.nodes.get(node) else {
            return BTreeSet::new();
        };
        let of_name = |name| self.nodes.iter().filter(move |it| it.name == name);
        let named = node.name.is_some().then(|| of_name(node.name.clone()));
        let nodes = named.into_iter().flatten().chain([node]);
        nodes.flat_map(|node| node.stores.iter().cloned()).collect()
    }

    /// Whether the values of a store are of this type, or have parts of it.
    fn holds<New: Datum + Sized>(&self, store: &str) -> bool {
        match self.parts.get(store) {
            Some(parts) if !parts.of_type::<New>().is_empty() => true,
            _ => {
                let schema = self.stores.get(store);
                schema.is_some_and(|it| it.value == New::identity())
            }
        }
    }

    /// Says why no store of a step has such values.
    fn no_store_for<New: Datum>(
        &self,
        version: u8,
        only: Option<&str>,
        of_step: &BTreeSet<String>,
    ) -> String {
        let held = of_step.iter().filter_map(|name| {
            let of_values = |schema: &Schema| vec![schema.value.to_string()];
            let of_parts = |parts: &Parts| parts.types().iter().map(ToString::to_string).collect();
            let types: Vec<String> = match self.parts.get(name) {
                Some(parts) => of_parts(parts),
                None => of_values(self.stores.get(name)?),
            };
            Some(format!("{name:?} of {}", types.join(" and ")))
        });
        let held: Vec<String> = held.collect();
        let of_that_name = only.map_or(String::new(), |only| format!(" called {only:?}"));
        format!(
            "`.migrate_from({version}, …)` makes values of the type {}, and the step in front of it has no store{of_that_name} with such \
             values (it has: {}): put it right behind the step, and let it make what one of its stores holds",
            New::identity(),
            held.join(", ")
        )
    }

    /// A store may have values of an earlier version.
    fn read_version<Old, New>(
        &mut self,
        store: &str,
        version: u8,
        convert: impl Fn(Old) -> New + Send + Sync + 'static,
    ) where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        let Some(schema) = self.stores.get_mut(store) else {
            return;
        };
        let parts = self.parts.get(store);
        let parts = parts.filter(|parts| !parts.of_type::<New>().is_empty());
        if parts.is_some_and(|parts| !parts.make_up(&schema.value)) {
            self.faults.push(format!(
                "the store {store:?} keeps values of the type {}, which is so long, or has itself in it in such a way, that it is not known \
                 how the step keeps an earlier one: give the step a new name, and fill its store from the input",
                New::identity()
            ));
            return;
        }
        let versions = self.versions.entry(store.to_owned());
        let versions = versions.or_insert_with(|| {
            let of_parts = parts.cloned().map(ValueVersions::of_parts);
            Arc::new(of_parts.unwrap_or_default())
        });
        let versions = Arc::make_mut(versions);
        match versions.read(version, convert) {
            Ok(()) => {
                schema.value_version = versions.current();
                schema.earlier = versions.earlier();
            }
            Err(why) => self.faults.push(format!("the store {store:?}: {why}")),
        }
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static, U: Upstream<K, V>> Keyed<K, V, U> {
    /// Says that the step in front was called `first` when the job first ran, and has another name now: its state, its changelog and
    /// its repartition topic are those of the first name. The name in the program is the one that is shown.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("parity");
    /// job.source(values("n", 0..10u64)).key_by(|n| n % 2).count("per-parity").was("counts").changes().sink(topic("out"));
    /// assert_eq!(job.topics()?[1].name.as_str(), "parity-counts-changelog");
    /// # Ok::<(), onceflow::prelude::JobError>(())
    /// ```
    pub fn was(self, first: &str) -> Self {
        self.graph.rename_last(&self.place, first);
        self
    }

    /// Says how values are read that the step in front kept when they were of `version`: as `Old`, which is converted. Values without a
    /// version are of version 1; from now on the step writes the version behind the last one that is named. A value is converted each
    /// time it is read, and written back in its new form when it next changes.
    ///
    /// Leave it there: the store may have such values for as long as it lives, and a build that does not read them is refused. So is an
    /// older build, once this one has written.
    ///
    /// `New` is the type of values as the step takes them in: of a join those of a side, of `map_async`, `effect` and `sorted_by_time`
    /// those that wait; of a window it is the state of its aggregate. It holds for all stores of the step that have such values;
    /// [`migrate_store_from`](Self::migrate_store_from) is for one of several. `docs/upgrades.md` has a list.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct First { cents: i64 }
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Second { currency: String, cents: i64 }
    /// /// As it is now.
    /// #[derive(Clone, Default, Serialize, Deserialize)]
    /// struct Account { currency: String, cents: i64, payments: u64 }
    ///
    /// impl From<First> for Second {
    ///     fn from(old: First) -> Self { Self { currency: "EUR".into(), cents: old.cents } }
    /// }
    /// impl From<Second> for Account {
    ///     fn from(old: Second) -> Self { Self { currency: old.currency, cents: old.cents, payments: 0 } }
    /// }
    ///
    /// let job = Job::new("accounts");
    /// job.keyed_source(keyed_topic::<str, i64>("payments"))
    ///     .aggregate("accounts", Account::default, |account, cents| {
    ///         account.cents += cents;
    ///         account.payments += 1;
    ///     })
    ///     .migrate_from(1, |old: First| Account::from(Second::from(old)))
    ///     .migrate_from(2, |old: Second| Account::from(old))
    ///     .changes()
    ///     .sink(topic("balances"));
    /// # job.topics().map(drop)
    /// # ; Ok::<(), onceflow::prelude::JobError>(())
    /// ```
    pub fn migrate_from<Old, New>(
        self,
        version: u8,
        convert: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Self
    where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        self.migrated(None, version, convert)
    }

    /// As [`migrate_from`](Self::migrate_from), for the values of one store of the step: a join of two streams of one type has them in
    /// `<name>-left` and `<name>-right`, and one of them may have had another type before.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("pairs");
    /// let left = job.keyed_source(keyed_topic::<u64, u64>("left"));
    /// let right = job.keyed_source(keyed_topic::<u64, u64>("right"));
    /// // The values on the left were shorter once.
    /// left.join("pairs", right)
    ///     .within(Duration::from_secs(60), Duration::ZERO)
    ///     .inner(|left, right| (*left, *right))
    ///     .migrate_store_from("pairs-left", 1, |old: u32| u64::from(old))
    ///     .sink(topic("pairs"));
    /// # job.topics().map(drop)
    /// # ; Ok::<(), onceflow::prelude::JobError>(())
    /// ```
    pub fn migrate_store_from<Old, New>(
        self,
        store: &str,
        version: u8,
        convert: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Self
    where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        self.migrated(Some(store), version, convert)
    }

    fn migrated<Old, New>(
        self,
        store: Option<&str>,
        version: u8,
        convert: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Self
    where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        match self.place.node_in_front() {
            Some(node) => self.graph.migrate(node, store, version, convert),
            None => self.graph.add_fault(format!(
                "`.migrate_from({version}, …)` stands behind no single step: put it right behind the one whose values it reads"
            )),
        }
        self
    }

    /// Says where the values of the store `name`, which was declared in front, have a user's values in them.
    pub(crate) fn with_parts(self, name: &str, parts: Parts) -> Self {
        self.graph.show_parts(name, parts);
        self
    }
}

impl<K, L, R, A, B> Connected<K, L, R, A, B>
where
    K: Datum + ?Sized,
    L: Datum + ?Sized,
    R: Datum + ?Sized,
    A: Upstream<K, L>,
    B: Upstream<K, R>,
{
    /// As [`Keyed::with_parts`].
    pub(crate) fn with_parts(self, name: &str, parts: Parts) -> Self {
        self.left_graph().show_parts(name, parts);
        self
    }
}
