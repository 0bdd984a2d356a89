//! A commit, in the order that matters: positions, then the decision, then what RocksDB may know.
//!
//! In a job that is scaled out it may have to wait between the first two, until the instances agree anew on who has what. The driver
//! does not block then: its next turns go on where this one stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::{Span, debug, info_span};

use super::Driver;
use super::measuring::Moments;
use super::read_topics::source_topic;
use crate::client::{CommitOutcome, Offered, wait};
use crate::env::{Instant, failpoint};
use crate::protocol::messages::{CommittedOffset, GroupMember};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::{Position, Split};
use crate::runtime::task::changelog::Flush;
use crate::runtime::task::cycle::{Effect, Event};
use crate::runtime::task::inbox::Message;
use crate::runtime::task::progress::Untold;
use crate::runtime::task::splits::SplitPlan;
use crate::types::{TopicName, TopicPartition};

/// A drained cycle that is being committed.
pub(super) struct Committing {
    writer: usize,
    span: Span,
    moments: Moments,
    /// The positions that the cycle moved, by split number.
    moved: BTreeMap<u32, Position>,
    /// Flushes for RocksDB, by worker.
    flushes: Vec<(usize, Flush)>,
    /// The moved positions of topics' partitions, which the log is to get.
    offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// The generation of the group that has refused them, if one has.
    refused: Option<i32>,
    /// Since when it is waited for who may send them.
    since: Instant,
    /// Effects behind the commit, and the event that asked for them.
    pub(super) then: (Event, Vec<Effect>),
}

impl Driver {
    /// Begins to commit the drained cycle: what belongs to its transaction besides the positions of topics.
    pub(super) fn begin_commit(&mut self, writer: usize) -> Result<Committing, JobError> {
        let cycle = self.span.take().unwrap_or_else(Span::none);
        let span = info_span!(parent: &cycle, "commit", job = %self.job.name, writer);
        let entered = span.clone().entered();
        if self.progress.quarantine.is_doomed() {
            return Err(JobError::NotCommitted {
                job: self.job.name.clone(),
            });
        }
        let mut moments = Moments::new(&self.job.env);
        let (mut moved, mut flushes) = (BTreeMap::new(), Vec::new());
        let mut marks = Vec::new();
        for drained in self.drained.drain(..) {
            moments.flushed(drained.flushed_in);
            moved.extend(drained.positions);
            marks.extend(drained.marks);
            flushes.extend(
                drained
                    .flushes
                    .into_iter()
                    .map(|flush| (drained.worker, flush)),
            );
        }
        moved.retain(|split, at| self.committed.get(split) != Some(at));
        for (sink, changes) in &marks {
            self.positions.append_marks(writer, sink, changes)?;
        }
        // With the first values of their types, so that nobody finds the one without the other.
        for noted in self.unnoted.drain(..) {
            self.positions.append_schema(writer, &noted)?;
        }
        self.reserve_epochs(writer)?;
        let offsets = self.write_positions(writer, &moved)?;
        drop(entered);
        Ok(Committing {
            writer,
            span,
            moments,
            moved,
            flushes,
            offsets,
            refused: None,
            since: self.job.env.clock.now(),
            then: (Event::Drained, Vec::new()),
        })
    }

    /// Whether a commit waits until the instances of the job agree anew.
    pub(super) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// In how long the commit that waits is to be looked at, if one does and nothing else brings that about.
    pub(super) fn commit_waits_at_most(&self) -> Option<Duration> {
        let (share, committing) = (self.share.as_ref()?, self.committing.as_ref()?);
        let Committing { refused, since, .. } = **committing;
        Some(share.membership.commit_waits_at_most(refused, since))
    }

    /// Blocks until it can go on, for a moment at most.
    pub(super) fn wait_for_member(&self) {
        if let (Some(share), Some(committing)) = (&self.share, &self.committing) {
            share.membership.wait_for_member(committing.refused);
        }
    }

    /// Commits as far as can be, and does what follows if that is to the end; `true` once the job is finished.
    pub(super) fn go_on_committing(
        &mut self,
        mut committing: Box<Committing>,
    ) -> Result<bool, JobError> {
        let entered = committing.span.clone().entered();
        if !self.send_offsets(&mut committing)? {
            self.committing = Some(committing);
            return Ok(false);
        }
        committing.moments.positions_sent(&self.job.env);
        let (event, then) = (committing.then.0, std::mem::take(&mut committing.then.1));
        self.end_commit(*committing)?;
        drop(entered);
        self.have_effects(event, then)
    }

    /// The decision, then what RocksDB may know.
    fn end_commit(&mut self, committing: Committing) -> Result<(), JobError> {
        let Committing {
            writer,
            mut moments,
            mut moved,
            flushes,
            ..
        } = committing;
        failpoint("cycle.offsets_sent");
        let _untold = Untold::of(&self.progress);
        match wait(self.job.writers[writer].commit())? {
            CommitOutcome::Committed => {}
            outcome @ (CommitOutcome::Aborted | CommitOutcome::Unknown) => {
                debug!(?outcome, "the cycle did not commit for certain");
                return Err(JobError::NotCommitted {
                    job: self.job.name.clone(),
                });
            }
        }
        moments.ended(&self.job.env, self.job.writers[writer].last_end());
        failpoint("cycle.committed");
        // Before RocksDB hears of it, and before anybody is told.
        self.job.backend.views().publish();
        self.job.calls.note_committed();
        self.broadcast(|| Message::Committed);
        let (latency, cycle) = moments.told(&self.job.env, self.times.take(), self.drained_records);
        // Counted before the positions tell that the job has come so far.
        self.note_committed(&moved);
        self.progress.committed(&moved, latency, cycle);
        self.note_read_for_good(&moved);
        self.committed.append(&mut moved);
        // I7: the decision is durable; from here on RocksDB may hold what the cycle wrote.
        flushes
            .into_iter()
            .try_for_each(|(worker, flush): (usize, Flush)| self.hand_over(worker, flush))?;
        failpoint("cycle.applied");
        self.prepare_savepoint()
    }

