//! Subscribing to topics: the partitions come and go with the group, and a listener may be told.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::select;
use futures::pin_mut;
use parking_lot::Mutex;

use super::group::{Group, Shared};
use super::{Assigned, Consumer};
use crate::client::ClientError;
use crate::client::wait::pause;
use crate::codec::Datum;
use crate::protocol::messages::GroupMember;
use crate::types::{Offset, TopicName, TopicPartition};

/// Is told, by polls, which partitions a subscribed consumer gets and gives up.
pub trait RebalanceListener: Send + 'static {
    /// These partitions are read from now on, in addition to those before.
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }

    /// These partitions are given up, with the positions that were reached, committed already if `enable.auto.commit`
    /// is set. No other member reads them before this returns.
    fn revoked(&mut self, partitions: &[(TopicPartition, Option<Offset>)]) {
        let _ = partitions;
    }

    /// These partitions are lost: another member may read them already, and nothing can be committed.
    fn lost(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }
}

/// A listener that does not care.
struct Indifferent;

impl RebalanceListener for Indifferent {}

/// A consumer's subscription.
pub(super) struct Subscribed {
    group: Group,
    /// Behind a mutex that nobody waits for: so that tasks which hold a consumer may go on on another thread.
    listener: Mutex<Box<dyn RebalanceListener>>,
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> Consumer<K, V> {
    /// Reads these topics as a member of the group `group.id`, which shares the partitions out. Joining happens in the
    /// background; polls return records once the group has given partitions. An earlier subscription ends.
    ///
    /// # Errors
    /// If there is no `group.id`, or no thread can be started.
    pub fn subscribe(
        &mut self,
        topics: impl IntoIterator<Item = TopicName>,
    ) -> Result<(), ClientError> {
        self.subscribe_with(topics, Indifferent)
    }

    /// As [`Consumer::subscribe`], and tells `listener` which partitions come and go.
    ///
    /// # Errors
    /// As [`Consumer::subscribe`].
    pub fn subscribe_with(
        &mut self,
        topics: impl IntoIterator<Item = TopicName>,
        listener: impl RebalanceListener,
    ) -> Result<(), ClientError> {
        let topics: BTreeSet<_> = topics.into_iter().collect();
        self.assign([]);
        let transport = self.transport.clone();
        let topics = topics.into_iter().collect();
        let group = Group::join(transport, &self.config, self.group()?, topics)?;
        self.subscribed = Some(Subscribed {
            group,
            listener: Mutex::new(Box::new(listener)),
        });
        Ok(())
    }

    /// Leaves the group, after having committed the positions if `enable.auto.commit` is set. The consumer reads nothing
    /// until it subscribes or assigns anew.
    ///
    /// # Errors
    /// If the positions could not be committed; the group is left all the same.
    pub async fn unsubscribe(&mut self) -> Result<(), ClientError> {
        if self.subscribed.is_none() {
            return Ok(());
        }
        let commits = self.config.enable_auto_commit && self.is_member();
        let committed = match commits {
            true => self.commit_positions(self.positions()).await,
            false => Ok(()),
        };
        let subscribed = self.subscribed.take();
        self.assign([]);
        if let Some(subscribed) = subscribed {
            subscribed.group.leave().await;
        }
        committed
    }

    /// Ends the consumer: as [`Consumer::unsubscribe`]. Dropping it instead leaves the group in the background, and
    /// commits nothing.
    ///
    /// # Errors
    /// As [`Consumer::unsubscribe`].
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.unsubscribe().await
    }

    /// Who this consumer is in its group, for positions that a producer commits in its transaction
    /// ([`Producer::send_offsets`](crate::client::Producer)): they are refused once another member has the partitions
    /// (KIP-447). After a loss it is who lost them, until a poll has told so. Without a subscription, nobody.
    #[must_use]
    pub fn group_member(&self) -> GroupMember {
        let subscribed = self.subscribed.as_ref();
        subscribed.map_or_else(GroupMember::default, |it| it.group.shared.member())
    }

