//! The outbox: effects are rows until their fate is known, and lanes in memory say which is next of each key.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::EffectPolicy;
use super::delivery::{Fate, deliver_in_order};
use super::target::{Effect, EffectTarget};
use crate::codec::Datum;
use crate::runtime::{
    CallId, Calls, Due, Failure, Flow, HeaderList, JobError, Key, Meta, Operator, OperatorContext,
    Origin, Output, Record, Side, SideOutput, TimedStore,
};
use crate::types::{Offset, Timestamp};

/// Name of the header that tells, with a dead letter, why it could not be delivered.
const FAILED_HEADER: &str = "onceflow.failed";
/// Name of the header that tells its idempotency key.
const EFFECT_HEADER: &str = "onceflow.effect";
/// How many effects of a key one task delivers: enough that it seldom waits for the worker's next look, few enough that their copies
/// are no matter.
const IN_TURN_MAX: usize = 64;

/// An effect in the store: its id, the time of its record, the record's split and offset, its value and headers. Its row stands at its number,
/// which grows with each effect of the key.
pub(super) type Waiting<V> = (CallId, i64, (u32, i64), V, HeaderList);

/// The undelivered effects of a key, in order.
struct Lane {
    number: u64,
    partition_hash: u32,
    /// Their numbers, and the cycles in which they came; none if they were there at the start.
    effects: VecDeque<(i64, Option<u64>)>,
    /// How many of them, from the first on, are being delivered.
    under_way: usize,
}

impl Lane {
    fn new(number: u64, partition_hash: u32) -> Self {
        Self {
            number,
            partition_hash,
            effects: VecDeque::new(),
            under_way: 0,
        }
    }
}

pub(super) struct Outbox<K: ?Sized, V, T> {
    name: String,
    job: Arc<str>,
    policy: EffectPolicy,
    target: T,
    store: TimedStore<Waiting<V>>,
    calls: Calls<Fate>,
    dead: Side<K, V>,
    /// The keys that have undelivered effects.
    lanes: HashMap<Rc<[u8]>, Lane>,
    /// Whose lane has which number.
    keys: HashMap<u64, Rc<[u8]>>,
    /// The keys whose next effect can be delivered.
    ready: VecDeque<Rc<[u8]>>,
    /// Those whose next effect can be once a cycle is committed, in the order of cycles.
    uncommitted: VecDeque<(u64, Rc<[u8]>)>,
    /// The numbers of all effects that are in the store, with their lanes: two keys may have the same, where one came from elsewhere.
    numbers: BTreeSet<(i64, u64)>,
    next_number: i64,
    next_lane: u64,
    due: Due,
    headers: HeaderList,
    is_restored: bool,
    key: PhantomData<fn(&K)>,
}

impl<K, V, T> Outbox<K, V, T>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
{
    pub(super) fn open(
        context: &mut OperatorContext,
        name: &str,
        policy: EffectPolicy,
        target: T,
        dead: &SideOutput<K, V>,
    ) -> Result<Self, JobError>
    where
        V: Serialize + DeserializeOwned,
    {
        Ok(Self {
            name: name.to_owned(),
            job: context.job().name().into(),
            policy,
            target,
            store: context.timed_store(name)?,
            calls: context
                .calls(policy.limit)?
                .of_effects(policy.undelivered_max),
            dead: context.side(dead)?,
            lanes: HashMap::new(),
            keys: HashMap::new(),
            ready: VecDeque::new(),
            uncommitted: VecDeque::new(),
            numbers: BTreeSet::new(),
            next_number: 0,
            next_lane: 0,
            due: Due::default(),
            headers: HeaderList::default(),
            is_restored: false,
            key: PhantomData,
        })
    }

