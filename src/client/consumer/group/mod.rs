//! `Group`: a consumer's membership, kept alive by a thread of its own.
//!
//! ```text
//!   of-member (thread)                                   the consumer's polls
//!   joins, heartbeats  ──── desired partitions, n ────►  commits, calls the listener, takes over
//!                      ◄─── applied n ─────────────────
//! ```
//! The thread says what is to be read, a poll makes it so: between two polls nothing is taken away, and a partition is
//! given on only after a poll has let go of it. Who does not poll for `max.poll.interval.ms` leaves the group and is told
//! that its partitions are lost.
//!
//! Reading order: `shared.rs`, `member.rs`, `classic.rs`, `kip848.rs`, `leader.rs`.

mod classic;
mod kip848;
mod leader;
mod member;
mod shared;

use std::sync::Arc;

use futures::channel::oneshot;
use futures::future::{FutureExt, Shared as SharedFuture};

use self::member::Member;
pub(super) use self::shared::Shared;
use super::ConsumerConfig;
use super::config::GroupProtocol;
use crate::client::{ClientError, Transport};
use crate::types::{GroupId, TopicName};

/// A membership. Dropping it leaves the group in the background.
pub(super) struct Group {
    pub(super) shared: Arc<Shared>,
    ended: SharedFuture<oneshot::Receiver<()>>,
}

impl Group {
    /// Begins to join `id`.
    pub(super) fn join(
        transport: Arc<dyn Transport>,
        config: &ConsumerConfig,
        id: GroupId,
        topics: Vec<TopicName>,
    ) -> Result<Self, ClientError> {
        let env = transport.env().clone();
        let (shared, closing) = Shared::new(env.clone());
        let (done, ended) = oneshot::channel();
        let member = Member::new(
            transport,
            shared.clone(),
            config.clone(),
            id,
            topics,
            closing,
        );
        let run = move || {
            match member.config.group_protocol {
                GroupProtocol::Classic => classic::run(member),
                GroupProtocol::Consumer => kip848::run(member),
            }
            // Nobody listens if the consumer was dropped.
            let _ = done.send(());
        };
        let spawned = env.spawn.spawn("of-member", Box::new(run));
        spawned.map_err(|e| ClientError::Thread {
            name: "of-member".to_owned(),
            why: e.to_string(),
        })?;
        Ok(Self {
            shared,
            ended: ended.shared(),
        })
    }

    /// Leaves the group; a static classic member stays until its session ends.
    pub(super) async fn leave(&self) {
        self.shared.close();
        // A thread that died has ended, too.
        let _ = self.ended.clone().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.shared.close();
    }
}
