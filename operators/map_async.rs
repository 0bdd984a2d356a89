//! `map_async`: one answer of the world outside for each record, while the job goes on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Display;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Datum, First, Parts};
use crate::runtime::{
    CallClock, CallId, Calls, Due, Failure, Flow, HeaderList, Key, Keyed, Meta, Operator, Origin,
    Output, Record, Side, SideOutput, TimedStore, Upstream,
};
use crate::types::{Offset, Timestamp};

/// Name of the header that tells, with an input whose call failed for good, why.
const FAILED_HEADER: &str = "onceflow.failed";
/// The longest pause before a call is made again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Policy of [`map_async`](Keyed::map_async) for its calls.
///
/// ```
/// use std::time::Duration;
/// use onceflow::prelude::*;
///
/// // A hundred calls at a time; each is given two seconds, and made up to four times, with pauses of 100, 200 and 400 ms.
/// let calls = CallPolicy::unordered(100)
///     .timeout(Duration::from_secs(2))
///     .retries(3, Duration::from_millis(100));
/// # let _ = calls;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallPolicy {
    limit: usize,
    is_ordered: bool,
    timeout: Duration,
    retries: u32,
    pause: Duration,
}

impl CallPolicy {
    fn new(limit: usize, is_ordered: bool) -> Self {
        Self {
            limit: limit.max(1),
            is_ordered,
            timeout: Duration::from_secs(30),
            retries: 0,
            pause: Duration::ZERO,
        }
    }

    /// The answers of one key come in the order of its inputs. `limit` calls are under way at a time in all workers of a process
    /// together, and at least one in each. A call is given 30 seconds, and is not made again, unless it is said otherwise.
    #[must_use]
    pub fn ordered(limit: usize) -> Self {
        Self::new(limit, true)
    }

    /// As [`ordered`](Self::ordered), but each answer comes as soon as it is there.
    #[must_use]
    pub fn unordered(limit: usize) -> Self {
        Self::new(limit, false)
    }

    /// Bounds the time of a call: after that it is given up, and has failed.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets the repeats of a call that failed, with a pause before the first one that doubles with each one.
    #[must_use]
    pub fn retries(self, retries: u32, pause: Duration) -> Self {
        Self {
            retries,
            pause,
            ..self
        }
    }
}

/// The input of a call, with its id.
#[derive(Debug, Clone)]
pub struct Call<K, V> {
    /// Its id: the same each time it is made, also after a crash, and of no other input. A service that remembers ids takes the
    /// call once.
    pub id: CallId,
    /// The key of the input.
    pub key: K,
    /// The input.
    pub value: V,
}