    /// Takes on the effects that the store has: they are delivered, or delivered again, each with its key.
    fn restore_once(&mut self) -> Flow {
        if std::mem::replace(&mut self.is_restored, true) {
            return Ok(());
        }
        let mut found = Vec::new();
        let (first, last) = (Timestamp::MIN, Timestamp::MAX);
        self.store
            .visit_between(first, last, &mut self.due, |due, _| {
                let key = due.key::<K>();
                found.push((due.time.0, key.bytes().to_vec(), key.partition_hash()));
            })?;
        found.sort_unstable_by_key(|(number, ..)| *number);
        self.next_number = found.last().map_or(0, |(number, ..)| number + 1);
        for (number, key, partition_hash) in found {
            self.take_on(&key, partition_hash, number, None);
        }
        Ok(())
    }

    fn take_on(&mut self, key: &[u8], partition_hash: u32, number: i64, cycle: Option<u64>) {
        if let Some(lane) = self.lanes.get_mut(key) {
            // One that has effects is under way already, or waits for that.
            lane.effects.push_back((number, cycle));
            self.numbers.insert((number, lane.number));
        } else {
            let key: Rc<[u8]> = key.into();
            let mut lane = Lane::new(self.next_lane, partition_hash);
            self.next_lane += 1;
            lane.effects.push_back((number, cycle));
            self.numbers.insert((number, lane.number));
            self.keys.insert(lane.number, Rc::clone(&key));
            self.lanes.insert(Rc::clone(&key), lane);
            self.line_up(key, cycle);
        }
        self.calls.set_pending(self.numbers.len());
    }

    /// Puts a key where it waits to be delivered; its next effect came in this cycle.
    fn line_up(&mut self, key: Rc<[u8]>, cycle: Option<u64>) {
        match cycle.filter(|cycle| !self.calls.is_committed(*cycle)) {
            None => self.ready.push_back(key),
            Some(cycle) => self.uncommitted.push_back((cycle, key)),
        }
    }

    /// Takes the effects whose fate is known out of the store; those that are dead go to the stream of dead letters.
    fn settle(&mut self) -> Flow {
        while let Some((lane, fate)) = self.calls.next_answer() {
            let Some(key) = self.keys.get(&lane).map(Rc::clone) else {
                unreachable!("a lane has a key until all its effects are settled")
            };
            let Some(lane) = self.lanes.get_mut(&key) else {
                unreachable!("a key has a lane until all its effects are settled")
            };
            let (number, partition_hash) = (lane.number, lane.partition_hash);
            let Some((first, _)) = lane.effects.pop_front() else {
                unreachable!("an effect is in its lane until its fate is known")
            };
            lane.under_way -= 1;
            if lane.under_way == 0 {
                match lane.effects.front().map(|(_, cycle)| *cycle) {
                    Some(cycle) => self.line_up(Rc::clone(&key), cycle),
                    None => {
                        self.lanes.remove(&key);
                        self.keys.remove(&number);
                    }
                }
            }
            self.numbers.remove(&(first, number));
            self.calls.set_pending(self.numbers.len());
            self.take_out(Key::with_hash(&key, partition_hash), first, fate)?;
        }
        Ok(())
    }

    fn take_out(&mut self, key: Key<'_, K>, number: i64, fate: Fate) -> Flow {
        let effect = self.store.update_at(key, Timestamp(number), Option::take)?;
        let Some((id, time, (split, offset), value, headers)) = effect else {
            unreachable!("an effect is in the store until its fate is known")
        };
        let Fate::Dead(why) = fate else {
            return Ok(());
        };
        let idempotency_key = format!("{}/{id}", self.job);
        if !self.dead.leads_on() {
            return Err(Failure::poison(format_args!(
                "the effect {idempotency_key} of the step {:?} can never be delivered: {why}. Mend the target and start again, when it is \
                 delivered with the same key; or give the stream that `effect` returns a sink, to which such effects go as dead letters",
                self.name
            )));
        }
        let origin = Origin {
            split,
            offset: Offset(offset),
        };
        let timestamp = Timestamp(time);
        self.headers.clear();
        self.headers.add_all(headers.headers());
        self.headers.add(FAILED_HEADER, Some(why.as_bytes()));
        self.headers
            .add(EFFECT_HEADER, Some(idempotency_key.as_bytes()));
        let record = Record::new(key, &value, Meta { timestamp, origin });
        self.dead.push(record.with_headers(self.headers.headers()))
    }
}

