//! A target that remembers what it was told, and the job that tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use onceflow::operators::EffectTarget;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use crate::time::support::{Click, click, ms, parse};

/// A delivery: the user, the number, and the idempotency key.
pub(super) type Told = (String, i64, String);

/// A target that takes a moment, and answers while it is open.
#[derive(Default)]
pub(super) struct Target {
    pub(super) is_open: AtomicBool,
    pub(super) under_way: AtomicUsize,
    pub(super) most: AtomicUsize,
    pub(super) told: Mutex<Vec<Told>>,
}

impl Target {
    pub(super) fn closed() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn opened() -> Arc<Self> {
        let target = Self::closed();
        target.open();
        target
    }

    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }

    pub(super) fn count(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    async fn take(&self, effect: Effect<String, Click>) -> Delivery {
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(under_way, Ordering::SeqCst);
        // It is dropped in the middle where a job ends.
        let _leaves = Leaves(&self.under_way);
        let (user, number) = effect.value.clone();
        assert_eq!(effect.key, user);
        let key = effect.idempotency_key();
        self.told.lock().unwrap().push((user, number, key));
        tokio::time::sleep(ms(number.rem_euclid(3).unsigned_abs())).await;
        while !self.is_open.load(Ordering::SeqCst) {
            tokio::time::sleep(ms(2)).await;
        }
        Delivery::Done
    }
}

struct Leaves<'a>(&'a AtomicUsize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn clicks_of(job: &Job, is_endless: bool) -> Keyed<String, Click> {
    let input = topic::<str>("in");
    job.source(if is_endless { input } else { input.until_end() })
        .try_map(parse)
        .key_by(|(user, _): &Click| user.clone())
        .boxed()
}

/// Tells a target of each click; those that can never be told go to `dead`.
pub(super) fn tells(
    target: impl EffectTarget<String, Click>,
    policy: EffectPolicy,
    is_endless: bool,
) -> Launch {
    let job = Job::new("tells");
    let dead = clicks_of(&job, is_endless).effect("tell", policy, target);
    dead.sink(topic("dead").keep_headers());
    job.exactly_once(Commit::every(ms(5))).state_partitions(8)
}

pub(super) fn tells_of(target: &Arc<Target>, policy: EffectPolicy, is_endless: bool) -> Launch {
    let target = Arc::clone(target);
    let take = move |effect| {
        let target = Arc::clone(&target);
        async move { target.take(effect).await }
    };
    tells(take, policy, is_endless)
}

/// Makes clicks of some users, numbered from `first` on.
pub(crate) fn clicks(first: i64, count: i64, users: i64) -> Vec<Click> {
    let numbers = first..first + count;
    numbers
        .map(|number| click(&format!("u{}", number % users), number))
        .collect()
}

/// Each click was told, under one key of its own, and those of a user in order; returns the keys.
pub(super) fn assert_told(told: &[Told], clicks: &[Click]) -> BTreeMap<Click, String> {
    let mut keys = BTreeMap::new();
    let mut firsts = BTreeMap::<&str, Vec<i64>>::new();
    for (user, number, key) in told {
        let first = keys
            .entry((user.clone(), *number))
            .or_insert_with(|| key.clone());
        assert_eq!(
            first, key,
            "{user} {number} was told under two keys: one of them was never committed, or it changed"
        );
        let of_user = firsts.entry(user).or_default();
        if !of_user.contains(number) {
            of_user.push(*number);
        }
    }
    let different: BTreeSet<&String> = keys.values().collect();
    assert_eq!(different.len(), keys.len(), "a key was given twice");
    let mut expected = BTreeMap::<&str, Vec<i64>>::new();
    for (user, number) in clicks {
        expected.entry(user).or_default().push(*number);
    }
    assert_eq!(firsts, expected, "in order, and each of them");
    keys
}
