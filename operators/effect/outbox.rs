//! The outbox: effects are rows until their fate is known, and lanes in memory (`lanes.rs`) say which is next of each key.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::EffectPolicy;
use super::delivery::{Fate, Told, deliver_in_order};
use super::lanes::{Begun, Lanes, Place};
use super::target::{Effect, EffectTarget};
use crate::codec::{Datum, First, Parts};
use crate::runtime::{
    CallId, Calls, Due, Failure, Flow, HeaderList, JobError, Key, Meta, Operator, OperatorContext,
    Origin, Output, Record, Side, SideOutput, TimedStore,
};
use crate::types::{Offset, Timestamp};

/// Name of the header that tells, with a dead letter, why it could not be delivered.
const FAILED_HEADER: &str = "onceflow.failed";
/// Name of the header that tells its idempotency key.
const EFFECT_HEADER: &str = "onceflow.effect";
/// An effect in the store: its id, the time of its record, the record's split and offset, how many attempts at it are known to have failed
/// (where they are counted), its value and headers. Its row stands at its number, which grows with each effect of the key.
pub(super) type Waiting<V> = (CallId, i64, (u32, i64), u64, V, HeaderList);

/// Where the value of the record is in it.
pub(super) fn waiting_parts<V: Datum + Clone>() -> Parts {
    Parts::one::<Waiting<First>, V>(|walk| {
        walk.same::<(CallId, i64, (u32, i64), u64)>()?;
        walk.part::<V>(0)?;
        walk.same::<HeaderList>()
    })
}

pub(super) struct Outbox<K: ?Sized, V, T> {
    name: String,
    job: Arc<str>,
    policy: EffectPolicy,
    target: T,
    store: TimedStore<Waiting<V>>,
    calls: Calls<Told>,
    dead: Side<K, V>,
    lanes: Lanes,
    next_number: i64,
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
            lanes: Lanes::default(),
            next_number: 0,
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
        let calls = &self.calls;
        let is_committed = |cycle| calls.is_committed(cycle);
        self.lanes
            .add(key, partition_hash, number, cycle, is_committed);
        self.calls.set_pending(self.lanes.len());
    }

    /// Takes what is known of effects that are being delivered.
    fn settle(&mut self) -> Flow {
        while let Some((lane, told)) = self.calls.next_answer() {
            match told {
                Told::Failed(attempts) => self.note_failed(&self.lanes.first(lane), attempts)?,
                Told::Over(fate) => {
                    let calls = &self.calls;
                    let place = self.lanes.settle(lane, |cycle| calls.is_committed(cycle));
                    self.calls.set_pending(self.lanes.len());
                    self.take_out(&place, fate)?;
                }
            }
        }
        Ok(())
    }

    /// Notes how many attempts at an effect have failed, in the open cycle.
    fn note_failed(&mut self, place: &Place, attempts: u64) -> Flow {
        let key = Key::<K>::with_hash(&place.key, place.partition_hash);
        self.store
            .update_at(key, Timestamp(place.number), |effect| {
                if let Some((_, _, _, failed, _, _)) = effect {
                    *failed = attempts;
                }
            })
    }

    /// Takes an effect whose fate is known out of the store; one that is dead goes to the stream of dead letters.
    fn take_out(&mut self, place: &Place, fate: Fate) -> Flow {
        let key = Key::<K>::with_hash(&place.key, place.partition_hash);
        let number = Timestamp(place.number);
        let effect = self.store.update_at(key, number, Option::take)?;
        let Some((id, time, (split, offset), _, value, headers)) = effect else {
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
        while self.calls.has_room() {
            let calls = &self.calls;
            let begun = self.lanes.begin_next(|cycle| calls.is_committed(cycle));
            let Some(begun) = begun else {
                return Ok(());
            };
            self.begin(&begun)?;
        }
        Ok(())
    }

    /// Begins to deliver effects of a key.
    fn begin(&mut self, begun: &Begun) -> Flow {
        let key = Key::<K>::with_hash(&begun.key, begun.partition_hash);
        let mut effects = Vec::new();
        for number in &begun.numbers {
            let effect = self
                .store
                .peek_at(key, Timestamp(*number), |effect| effect.cloned())?;
            let Some((id, time, _, failed, value, headers)) = effect else {
                unreachable!("an effect is in the store until its fate is known")
            };
            let effect = Effect {
                key: key.decode()?.into_owned(),
                value,
                timestamp: Timestamp(time),
                headers,
                id,
                job: Arc::clone(&self.job),
            };
            effects.push((effect, failed));
        }
        let (target, policy) = (self.target.clone(), self.policy);
        let clock = self.calls.clock();
        self.calls.ask_in_turn(begun.lane, move |answers| {
            deliver_in_order(effects, target, (policy, clock), answers)
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
        let value = record.value.clone();
        let effect = (id, time, (split, offset.0), 0, value, headers);
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
        let first = self.lanes.first_number();
        let below = first.map_or(Timestamp::MAX, |number| Timestamp(number - 1));
        let none = self.store.next_due(below, &mut self.due)?;
        assert!(none.is_none(), "an effect was forgotten in the store");
        Ok(())
    }
}