    /// Hands values over to RocksDB. They are as of the commit carried out last, and so is the position of a table in its topic, where
    /// that is its changelog.
    pub(super) fn hand_over(&mut self, worker: usize, mut flush: Flush) -> Result<(), JobError> {
        if let Some(source) = self.job.source_changelogs.get(flush.batch.store()) {
            let place = |number| match self.job.splits.get(number)?.split {
                Split::Partition(place) => (place.topic == source.topic.name).then_some(place),
                Split::Named { .. } => None,
            };
            for (&number, at) in &self.committed {
                let Some(place) = place(number) else { continue };
                let mut positions = flush.positions.iter_mut();
                if let Some(position) = positions.find(|it| i32::from(it.0) == place.partition) {
                    position.1 = at.offset;
                }
            }
        }
        self.flusher.flush(worker, flush)
    }

    /// Sees to it that the epoch that this commit is shown as is never shown again for another.
    fn reserve_epochs(&mut self, writer: usize) -> Result<(), JobError> {
        let views = self.job.backend.views();
        if !views.is_armed() {
            return Ok(());
        }
        match self.epochs.reserve(views.next_epoch()) {
            Some(last) => {
                let instance = &self.job.shown_as.identity;
                self.positions.append_epochs(writer, instance, last)
            }
            None => Ok(()),
        }
    }

    /// Writes positions of what is no topic, and returns those of topics' partitions.
    fn write_positions(
        &mut self,
        writer: usize,
        moved: &BTreeMap<u32, Position>,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, JobError> {
        let mut offsets = Vec::new();
        for (&number, at) in moved {
            let Some(plan) = self.job.splits.get(number) else {
                unreachable!("workers report splits that they were given")
            };
            match &plan.split {
                Split::Partition(partition) => {
                    let committed = CommittedOffset {
                        offset: at.offset,
                        leader_epoch: -1,
                        metadata: match plan.state_partition {
                            Some(_) => at.to_metadata_of_senders(),
                            None => at.to_metadata(),
                        },
                    };
                    offsets.push((partition.clone(), committed));
                }
                Split::Named { source, name } => self.positions.append(writer, source, name, at)?,
            }
        }
        let read: Vec<SplitPlan> = moved
            .keys()
            .filter_map(|&number| self.job.splits.get(number))
            .collect();
        let read: BTreeSet<&TopicName> = read.iter().filter_map(source_topic).collect();
        self.sources.check(read.iter().copied())?;
        for (topic, id) in self.sources.unkept(read) {
            self.positions.append_topic(writer, topic, id)?;
        }
        self.positions.flush(writer)?;
        Ok(offsets)
    }

    /// Adds the positions of topics' partitions to the transaction; `false` while the instances of the job agree anew.
    fn send_offsets(&self, committing: &mut Committing) -> Result<bool, JobError> {
        if committing.offsets.is_empty() {
            return Ok(true);
        }
        let (group, writer) = (self.group.clone(), &self.job.writers[committing.writer]);
        let Some(share) = &self.share else {
            let offsets = std::mem::take(&mut committing.offsets);
            let sent = writer.send_offsets(group, GroupMember::default(), offsets);
            return Ok(wait(sent).map(|()| true)?);
        };
        // A process that the others went on without is refused by its generation (KIP-447). One that is still a member
        // may have been overtaken by the next generation: it sends the same again as who it is now.
        let membership = &share.membership;
        while let Some(member) =
            membership.member_for_commit(committing.refused, committing.since)?
        {
            let (generation, member_id) = (member.generation, member.member_id.clone());
            let offered = writer.offer_offsets(group.clone(), member, committing.offsets.clone());
            match wait(offered) {
                Ok(Offered::Taken) => return Ok(true),
                Ok(Offered::AnotherGeneration) => {
                    committing.refused = Some(generation);
                    committing.since = self.job.env.clock.now();
                }
                Err(error) => {
                    membership.check_not_replaced(&member_id, &error)?;
                    return Err(error.into());
                }
            }
        }
        Ok(false)
    }

    /// Notes that the records read of repartition topics are not needed any more.
    fn note_read_for_good(&self, moved: &BTreeMap<u32, Position>) {
        let Some(share) = &self.share else {
            return;
        };
        let read = moved.iter().filter_map(|(&number, at)| {
            let plan = self.job.splits.get(number)?;
            match (&plan.split, plan.state_partition) {
                (Split::Partition(partition), Some(_)) => Some((partition.clone(), at.offset)),
                _ => None,
            }
        });
        share.membership.read_for_good(read);
    }
}