impl<K, V, T> Outbox<K, V, T>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    T: EffectTarget<K::Owned, V>,
{
    /// Begins to deliver what is committed, as far as there is room.
    fn deliver(&mut self) -> Flow {
        while let Some((cycle, _)) = self.uncommitted.front()
            && self.calls.is_committed(*cycle)
            && let Some((_, key)) = self.uncommitted.pop_front()
        {
            self.ready.push_back(key);
        }
        while self.calls.has_room()
            && let Some(key) = self.ready.pop_front()
        {
            self.deliver_next(&key)?;
        }
        Ok(())
    }

    /// Begins to deliver the committed effects of a key, the first ones if there are many.
    fn deliver_next(&mut self, key: &[u8]) -> Flow {
        let Some(lane) = self.lanes.get_mut(key) else {
            unreachable!("a key that is ready has effects")
        };
        let first = Key::<K>::with_hash(key, lane.partition_hash);
        let mut effects = Vec::new();
        for (number, cycle) in lane.effects.iter().take(IN_TURN_MAX) {
            if cycle.is_some_and(|cycle| !self.calls.is_committed(cycle)) {
                break;
            }
            let effect = self
                .store
                .peek_at(first, Timestamp(*number), |effect| effect.cloned())?;
            let Some((id, time, _, value, headers)) = effect else {
                unreachable!("an effect is in the store until its fate is known")
            };
            effects.push(Effect {
                key: first.decode()?.into_owned(),
                value,
                timestamp: Timestamp(time),
                headers,
                id,
                job: Arc::clone(&self.job),
            });
        }
        assert!(!effects.is_empty(), "a key is ready with its first effect");
        lane.under_way = effects.len();
        let (target, policy) = (self.target.clone(), self.policy);
        self.calls.ask_in_turn(lane.number, move |answers| {
            deliver_in_order(effects, target, policy, answers)
        });
        Ok(())
    }
}

impl<K, V, T> Operator<K, V> for Outbox<K, V, T>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    T: EffectTarget<K::Owned, V>,
{
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;
    const USES_CLOCK: bool = true;

    fn process(&mut self, record: Record<'_, K, V>, _out: &mut impl Output<K, V>) -> Flow {
        self.restore_once()?;
        let (id, number) = (self.calls.new_id(), self.next_number);
        self.next_number += 1;
        let Origin { split, offset } = record.meta.origin;
        let time = record.meta.timestamp.0;
        let headers = HeaderList::from(record.headers);
        let effect = (id, time, (split, offset.0), record.value.clone(), headers);
        self.store.put_at(record.key, Timestamp(number), effect)?;
        let (key, hash) = (record.key.bytes(), record.key.partition_hash());
        self.take_on(key, hash, number, Some(self.calls.cycle()));
        Ok(())
    }

    fn on_clock(&mut self, _now: Timestamp, _out: &mut impl Output<K, V>) -> Flow {
        self.restore_once()?;
        self.settle()?;
        self.deliver()
    }

    fn end_cycle(&mut self, _out: &mut impl Output<K, V>) -> Flow {
        self.restore_once()?;
        self.calls.end_cycle();
        // Nothing is left below the first number: only the store's index still knows of it.
        let first = self.numbers.first().copied();
        let below = first.map_or(Timestamp::MAX, |(number, _)| Timestamp(number - 1));
        let none = self.store.next_due(below, &mut self.due)?;
        assert!(none.is_none(), "an effect was forgotten in the store");
        Ok(())
    }
}
