//! `effect`: what a job does to the world outside, as rows of its transactions that are delivered after the decision.
//!
//! ```text
//!   record ──► row of the outbox, in the job's transaction ──► the decision ──► delivered, under its key ──► row removed, in a later one
//!                       (with its idempotency key)                     ▲              │
//!                                                                      └── again ─────┴── never ──► dead letter, in that transaction
//! ```
//! Reading order: this file, `target.rs` (effects and what a target answers), `delivery.rs` (one after the other, with pauses),
//! `lanes.rs` (which effect of each key is next), `outbox.rs` (the operator).

mod delivery;
#[cfg(feature = "http")]
mod http;
mod lanes;
mod outbox;
mod target;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use outbox::{Outbox, Waiting, waiting_parts};

use crate::codec::Datum;
use crate::runtime::{Keyed, SideOutput, Upstream};

#[cfg(feature = "http")]
pub use http::HttpTarget;
pub use target::{Delivery, Effect, EffectTarget};

/// The longest pause before an effect is delivered again, unless it is said otherwise.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause that a target can ask for: one that asks for more, by mistake or not, is asked again sooner.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Policy of [`effect`](Keyed::effect).
///
/// ```
/// use std::time::Duration;
/// use onceflow::prelude::*;
///
/// // Of 32 keys at a time; each delivery is given 5 seconds. After one that did not succeed there is a pause of half a second, then of
/// // one, two, four seconds, up to a minute; the twentieth is the last. From 50,000 undelivered effects on the job reads no more.
/// let policy = EffectPolicy::parallel(32)
///     .timeout(Duration::from_secs(5))
///     .pause(Duration::from_millis(500), Duration::from_secs(60))
///     .attempts(20)
///     .undelivered_max(50_000);
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectPolicy {
    limit: usize,
    timeout: Duration,
    pause: Duration,
    pause_max: Duration,
    attempts: Option<u64>,
    undelivered_max: usize,
}

impl EffectPolicy {
    /// Delivers effects of up to `limit` keys at a time, in all workers of a process together, and of at least one in each; those of
    /// one key one after the other. Unless it is said otherwise, a delivery is given 30 seconds, the first pause is 100 ms, each
    /// one twice the last up to a minute, an effect is delivered again without end, and 10,000 may be undelivered.
    #[must_use]
    pub fn parallel(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            timeout: Duration::from_secs(30),
            pause: Duration::from_millis(100),
            pause_max: PAUSE_MAX,
            attempts: None,
            undelivered_max: 10_000,
        }
    }

    /// Bounds the time of a delivery. What became of one that took longer is not known: it is made again, with the same key.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The pause after a delivery that is to be made again; it doubles with each one, up to `longest`.
    #[must_use]
    pub fn pause(self, first: Duration, longest: Duration) -> Self {
        Self {
            pause: first,
            pause_max: longest,
            ..self
        }
    }

    /// Bounds the attempts of an effect; then it is a dead letter. Attempts are counted over restarts: that one failed is
    /// part of the next commit. Those whose commit did not come, because the process was killed, are not counted, so it may be delivered
    /// that much more often. Pauses go on from the count, too.
    #[must_use]
    pub fn attempts(self, attempts: u64) -> Self {
        Self {
            attempts: Some(attempts.max(1)),
            ..self
        }
    }

    /// From how many undelivered effects on the sources of the process stand still. Its workers share the number out: from `count` /
    /// workers in one of them on (at least one), no source of the process reads another record.
    ///
    /// Records read by then are still processed, because the commit that lets their effects be delivered waits for them. So there
    /// are at most `count` effects, and those of what was on its way from the sources: of each pair of workers a batch in the making (4,096
    /// records or 256 KiB, fewer where records are slow or add much state), in each inbox 1/32 of the job's memory or 16 MiB, and behind a
    /// window or a join the results of one step of time. Where records are together by their key in front, it is one record of each worker.
    #[must_use]
    pub fn undelivered_max(self, count: usize) -> Self {
        Self {
            undelivered_max: count.max(1),
            ..self
        }
    }

    /// The pause after so many attempts, of which the target may have asked for one; `None` if the last was the last one.
    fn pause_after(&self, attempts: u64, asked: Option<Duration>) -> Option<Duration> {
        if self.attempts.is_some_and(|most| attempts >= most) {
            return None;
        }
        let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let factor = 2u32.saturating_pow(doublings);
        let own = self.pause.saturating_mul(factor).min(self.pause_max);
        Some(asked.map_or(own, |asked| own.max(asked.min(ASKED_PAUSE_MAX))))
    }
}

