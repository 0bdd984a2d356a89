//! The delivery of the effects of one key, one after the other, each until its fate is known.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use super::EffectPolicy;
use super::target::{Delivery, Effect, EffectTarget};
use crate::runtime::{Answers, CallClock};

/// From this attempt on the log tells of an effect that is not delivered, and whenever the number of its attempts has doubled.
const WARN_FROM: u64 = 4;

/// News of an effect.
pub(super) enum Told {
    /// Attempts that have failed, those before this start among them; another one follows.
    Failed(u64),
    /// Its fate is known.
    Over(Fate),
}

/// The fate of an effect.
pub(super) enum Fate {
    Delivered,
    /// Never, for this reason.
    Dead(String),
}

/// Delivers effects of one key in order; the next one begins when the fate of the last is known. With each is how many attempts at it
/// have failed.
pub(super) async fn deliver_in_order<K, V, T>(
    effects: Vec<(Effect<K, V>, u64)>,
    target: T,
    (policy, clock): (EffectPolicy, CallClock),
    answers: Answers<Told>,
) where
    K: Clone,
    V: Clone,
    T: EffectTarget<K, V>,
{
    let mut effects = effects.into_iter().peekable();
    while let Some((effect, failed)) = effects.next() {
        let fate = deliver(effect, failed, &target, (policy, &clock), &answers).await;
        if effects.peek().is_none() {
            return answers.give_last(Told::Over(fate));
        }
        answers.give(Told::Over(fate));
    }
}

async fn deliver<K, V, T>(
    effect: Effect<K, V>,
    failed: u64,
    target: &T,
    (policy, clock): (EffectPolicy, &CallClock),
    answers: &Answers<Told>,
) -> Fate
where
    K: Clone,
    V: Clone,
    T: EffectTarget<K, V>,
{
    let mut attempts = failed;
    loop {
        attempts = attempts.saturating_add(1);
        let (why, asked) = match attempt(effect.clone(), target, (policy, clock)).await {
            Delivery::Done => return Fate::Delivered,
            Delivery::Never { why } => return Fate::Dead(why),
            Delivery::Again { why, after } => (why, after),
        };
        let Some(pause) = policy.pause_after(attempts, asked) else {
            return Fate::Dead(format!("{why} (the last of {attempts} attempts)"));
        };
        if attempts >= WARN_FROM && attempts.is_power_of_two() {
            answers.warn(&effect.idempotency_key(), attempts, &why);
        }
        if policy.attempts.is_some() {
            // O6: the number is state, so that a start does not count anew.
            answers.give(Told::Failed(attempts));
        }
        clock.pause(pause).await;
    }
}

/// One delivery. O6: where nobody knows whether it took effect, it is neither done nor failed, and is made again under its key.
async fn attempt<K, V, T: EffectTarget<K, V>>(
    effect: Effect<K, V>,
    target: &T,
    (policy, clock): (EffectPolicy, &CallClock),
) -> Delivery {
    let once = AssertUnwindSafe(async { target.deliver(effect).await }).catch_unwind();
    match clock.within(policy.timeout, once).await {
        Some(Ok(answer)) => answer,
        Some(Err(_)) => Delivery::again("the target's function panicked"),
        None => Delivery::again(format!("no answer within {:?}", policy.timeout)),
    }
}
