//! Comparisons of what a job did with what the user's model says.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use crate::codec::{Codec, Datum};
use crate::runtime::bed::TestBed;
use crate::runtime::bed::expect::{ByKey, by_key, differences};

/// The keys that are read of a store at once.
const PAGE: usize = 1_000;

/// The moment of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The job has just started again, and has done nothing yet: its output is a part of what the inputs give.
    Restarted,
    /// All that was sent is processed and committed.
    Settled,
}

/// A comparison.
pub(super) trait Judge<I> {
    /// Says what is wrong after these inputs.
    fn judge(&self, bed: &mut TestBed, sent: &[I], moment: Moment) -> Result<(), String>;
}

/// The user's function of all inputs so far, as rows.
type Model<I, Row> = Box<dyn Fn(&[I]) -> Vec<Row>>;

/// The records of a topic, by key, each key's in order.
pub(super) struct TopicJudge<I, K: Datum + ?Sized, V: Datum + ?Sized> {
    pub(super) topic: String,
    pub(super) model: Model<I, (K::Owned, Option<V::Owned>)>,
}

impl<I, K, V> Judge<I> for TopicJudge<I, K, V>
where
    K: Datum + ?Sized,
    V: Datum + ?Sized,
    K::Owned: Ord + Debug,
    V::Owned: PartialEq + Debug,
{
    fn judge(&self, bed: &mut TestBed, sent: &[I], moment: Moment) -> Result<(), String> {
        let expected: ByKey<K::Owned, V::Owned> = by_key((self.model)(sent).into_iter());
        let mut rows = Vec::new();
        for row in bed.committed_rows::<K, V>(&self.topic) {
            let Some(key) = row.key else {
                return Err(format!(
                    "{} has a record without a key: compare it with `check`",
                    self.topic
                ));
            };
            rows.push((key, row.value));
        }
        let came = by_key(rows.into_iter());
        let is_right = match moment {
            Moment::Settled => came == expected,
            Moment::Restarted => is_beginning(&came, &expected),
        };
        if is_right {
            return Ok(());
        }
        let how = match moment {
            Moment::Settled => "is not what the model says",
            Moment::Restarted => {
                "has, when the job starts again, what is no beginning of what the model says"
            }
        };
        let differences = differences(&expected, &came);
        Err(format!("{} {how}\n{differences}", self.topic))
    }
}

/// Whether each key has a beginning of the values that it is to have.
fn is_beginning<K: Ord, V: PartialEq>(came: &ByKey<K, V>, expected: &ByKey<K, V>) -> bool {
    came.iter().all(|(key, values)| {
        let expected = expected.get(key);
        expected.is_some_and(|expected| expected.starts_with(values))
    })
}

/// The values of a store.
pub(super) struct StateJudge<I, K: Datum + ?Sized, V> {
    pub(super) store: String,
    pub(super) model: Model<I, (K::Owned, V)>,
    pub(super) keys: PhantomData<fn(&K)>,
}

impl<I, K, V> Judge<I> for StateJudge<I, K, V>
where
    K: Datum + ?Sized,
    V: Datum + Clone + PartialEq + Debug,
    V::DefaultCodec: Codec<V>,
    K::Owned: Ord + Debug,
{
    fn judge(&self, bed: &mut TestBed, sent: &[I], moment: Moment) -> Result<(), String> {
        if moment == Moment::Restarted {
            return Ok(());
        }
        let model = (self.model)(sent);
        let expected: BTreeMap<K::Owned, Vec<Option<V>>> =
            by_key(model.into_iter().map(|(key, value)| (key, Some(value))));
        bed.commit();
        let mut kept = Vec::new();
        for instance in bed.awake_instances() {
            let rows = bed.ask_instance(instance, async |query| {
                let store = query.store::<K, V>(&self.store)?;
                let mut rows: Vec<(K::Owned, V)> = Vec::new();
                loop {
                    let last = rows.last().map(|(key, _)| std::borrow::Borrow::borrow(key));
                    let page = store.page(last, PAGE).await?.value;
                    let is_last = page.len() < PAGE;
                    rows.extend(page);
                    if is_last {
                        return Ok::<_, crate::runtime::task::committed::QueryError>(rows);
                    }
                }
            });
            kept.extend(rows.map_err(|e| e.to_string())?);
        }
        let kept = by_key(kept.into_iter().map(|(key, value)| (key, Some(value))));
        if kept == expected {
            return Ok(());
        }
        let differences = differences(&expected, &kept);
        Err(format!(
            "the store {} is not what the model says\n{differences}",
            self.store
        ))
    }
}

/// The user's function that asserts.
type Check<I> = Box<dyn Fn(&mut TestBed, &[I])>;

/// Assertions of the user's own.
pub(super) struct CheckJudge<I> {
    pub(super) check: Check<I>,
}

impl<I> Judge<I> for CheckJudge<I> {
    fn judge(&self, bed: &mut TestBed, sent: &[I], moment: Moment) -> Result<(), String> {
        if moment == Moment::Settled {
            (self.check)(bed, sent);
        }
        Ok(())
    }
}
