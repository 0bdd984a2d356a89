//! `process`: an operator of the user's own, behind the shuffle, with named stores.

use crate::codec::Datum;
use crate::runtime::{JobError, Keyed, Operator, OperatorContext, Upstream};

impl<K: Datum + ?Sized, V: Datum + ?Sized, Up: Upstream<K, V>> Keyed<K, V, Up> {
    /// Runs an operator of your own, called `name`, where all records of a key meet. Its stores are declared with
    /// [`Keyed::with_store`] and opened with [`OperatorContext::store`].
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// /// Passes on each value the first time its key is seen.
    /// struct First { seen: KeyValueStore<bool> }
    ///
    /// impl Operator<u64, u64> for First {
    ///     type OutKey = u64;
    ///     type Out = u64;
    ///     const KEEPS_KEY: bool = true;
    ///
    ///     fn process(&mut self, record: Record<'_, u64, u64>, out: &mut impl Output<u64, u64>) -> Flow {
    ///         let was_seen = self.seen.update(record.key, |seen| seen.replace(true).is_some())?;
    ///         if was_seen { Ok(()) } else { out.push(record) }
    ///     }
    /// }
    ///
    /// let job = Job::new("distinct");
    /// job.source(values("n", 0..100u64))
    ///     .key_by(|n| n % 7)
    ///     .with_store::<bool>("seen")
    ///     .process("distinct", |context| Ok(First { seen: context.store("seen")? }))
    ///     .sink(topic("distinct"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.expect::<u64, u64>("distinct", (0..7).map(|n| (&[0, 1, 2, 3, 4, 5, 6][n as usize], n)));
    /// ```
    #[track_caller]
    pub fn process<O, M>(
        self,
        name: &str,
        make: M,
    ) -> Keyed<O::OutKey, O::Out, impl Upstream<O::OutKey, O::Out> + use<K, V, Up, O, M>>
    where
        O: Operator<K, V, OutKey: 'static, Out: 'static> + 'static,
        M: Fn(&mut OperatorContext) -> Result<O, JobError> + Send + Sync + 'static,
    {
        self.partitioned(name).operator(make)
    }
}
