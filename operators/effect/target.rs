//! An effect as its target sees it, and the target's answer.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::{CallId, HeaderList};
use crate::types::Timestamp;

/// An effect that is to be delivered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Effect<K, V> {
    /// The key of its record.
    pub key: K,
    /// The value of its record.
    pub value: V,
    /// The time of its record.
    pub timestamp: Timestamp,
    /// The headers of its record.
    pub headers: HeaderList,
    /// Its id: the same each time it is delivered, and of no other effect.
    pub id: CallId,
    pub(super) job: Arc<str>,
}

impl<K, V> Effect<K, V> {
    /// The idempotency key, `job/incarnation/epoch/sequence`: the same each time this effect is delivered, whatever was killed,
    /// restarted or handed over in between, and of no other effect, not even of one of the same job on another log, or after it went
    /// back to a savepoint.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.job, self.id)
    }

    /// The name of the job.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.job
    }
}

/// The answer of a target to an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It is done, now or at an earlier delivery.
    Done,
    /// It is not done, or nobody knows: it is to be delivered again, after the pause of the policy.
    Again {
        /// The reason, for people.
        why: String,
        /// The shortest pause before the next delivery, where the target asks for one; an hour at most.
        after: Option<Duration>,
    },
    /// It can never be done: it becomes a dead letter.
    Never {
        /// The reason, which goes with the dead letter.
        why: String,
    },
}

impl Delivery {
    /// To be delivered again, for this reason.
    #[must_use]
    pub fn again(why: impl Display) -> Self {
        Self::Again {
            why: why.to_string(),
            after: None,
        }
    }

    /// To be delivered again, for this reason, and not before this pause.
    #[must_use]
    pub fn again_after(pause: Duration, why: impl Display) -> Self {
        Self::Again {
            why: why.to_string(),
            after: Some(pause),
        }
    }

    /// Not to be delivered any more, for this reason.
    #[must_use]
    pub fn never(why: impl Display) -> Self {
        Self::Never {
            why: why.to_string(),
        }
    }
}

/// An error means *again*.
impl<E: Display> std::convert::From<Result<(), E>> for Delivery {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) => Self::again(error),
        }
    }
}

/// The place where effects are delivered: an `async` function of an [`Effect`] that gives a [`Delivery`] or a `Result`.
///
/// It must not block its thread, which all deliveries of the process share; a delivery is given up by dropping it where it takes too long.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no target for effects of these records (key `{K}`, value `{V}`)",
    note = "a target is `|effect: Effect<{K}, {V}>| async move {{ … }}`, which gives a `Delivery`, or a `Result<(), _>` whose error means \
            that it is delivered again"
)]
pub trait EffectTarget<K, V>: Clone + Send + Sync + 'static {
    /// Delivers an effect. It may have been delivered before: its key tells.
    fn deliver(&self, effect: Effect<K, V>) -> impl Future<Output = Delivery> + Send;
}

impl<K, V, F, Fut> EffectTarget<K, V> for F
where
    K: Send,
    V: Send,
    F: Fn(Effect<K, V>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: Into<Delivery>> + Send,
{
    async fn deliver(&self, effect: Effect<K, V>) -> Delivery {
        self(effect).await.into()
    }
}