/// Makes a call until it succeeds, or has failed for good; then why it did last.
async fn attempts<K: Clone, V: Clone, R, E: Display, F: Future<Output = Result<R, E>>>(
    request: Call<K, V>,
    policy: CallPolicy,
    clock: CallClock,
    call: impl Fn(Call<K, V>) -> F,
) -> Result<R, String> {
    let (mut why, mut request) = (String::new(), Some(request));
    let mut pause = policy.pause;
    for attempt in 0..=policy.retries {
        if attempt > 0 {
            clock.pause(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
        // The last one takes it as it is.
        let own = match attempt < policy.retries {
            true => request.clone(),
            false => request.take(),
        };
        let Some(own) = own else {
            unreachable!("an attempt has its request")
        };
        let once = AssertUnwindSafe(async { call(own).await }).catch_unwind();
        // A5: an answer that is there counts, whatever the time.
        why = match clock.within(policy.timeout, once).await {
            Some(Ok(Ok(answer))) => return Ok(answer),
            Some(Ok(Err(error))) => error.to_string(),
            Some(Err(_)) => "its function panicked".to_owned(),
            None => format!("no answer within {:?}", policy.timeout),
        };
    }
    Err(match policy.retries {
        0 => why,
        retries => format!("{why} (the last of {} times)", u64::from(retries) + 1),
    })
}

/// An input in the store: its id, its number among all of its key, its origin, value and headers.
type Waiting<V> = (CallId, u64, (u32, i64), V, HeaderList);

/// Where the values are in the inputs of a time.
fn waiting_parts<V: Datum + Clone>() -> Parts {
    Parts::one::<Vec<Waiting<First>>, V>(|walk| {
        walk.each(|walk| {
            walk.same::<(CallId, u64, (u32, i64))>()?;
            walk.part::<V>(0)?;
            walk.same::<HeaderList>()
        })
    })
}

/// The part of an input that is known without the store.
struct Pending<R> {
    id: CallId,
    key: Vec<u8>,
    partition_hash: u32,
    time: Timestamp,
    /// The cycle in which it came; none if it was there at the start.
    cycle: Option<u64>,
    answer: Option<Result<R, String>>,
}

impl<R> Pending<R> {
    fn key<K: ?Sized>(&self) -> Key<'_, K> {
        Key::with_hash(&self.key, self.partition_hash)
    }
}

struct MapAsync<K: ?Sized, V, R, F> {
    name: String,
    policy: CallPolicy,
    call: F,
    store: TimedStore<Vec<Waiting<V>>>,
    calls: Calls<Result<R, String>>,
    failed: Side<K, V>,
    /// The inputs without an answer, by the numbers of their calls, which begin anew with each start.
    pending: BTreeMap<u64, Pending<R>>,
    /// Those of them that were not asked yet, in order.
    unasked: VecDeque<u64>,
    /// Those of each key, in order, if that is kept.
    of_key: HashMap<Vec<u8>, VecDeque<u64>>,
    /// Number of them by time: time does not pass the first (A6).
    times: BTreeMap<Timestamp, usize>,
    next_call: u64,
    /// The number of the next input of any key.
    next_input: u64,
    due: Due,
    headers: HeaderList,
    is_restored: bool,
    key: PhantomData<fn(&K)>,
}

impl<K, V, R, F> MapAsync<K, V, R, F>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    R: Send + 'static,
{
    /// Takes on the inputs that the store has: their calls are made again, with their ids (A7).
    fn restore_once(&mut self) -> Flow {
        if std::mem::replace(&mut self.is_restored, true) {
            return Ok(());
        }
        let mut found = Vec::new();
        let (first, last) = (Timestamp::MIN, Timestamp::MAX);
        self.store
            .visit_between(first, last, &mut self.due, |due, waiting| {
                let key = due.key::<K>();
                for (id, number, ..) in waiting {
                    let pending = Pending {
                        id: *id,
                        key: key.bytes().to_vec(),
                        partition_hash: key.partition_hash(),
                        time: due.time,
                        cycle: None,
                        answer: None,
                    };
                    found.push((*number, pending));
                }
            })?;
        found.sort_by_key(|(number, _)| *number);
        self.next_input = found.last().map_or(0, |(number, _)| number + 1);
        found
            .into_iter()
            .for_each(|(_, pending)| self.take_on(pending));
        Ok(())
    }

    fn take_on(&mut self, pending: Pending<R>) {
        let number = self.next_call;
        self.next_call += 1;
        *self.times.entry(pending.time).or_default() += 1;
        if self.policy.is_ordered {
            match self.of_key.get_mut(&pending.key) {
                Some(of_key) => of_key.push_back(number),
                None => drop(
                    self.of_key
                        .insert(pending.key.clone(), VecDeque::from([number])),
                ),
            }
        }
        self.unasked.push_back(number);
        self.pending.insert(number, pending);
        self.calls.set_pending(self.pending.len());
    }

    /// Hands on what has an answer, as far as the order allows.
    fn hand_on(&mut self, out: &mut impl Output<K, R>) -> Flow {
        while let Some((number, answer)) = self.calls.next_answer() {
            let Some(pending) = self.pending.get_mut(&number) else {
                unreachable!("an input waits for its answer")
            };
            pending.answer = Some(answer);
            if !self.policy.is_ordered {
                self.finish(number, out)?;
                continue;
            }
            let key = pending.key.clone();
            while let Some(first) = self.answered_first(&key) {
                self.finish(first, out)?;
            }
        }
        Ok(())
    }

    /// The first input of a key, if it has its answer; it waits no longer.
    fn answered_first(&mut self, key: &[u8]) -> Option<u64> {
        let of_key = self.of_key.get_mut(key)?;
        let first = *of_key.front()?;
        self.pending.get(&first)?.answer.as_ref()?;
        of_key.pop_front();
        if of_key.is_empty() {
            self.of_key.remove(key);
        }
        Some(first)
    }

    /// Takes an input out of the store, and hands its answer on instead, or the input itself where the call failed for good.
    fn finish(&mut self, number: u64, out: &mut impl Output<K, R>) -> Flow {
        let Some(pending) = self.pending.remove(&number) else {
            return Ok(());
        };
        if let Some(count) = self.times.get_mut(&pending.time) {
            *count -= 1;
            if *count == 0 {
                self.times.remove(&pending.time);
            }
        }
        self.calls.set_pending(self.pending.len());
        let key = pending.key::<K>();
        let waited = self.store.update_at(key, pending.time, |waiting| {
            let mut all = waiting.take().unwrap_or_default();
            let place = all.iter().position(|it| it.0 == pending.id);
            let waited = place.map(|place| all.remove(place));
            *waiting = Some(all).filter(|all| !all.is_empty());
            waited
        })?;
        let Some((id, _, (split, offset), value, headers)) = waited else {
            unreachable!("an input is in the store until it has its answer")
        };
        let origin = Origin {
            split,
            offset: Offset(offset),
        };
        let timestamp = pending.time;
        let meta = Meta { timestamp, origin };
        match &pending.answer {
            Some(Ok(answer)) => out.push(Record {
                key,
                value: answer,
                meta,
                headers: headers.headers(),
            }),
            Some(Err(why)) if self.failed.leads_on() => {
                self.headers.clear();
                self.headers.add_all(headers.headers());
                self.headers.add(FAILED_HEADER, Some(why.as_bytes()));
                let record = Record::new(key, &value, meta);
                self.failed
                    .push(record.with_headers(self.headers.headers()))
            }
            Some(Err(why)) => Err(Failure::poison(format_args!(
                "the call {id} of the step {:?} failed for good: {why}. Mend the service or the function and start again, when it is made \
                 anew with the same id; or take what failed from the second stream of `map_async`",
                self.name
            ))),
            None => unreachable!("it is finished by its answer"),
        }
    }
}

impl<K, V, R, E, F, Fut> MapAsync<K, V, R, F>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    R: Send + 'static,
    E: Display + 'static,
    F: Fn(Call<K::Owned, V>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
{
    /// Makes the calls whose inputs are committed, as far as there is room.
    fn ask(&mut self) -> Flow {
        while self.calls.has_room()
            && let Some(number) = self.unasked.front().copied()
            && let Some(pending) = self.pending.get(&number)
            && pending.cycle.is_none_or(|it| self.calls.is_committed(it))
        {
            self.unasked.pop_front();
            let key = pending.key::<K>();
            let value = self.store.peek_at(key, pending.time, |waiting| {
                let mut all = waiting.into_iter().flatten();
                all.find(|it| it.0 == pending.id).map(|it| it.3.clone())
            })?;
            let Some(value) = value else {
                unreachable!("an input is in the store until it has its answer")
            };
            let request = Call {
                id: pending.id,
                key: key.decode()?.into_owned(),
                value,
            };
            let call = attempts(request, self.policy, self.calls.clock(), self.call.clone());
            self.calls.ask(number, call);
        }
        Ok(())
    }
}

impl<K, V, R, E, F, Fut> Operator<K, V> for MapAsync<K, V, R, F>
where
    K: Datum + ?Sized,
    V: Datum + Clone,
    R: Send + 'static,
    E: Display + 'static,
    F: Fn(Call<K::Owned, V>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
{
    type OutKey = K;
    type Out = R;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;
    const USES_CALLS: bool = true;

    fn process(&mut self, record: Record<'_, K, V>, _out: &mut impl Output<K, R>) -> Flow {
        self.restore_once()?;
        let time = record.meta.timestamp;
        let (id, number) = (self.calls.new_id(), self.next_input);
        self.next_input += 1;
        let Origin { split, offset } = record.meta.origin;
        self.store.update_at(record.key, time, |waiting| {
            let headers = HeaderList::from(record.headers);
            let input = (id, number, (split, offset.0), record.value.clone(), headers);
            waiting.get_or_insert_default().push(input);
        })?;
        self.take_on(Pending {
            id,
            key: record.key.bytes().to_vec(),
            partition_hash: record.key.partition_hash(),
            time,
            cycle: Some(self.calls.cycle()),
            answer: None,
        });
        Ok(())
    }

    fn on_clock(&mut self, _now: Timestamp, out: &mut impl Output<K, R>) -> Flow {
        self.restore_once()?;
        self.hand_on(out)?;
        self.ask()
    }

    fn on_watermark(&mut self, _watermark: Timestamp, _out: &mut impl Output<K, R>) -> Flow {
        self.restore_once()
    }

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        let first = self.times.first_key_value();
        first.map_or(watermark, |(time, _)| watermark.min(*time))
    }

    fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    fn end_cycle(&mut self, _out: &mut impl Output<K, R>) -> Flow {
        self.restore_once()?;
        self.calls.end_cycle();
        // Nothing is left below the first time: only the store's index still knows of it.
        let first = self.times.first_key_value();
        let below = first.map_or(Timestamp::MAX, |(time, _)| time.plus_millis(-1));
        let none = self.store.next_due(below, &mut self.due)?;
        assert!(none.is_none(), "an input was forgotten in the store");
        Ok(())
    }
}

impl<K, V, Up> Keyed<K, V, Up>
where
    K: Datum + ?Sized,
    V: Datum + Clone + Serialize + DeserializeOwned,
    Up: Upstream<K, V>,
{
    /// Asks the world outside about each record, by a function that is `async` and runs on tokio, and gives the answers. The second
    /// stream has the inputs whose calls failed for good, each with the reason as the header `onceflow.failed`; where it is not used,
    /// such a call stops the job.
    ///
    /// Inputs without an answer are state, in the store `name`: a commit does not wait for calls, and after a crash they are asked
    /// about again, with the same [`Call::id`]. Each answer comes once. A call is made once its input is committed, so that its id is
    /// known for good: an answer takes the commit interval longer than its call. Records need a time, as in windows.
    /// Time does not pass an input that waits: an answer has the time of its input, and is not late by waiting. From
    /// twice the limit on sources stand still. Where the input ends, the job ends with the last answer.
    ///
    /// There is none for streams without a key: an input that waits is a row of state, and its key says which worker, and which process,
    /// has it, and with it what order its answers come in. Key such a stream by something that spreads, as an id of the record does.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// # async fn resolve(host: String) -> Result<String, std::io::Error> { Ok(host) }
    /// let job = Job::new("addresses");
    /// let (addresses, unknown) = job
    ///     .source(topic::<str>("hosts"))
    ///     .key_by(|host: &str| host.to_owned())
    ///     .map(|host: &str| host.to_owned())
    ///     .map_async("resolve", CallPolicy::unordered(100), |call: Call<String, String>| resolve(call.value));
    /// addresses.sink(topic("addresses"));
    /// unknown.sink(topic("unknown-hosts"));
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send_value("hosts", "localhost");
    /// bed.advance(std::time::Duration::from_secs(1));
    /// bed.expect::<String, String>("addresses", [(&"localhost".to_owned(), "localhost".to_owned())]);
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "both halves of a pair, once")]
    pub fn map_async<R, E, F, Fut>(
        self,
        name: &str,
        policy: CallPolicy,
        call: F,
    ) -> (Keyed<K, R, impl Upstream<K, R>>, Keyed<K, V>)
    where
        R: Datum + Sized,
        E: Display + 'static,
        F: Fn(Call<K::Owned, V>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
    {
        let (output, failed): (SideOutput<K, V>, _) = self.side_output("failed");
        let store = name.to_owned();
        let answers = self
            .with_timed_store::<Vec<Waiting<V>>>(name)
            .with_parts(name, waiting_parts::<V>())
            .process(name, move |context| {
                Ok(MapAsync::<K, V, R, F> {
                    name: store.clone(),
                    policy,
                    call: call.clone(),
                    store: context.timed_store(&store)?,
                    calls: context.calls(policy.limit)?,
                    failed: context.side(&output)?,
                    pending: BTreeMap::new(),
                    unasked: VecDeque::new(),
                    of_key: HashMap::new(),
                    times: BTreeMap::new(),
                    next_call: 0,
                    next_input: 0,
                    due: Due::default(),
                    headers: HeaderList::default(),
                    is_restored: false,
                    key: PhantomData,
                })
            });
        (answers, failed)
    }
}
