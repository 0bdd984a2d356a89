//! State that earlier builds of a job kept: how a step says under which name, and how its values are read.

use super::stream::{Keyed, Upstream};
use crate::codec::Datum;

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
    /// older build, once this one has written. `New` is what the store holds, which of a window is the state of its aggregate.
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
        match self.place.node_in_front() {
            Some(node) => self.graph.migrate(node, version, convert),
            None => self.graph.add_fault(format!(
                "`.migrate_from({version}, …)` stands behind no single step: put it right behind the one whose values it reads"
            )),
        }
        self
    }
}
