//! `retry`: asks again while the broker says "later", with growing pauses and a bound.

use std::time::Duration;

use super::ClientError;
use super::wait::pause;
use crate::env::Env;
use crate::protocol::{ErrorCode, ErrorKind};

/// The first pause; Kafka's clients use it after `CONCURRENT_TRANSACTIONS`, which mostly is over by then.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// No pause is longer (`retry.backoff.max.ms`).
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Doubling from 20 ms to 1 s and staying there, so many attempts last about a minute (`default.api.timeout.ms`).
const ATTEMPTS_MAX: u32 = 64;

/// The first answer of `send` that is not a retriable error, or the last error.
pub(super) async fn retry<T, F>(env: &Env, mut send: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut delay = PAUSE_MIN;
    for _ in 1..ATTEMPTS_MAX {
        match send().await {
            Err(e) if is_worth_a_retry(&e) => {}
            answer => return answer,
        }
        pause(env, delay).await?;
        delay = (delay * 2).min(PAUSE_MAX);
    }
    send().await
}

/// Neither a missing topic nor space on a full disk appears by waiting.
fn is_worth_a_retry(error: &ClientError) -> bool {
    let waits_for_people = matches!(
        error.code(),
        Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::KafkaStorageError)
    );
    error.kind() == ErrorKind::Retriable && !waits_for_people
}