    /// Whether the partitions are this consumer's to commit: it reads what it was told to, or its group knows it.
    pub(super) fn is_member(&self) -> bool {
        let subscribed = self.subscribed.as_ref();
        subscribed.is_none_or(|it| it.group.shared.is_member())
    }

    pub(super) fn begin_poll(&self) -> Option<impl Drop + use<K, V>> {
        let subscribed = self.subscribed.as_ref()?;
        Some(Shared::begin_poll(&subscribed.group.shared))
    }

    /// Makes the assignment what the group wants it to be.
    pub(super) async fn follow_group(&mut self) -> Result<(), ClientError> {
        while let Some(subscribed) = &self.subscribed {
            let Some(desired) = subscribed.group.shared.desired()? else {
                return Ok(());
            };
            let is_gone =
                |it: &&TopicPartition| desired.is_lost || !desired.partitions.contains(it);
            let gone = self.assigned.keys().filter(is_gone);
            let gone: Vec<_> = gone.cloned().collect();
            if !desired.is_lost && self.config.enable_auto_commit {
                self.commit_before_revocation(&gone).await;
            }
            self.give_up(&gone, desired.is_lost);
            self.take_over(&desired.partitions);
            if let Some(subscribed) = &self.subscribed {
                subscribed.group.shared.applied(desired.version);
            }
        }
        Ok(())
    }

    /// The next owner goes on at the committed positions. If they cannot be committed, it reads some records again.
    async fn commit_before_revocation(&self, gone: &[TopicPartition]) {
        let mut positions = self.positions();
        positions.retain(|(partition, _)| gone.contains(partition));
        self.commit_or_warn(positions).await;
    }

    async fn commit_or_warn(&self, positions: Vec<(TopicPartition, Offset)>) {
        if positions.is_empty() {
            return;
        }
        if let Err(error) = self.commit_positions(positions).await {
            crate::env::warn!(%error, "positions were not committed: their records will be read again");
        }
    }

    fn give_up(&mut self, gone: &[TopicPartition], is_lost: bool) {
        let removed = gone.iter().map(|partition| {
            let assigned = self.assigned.remove(partition);
            (partition.clone(), assigned.and_then(|it| it.position))
        });
        let removed: Vec<_> = removed.collect();
        let Some(subscribed) = self.subscribed.as_mut().filter(|_| !gone.is_empty()) else {
            return;
        };
        match is_lost {
            true => subscribed.listener.get_mut().lost(gone),
            false => subscribed.listener.get_mut().revoked(&removed),
        }
    }

    fn take_over(&mut self, desired: &BTreeSet<TopicPartition>) {
        let is_new = |it: &&TopicPartition| !self.assigned.contains_key(*it);
        let new: Vec<_> = desired.iter().filter(is_new).cloned().collect();
        for partition in &new {
            self.assigned.insert(partition.clone(), Assigned::default());
        }
        if let Some(subscribed) = self.subscribed.as_mut().filter(|_| !new.is_empty()) {
            subscribed.listener.get_mut().assigned(&new);
        }
    }

    /// Commits what earlier polls have returned, if it is time to.
    pub(super) async fn auto_commit(&mut self) {
        let now = self.now();
        let is_due = now.since(self.last_auto_commit) >= self.config.auto_commit_interval;
        if !self.config.enable_auto_commit || !is_due || !self.is_member() {
            return;
        }
        self.last_auto_commit = now;
        // Not again while the group rebalances: polls go on meanwhile, and the next commit says the same and more.
        if let Err(error) = self.commit_positions_now(self.positions()).await {
            crate::env::warn!(%error, "positions were not committed; they are again in auto.commit.interval.ms");
        }
    }

    /// Waits for `duration`, or until the group wants something else to be read.
    pub(super) async fn pause_or_rebalance(&self, duration: Duration) -> Result<(), ClientError> {
        let pause = pause(self.transport.env(), duration);
        let Some(subscribed) = &self.subscribed else {
            return pause.await;
        };
        let changed = subscribed.group.shared.changed();
        pin_mut!(pause, changed);
        select(pause, changed).await;
        Ok(())
    }
}
