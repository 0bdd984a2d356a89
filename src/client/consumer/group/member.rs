//! `Member`: what both protocols do alike: ask, wait, lose, give up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{Either, FutureExt, Shared as SharedFuture, select};

use super::shared::{Closing, Shared};
use crate::client::consumer::ConsumerConfig;
use crate::client::transport::Reply;
use crate::client::{ClientError, Transport, wait};
use crate::env::{Env, Instant};
use crate::protocol::messages::GroupMember;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{GroupId, TopicName, TopicPartition};

/// The pause after an answer that says "later" (`retry.backoff.ms`).
const BACKOFF: Duration = Duration::from_millis(100);
/// Interval of looks at a member that does not poll.
const IDLE_CHECK: Duration = Duration::from_millis(100);

/// Reason for a thread's end.
pub(super) enum Stop {
    /// It was asked to.
    Closing,
    /// The group will not have it.
    Failed(ClientError),
}

impl From<Closing> for Stop {
    fn from(Closing: Closing) -> Self {
        Self::Closing
    }
}

/// A member of a group, on its thread.
pub(super) struct Member {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) shared: Arc<Shared>,
    pub(super) config: ConsumerConfig,
    pub(super) group: GroupId,
    pub(super) topics: Vec<TopicName>,
    pub(super) member_id: String,
    /// Generation or member epoch.
    pub(super) generation: i32,
    /// Partitions read, once the consumer has applied what was published.
    pub(super) owned: BTreeSet<TopicPartition>,
    closing: SharedFuture<oneshot::Receiver<()>>,
}

impl Member {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        shared: Arc<Shared>,
        config: ConsumerConfig,
        group: GroupId,
        topics: Vec<TopicName>,
        closing: oneshot::Receiver<()>,
    ) -> Self {
        Self {
            transport,
            shared,
            config,
            group,
            topics,
            member_id: String::new(),
            generation: -1,
            owned: BTreeSet::new(),
            closing: closing.shared(),
        }
    }

    pub(super) fn env(&self) -> &Env {
        self.transport.env()
    }

    pub(super) fn now(&self) -> Instant {
        self.env().clock.now()
    }

    /// Waits for an answer, or for the end.
    pub(super) fn ask<T>(&self, reply: Reply<T>) -> Result<Result<T, ClientError>, Stop> {
        match wait(select(reply, self.closing.clone())) {
            Either::Left((answer, _)) => Ok(answer),
            Either::Right(_) => Err(Stop::Closing),
        }
    }

    /// Judges an error for the membership: after this the member joins anew, unless it stops.
    pub(super) fn judge(&mut self, error: ClientError) -> Result<(), Stop> {
        match error.code() {
            Some(ErrorCode::RebalanceInProgress) => {}
            Some(ErrorCode::UnknownMemberId) => {
                self.member_id.clear();
                self.lose();
            }
            Some(ErrorCode::IllegalGeneration | ErrorCode::FencedMemberEpoch) => self.lose(),
            _ if error.kind() == ErrorKind::Retriable => self.back_off()?,
            _ => return Err(Stop::Failed(error)),
        }
        Ok(())
    }

    pub(super) fn back_off(&self) -> Result<(), Stop> {
        let end = self.now().plus(BACKOFF);
        Ok(self.shared.sleep(end)?)
    }

    /// Others may have the partitions by now: nothing can be committed any more.
    pub(super) fn lose(&mut self) {
        self.generation = -1;
        self.owned.clear();
        self.shared.publish(BTreeSet::new(), true);
    }

    /// Lets commits be those of this member.
    pub(super) fn confirm(&self) {
        self.shared.set_member(GroupMember {
            generation: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.config.group_instance_id.clone(),
        });
    }

    /// Whether nobody has polled for too long.
    pub(super) fn is_overdue(&self) -> bool {
        self.shared.idle() > self.config.max_poll_interval
    }

    /// After having left because nobody polled: waits until somebody does.
    pub(super) fn wait_for_a_poll(&self) -> Result<(), Stop> {
        crate::env::warn!(
            group = %self.group,
            "nobody polled for max.poll.interval.ms: the consumer has left its group; process less in one poll, or raise the setting"
        );
        while self.is_overdue() {
            let end = self.now().plus(IDLE_CHECK);
            self.shared.sleep(end)?;
        }
        Ok(())
    }
}
