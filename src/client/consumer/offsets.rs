//! The consumer's positions: looked up, sought, committed, compared with the ends of the partitions.

use super::{Consumer, OffsetReset};
use crate::client::ClientError;
use crate::client::retry::retry;
use crate::client::settings::config_error;
use crate::client::transport::FetchedOffset;
use crate::codec::Datum;
use crate::protocol::messages::{
    CommittedOffset, ListedOffset, OffsetCommitRequest, OffsetFetchRequest, OffsetSpec,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{GroupId, Isolation, Offset, Timestamp, TopicPartition};

impl<K: ?Sized + Datum, V: ?Sized + Datum> Consumer<K, V> {
    /// The offset of the next record that a poll returns; `None` before the first poll, unless sought.
    ///
    /// # Errors
    /// If the partition is not assigned.
    pub fn position(&self, partition: &TopicPartition) -> Result<Option<Offset>, ClientError> {
        let assigned = self.assigned.get(partition);
        assigned
            .map(|assigned| assigned.position)
            .ok_or_else(|| ClientError::NotAssigned {
                partition: partition.clone(),
            })
    }

    /// All positions known.
    #[must_use]
    pub fn positions(&self) -> Vec<(TopicPartition, Offset)> {
        let known = self.assigned.iter();
        known
            .filter_map(|(partition, assigned)| Some((partition.clone(), assigned.position?)))
            .collect()
    }

    /// Continues at the first record of all assigned partitions.
    ///
    /// # Errors
    /// If a partition does not exist.
    pub async fn seek_to_beginning(&mut self) -> Result<(), ClientError> {
        self.seek_all(OffsetSpec::Earliest).await
    }

    /// Continues behind the last visible record of all assigned partitions.
    ///
    /// # Errors
    /// If a partition does not exist.
    pub async fn seek_to_end(&mut self) -> Result<(), ClientError> {
        self.seek_all(OffsetSpec::Latest).await
    }

    /// Continues, in all assigned partitions, at the first record of that time or later; at the end
    /// where there is none.
    ///
    /// # Errors
    /// If a partition does not exist.
    pub async fn seek_to_time(&mut self, time: Timestamp) -> Result<(), ClientError> {
        self.seek_all(OffsetSpec::Timestamp(time)).await
    }

    async fn seek_all(&mut self, spec: OffsetSpec) -> Result<(), ClientError> {
        let partitions: Vec<_> = self.assigned.keys().cloned().collect();
        for partition in partitions {
            let offset = match self.list(&partition, spec).await? {
                Some(listed) => listed.offset,
                None => self.end_offset(&partition).await?,
            };
            self.seek(&partition, offset)?;
        }
        Ok(())
    }

    /// The first record of that time or later, for each partition that has one.
    ///
    /// # Errors
    /// If a partition does not exist.
    pub async fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, Timestamp)>,
    ) -> Result<Vec<(TopicPartition, Option<ListedOffset>)>, ClientError> {
        let mut found = Vec::new();
        for (partition, time) in times {
            let listed = self.list(&partition, OffsetSpec::Timestamp(time)).await?;
            found.push((partition, listed));
        }
        Ok(found)
    }

    /// The partition's first offset.
    ///
    /// # Errors
    /// If the partition does not exist.
    pub async fn beginning_offset(
        &self,
        partition: &TopicPartition,
    ) -> Result<Offset, ClientError> {
        let listed = self.list(partition, OffsetSpec::Earliest).await?;
        Ok(listed.map_or(Offset::ZERO, |listed| listed.offset))
    }

    /// One past the last offset that may be seen: the last stable offset at `read_committed`.
    ///
    /// # Errors
    /// If the partition does not exist.
    pub async fn end_offset(&self, partition: &TopicPartition) -> Result<Offset, ClientError> {
        let listed = self.list(partition, OffsetSpec::Latest).await?;
        Ok(listed.map_or(Offset::ZERO, |listed| listed.offset))
    }

    /// Returns the offsets from the position to the end; markers and aborted records count too.
    /// `None` while there is no position.
    ///
    /// # Errors
    /// If the partition is not assigned, or does not exist.
    pub async fn lag(&self, partition: &TopicPartition) -> Result<Option<i64>, ClientError> {
        let Some(position) = self.position(partition)? else {
            return Ok(None);
        };
        let end = self.end_offset(partition).await?;
        Ok(Some(end.since(position).max(0)))
    }

    /// Commits the positions of all assigned partitions, outside of any transaction.
    ///
    /// # Errors
    /// If there is no `group.id`, or the group refuses.
    pub async fn commit(&self) -> Result<(), ClientError> {
        self.commit_positions(self.positions()).await
    }

    pub(super) async fn commit_positions(
        &self,
        positions: Vec<(TopicPartition, Offset)>,
    ) -> Result<(), ClientError> {
        self.commit_offsets(as_offsets(positions)).await
    }

    /// As [`Consumer::commit_positions`], but doesn't wait while the group rebalances.
    pub(super) async fn commit_positions_now(
        &self,
        positions: Vec<(TopicPartition, Offset)>,
    ) -> Result<(), ClientError> {
        let (group, offsets) = (self.group()?, as_offsets(positions));
        let send = || self.send_commit(&group, &offsets);
        match offsets.is_empty() {
            true => Ok(()),
            false => retry(self.transport.env(), send).await,
        }
    }

    /// Commits these positions, outside of any transaction. While the group rebalances it waits, and commits as a member
    /// of the next generation what is still assigned.
    ///
    /// # Errors
    /// If there is no `group.id`, or the group refuses: it does once the partitions were lost.
    pub async fn commit_offsets(
        &self,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<(), ClientError> {
        let group = self.group()?;
        if offsets.is_empty() {
            return Ok(());
        }
        let send = || async {
            let sent = self.send_commit(&group, &offsets).await;
            sent.map_err(|error| self.judge_commit(error, &offsets))
        };
        retry(self.transport.env(), send).await
    }

    /// Who commits may be another one than at the last attempt.
    async fn send_commit(
        &self,
        group: &GroupId,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<(), ClientError> {
        let request = OffsetCommitRequest {
            group: group.clone(),
            member: self.group_member(),
            offsets: offsets.to_vec(),
        };
        self.transport.offset_commit(request).await
    }

    /// A refusal because the group has gone on without this member's last word is over once it has joined again. Nobody
    /// else is given what it still reads before it has let go of it.
    fn judge_commit(
        &self,
        error: ClientError,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> ClientError {
        let ClientError::Refused {
            request,
            code,
            message,
            kind,
        } = error
        else {
            return error;
        };
        let kind = match code {
            ErrorCode::IllegalGeneration
            | ErrorCode::RebalanceInProgress
            | ErrorCode::StaleMemberEpoch
                if self.subscribed.is_some() =>
            {
                let mut partitions = offsets.iter().map(|(partition, _)| partition);
                let are_mine = partitions.all(|it| self.assigned.contains_key(it));
                match self.is_member() && are_mine {
                    true => ErrorKind::Retriable,
                    false => ErrorKind::Abortable,
                }
            }
            _ => kind,
        };
        ClientError::Refused {
            request,
            code,
            message,
            kind,
        }
    }

    /// The positions that the group committed. At `read_committed` it waits while an open transaction
    /// holds one of them, so that no record is read twice (C27).
    ///
    /// # Errors
    /// If there is no `group.id`, or a transaction held a position for too long.
    pub async fn committed(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<FetchedOffset>, ClientError> {
        let request = OffsetFetchRequest {
            group: self.group()?,
            partitions: Some(partitions),
            require_stable: self.config.isolation == Isolation::ReadCommitted,
        };
        let send = || self.transport.offset_fetch(request.clone());
        retry(self.transport.env(), send).await
    }

    pub(super) fn group(&self) -> Result<GroupId, ClientError> {
        let group = self.config.group_id.clone();
        group.ok_or_else(|| config_error("group.id", "", "committed positions need one"))
    }

    async fn list(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
    ) -> Result<Option<ListedOffset>, ClientError> {
        let isolation = self.config.isolation;
        self.transport.list_offset(partition, spec, isolation).await
    }

    /// Looks up the positions that are missing: committed ones first, then by `auto.offset.reset`.
    pub(super) async fn find_positions(&mut self) -> Result<(), ClientError> {
        let missing = self.assigned.iter().filter(|(_, a)| a.position.is_none());
        let missing: Vec<_> = missing.map(|(partition, _)| partition.clone()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let committed = match self.config.group_id {
            Some(_) => self.committed(missing.clone()).await?,
            None => Vec::new(),
        };
        for (partition, offset) in committed {
            if let (Some(offset), Some(assigned)) = (offset, self.assigned.get_mut(&partition)) {
                assigned.seek(offset.offset);
            }
        }
        for partition in missing {
            if self.position(&partition)?.is_none() {
                let offset = self.reset_offset(&partition).await?;
                self.seek(&partition, offset)?;
            }
        }
        Ok(())
    }

    async fn reset_offset(&self, partition: &TopicPartition) -> Result<Offset, ClientError> {
        match self.config.auto_offset_reset {
            OffsetReset::None => Err(ClientError::NoPosition {
                partition: partition.clone(),
            }),
            OffsetReset::Earliest => self.beginning_offset(partition).await,
            OffsetReset::Latest => self.end_offset(partition).await,
        }
    }
}

fn as_offsets(positions: Vec<(TopicPartition, Offset)>) -> Vec<(TopicPartition, CommittedOffset)> {
    let offsets = positions.into_iter().map(|(partition, offset)| {
        let committed = CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        (partition, committed)
    });
    offsets.collect()
}