impl<K, V, Up> Keyed<K, V, Up>
where
    K: Datum + ?Sized,
    V: Datum + Clone + Serialize + DeserializeOwned,
    Up: Upstream<K, V>,
{
    /// Does something outside for each record: `target` is an `async` function, or an `HttpTarget` (feature `http`). The stream that it
    /// gives has the effects that can never be delivered, with the reason as the header `onceflow.failed` and their
    /// idempotency key as `onceflow.effect`; where it is not used, such an effect stops the job.
    ///
    /// **At least once, under a key.** An effect is a row of the job's transaction, in the store `name`, and is delivered once that is
    /// committed: each effect of a committed transaction is, and none of an aborted one ever is. It may be delivered more than
    /// once, after a crash for example, always with the same [`Effect::idempotency_key`] and the same content: a target that
    /// remembers the keys does each thing exactly once. Those of one key of the stream come in the order of its records: one is first
    /// delivered when the one before it is done, or is a dead letter.
    ///
    /// A slow target holds up no commit; from [`EffectPolicy::undelivered_max`] on sources stand still until some are delivered. The
    /// function answers with a [`Delivery`], or a `Result` whose error means *again*. A panic, or no answer in time, is *again*
    /// too. Where the input ends, the job ends with the last delivery; a stop does not wait for any.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// # enum Answered { Sent, Busy, NoSuchAddress }
    /// # async fn send(_key: String, _to: String, _text: String) -> Answered { Answered::Sent }
    /// let job = Job::new("mails");
    /// let undeliverable = job
    ///     .keyed_source(keyed_topic::<String, String>("texts-by-address"))
    ///     .effect("mail", EffectPolicy::parallel(16), |effect: Effect<String, String>| async move {
    ///         match send(effect.idempotency_key(), effect.key, effect.value).await {
    ///             Answered::Sent => Delivery::Done,
    ///             Answered::Busy => Delivery::again("the mail server is busy"),
    ///             Answered::NoSuchAddress => Delivery::never("there is no such address"),
    ///         }
    ///     });
    /// undeliverable.sink(topic("undeliverable-mails").keep_headers());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("texts-by-address", &"ann@example.org".to_owned(), &"hello".to_owned());
    /// bed.advance(std::time::Duration::from_secs(1));
    /// bed.expect_nothing("undeliverable-mails");
    /// ```
    #[track_caller]
    pub fn effect<T>(self, name: &str, policy: EffectPolicy, target: T) -> Keyed<K, V>
    where
        T: EffectTarget<K::Owned, V>,
    {
        let (output, dead): (SideOutput<K, V>, _) = self.side_output("dead-effects");
        let store = name.to_owned();
        let outbox = self
            .with_timed_store::<Waiting<V>>(name)
            .with_parts(name, waiting_parts::<V>())
            .process(name, move |context| {
                Outbox::open(context, &store, policy, target.clone(), &output)
            });
        dead.belongs_to(&outbox);
        outbox.discard();
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn o11_pauses_double_up_to_their_bound_and_a_target_may_ask_for_longer_ones() {
        let policy = EffectPolicy::parallel(1)
            .pause(ms(100), ms(1_000))
            .attempts(90);
        let pauses = [1, 2, 3, 4, 5, 89].map(|attempts| policy.pause_after(attempts, None));
        let expected = [100, 200, 400, 800, 1_000, 1_000].map(|millis| Some(ms(millis)));
        assert_eq!(pauses, expected);
        assert_eq!(policy.pause_after(90, Some(ms(1))), None);
        assert_eq!(policy.pause_after(2, Some(ms(1))), Some(ms(200)));
        assert_eq!(policy.pause_after(2, Some(ms(5_000))), Some(ms(5_000)));
        let year = Duration::from_secs(365 * 86_400);
        assert_eq!(policy.pause_after(2, Some(year)), Some(ASKED_PAUSE_MAX));
        let endless = EffectPolicy::parallel(1);
        assert_eq!(endless.pause_after(u64::MAX, None), Some(PAUSE_MAX));
    }
}
