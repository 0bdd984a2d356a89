//! A savepoint as the driver sees it: the job stands still where a cycle is committed and none is open, its state is copied, it goes on.
//!
//! ```text
//! asked ─► cycle commits, stores hand over all ─► RocksDB has it on disk ─► next cycle commits, none is opened
//!       the job runs meanwhile; three times                            the rest is flushed, files are linked; the job runs again
//! ```
//! Changes that came while one round was written are the next one's work, so each is shorter, and the job stands still for the last of it. Moving and summing up files is another thread's work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Driver;
use crate::client::wait;
use crate::env::{Instant, failpoint, warn};
use crate::protocol::messages::OffsetSpec;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::Split;
use crate::runtime::graph::topology::Topology;
use crate::runtime::life::savepoint::{
    Letterbox, Manifest, Request, SCALED_OUT, SavedMark, SavedPosition, SavedSplit, SavedTopic,
    finish, has_savepoints, sum_up, to_hex,
};
use crate::runtime::life::stopper::Stopper;
use crate::runtime::task::cycle::Event;
use crate::runtime::task::inbox::Message;
use crate::runtime::task::report::Report;
use crate::runtime::topics::positions::{Kept, positions_topic, read_positions};
use crate::types::{Isolation, TopicName, TopicPartition};

/// The number of times that stores hand over all that they have before the job stands still.
const ROUNDS: u8 = 3;
/// The thread that puts a savepoint in its place.
const THREAD: &str = "of-savepoint";
/// Interval of sums of what RocksDB has written.
const SUM_UP_EVERY: std::time::Duration = std::time::Duration::from_secs(3);
/// The longest wait for the markers of the last commit, which a log may write a moment after it said that it is done.
const MARKERS_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
const MARKERS_POLL: std::time::Duration = std::time::Duration::from_millis(2);

/// The savepoints that are asked for, and how far the one is that is being taken.
#[derive(Default)]
pub(super) struct Savepoints {
    stopper: Option<Stopper>,
    topology: String,
    sources: Vec<String>,
    sinks: Vec<String>,
    stage: Stage,
    letterbox: Option<Letterbox>,
    /// Whether files are being moved or summed up.
    is_writing: Arc<AtomicBool>,
    /// When files were summed up last.
    summed: Option<Instant>,
}

#[derive(Default)]
enum Stage {
    #[default]
    None,
    /// The stores hand over all that they have at the end of the open cycle, in this round.
    Asked(Request, u8),
    /// RocksDB brings it to the disk.
    Preparing(Request, u8),
    /// No cycle is opened after the next commit.
    Due(Request),
    /// The job stands still; so many workers have not handed over the rest yet.
    Holding(Request, usize, Instant),
}

impl Driver {
    /// Takes savepoints when they are asked for.
    pub(crate) fn saving(mut self, stopper: &Stopper, topology: &Topology) -> Self {
        self.savepoints.stopper = Some(stopper.clone());
        self.savepoints.topology = topology.fingerprint();
        self.savepoints.letterbox = Some(Letterbox::new(self.job.backend.directory()));
        let sources = topology.sources.iter().map(|source| source.name.clone());
        self.savepoints.sources = sources.collect();
        let sinks = topology.sinks.iter().map(|sink| sink.name.clone());
        self.savepoints.sinks = sinks.collect();
        self
    }

    /// A report that matters for savepoints only; says what it is for the cycle, if anything.
    pub(super) fn for_a_savepoint(&mut self, report: &Report) -> Result<Option<Event>, JobError> {
        match report {
            Report::Savepoint => Ok(self.begin_savepoint()),
            Report::Durable => Ok(self.savepoint_is_prepared()),
            _ => self.state_flushed(),
        }
    }

    /// Looks whether somebody in another process asks for a savepoint.
    pub(super) fn look_into_letterbox(&mut self, now: Instant) {
        let Savepoints {
            letterbox: Some(letterbox),
            stopper: Some(stopper),
            ..
        } = &mut self.savepoints
        else {
            return;
        };
        if let Some(path) = letterbox.look(&self.job.env, now) {
            let (env, file) = (self.job.env.clone(), letterbox.answer_file());
            stopper.add_savepoint(Request::answered_by_file(path, env, file));
        }
        self.sum_up_files(now);
    }

    /// Sums up what RocksDB has written since, if the job has had a savepoint: the next one need not.
    fn sum_up_files(&mut self, now: Instant) {
        let is_early = |at: Instant| now.since(at) < SUM_UP_EVERY;
        let is_busy = self.savepoints.is_writing.load(Ordering::Acquire);
        if self.savepoints.summed.is_some_and(is_early) || is_busy {
            return;
        }
        self.savepoints.summed = Some(now);
        let (env, state) = (&self.job.env, self.job.backend.directory());
        if !has_savepoints(env, state) {
            return;
        }
        let (env, state) = (env.clone(), state.to_owned());
        self.beside("sum up files for the next savepoint", move || {
            if let Err(error) = sum_up(&env, &state) {
                warn!(%error, "files for the next savepoint were not summed up: it will take longer");
            }
        });
    }

    /// Does something that takes a while on a thread of its own. Savepoints wait until it is done.
    fn beside(&self, what: &str, work: impl FnOnce() + Send + 'static) {
        let is_writing = Arc::clone(&self.savepoints.is_writing);
        let stopper = self.savepoints.stopper.clone();
        is_writing.store(true, Ordering::Release);
        let body = move || {
            work();
            is_writing.store(false, Ordering::Release);
            if let Some(stopper) = stopper {
                stopper.wake_for_savepoint();
            }
        };
        if let Err(error) = self.job.env.spawn.spawn(THREAD, Box::new(body)) {
            self.savepoints.is_writing.store(false, Ordering::Release);
            warn!(job = %self.job.name, %error, what, "no thread for it; the job goes on");
        }
    }

    /// Somebody asks for a savepoint. Two are not taken at once: the second one's turn comes when the first is written.
    fn begin_savepoint(&mut self) -> Option<Event> {
        let is_busy = self.savepoints.is_writing.load(Ordering::Acquire);
        if is_busy || !matches!(self.savepoints.stage, Stage::None) {
            return None;
        }
        loop {
            let request = self.savepoints.stopper.as_ref()?.next_savepoint()?;
            if self.share.is_some() {
                request.refuse(SCALED_OUT);
            } else if self.job.stores.is_empty() {
                request
                    .refuse("the job has no state: where it stands is in its committed positions");
            } else if let Err(e) = request.check(&self.job.env) {
                request.answer(Err(e));
            } else {
                return Some(self.ask_stores(request, 1));
            }
        }
    }

    fn ask_stores(&mut self, request: Request, round: u8) -> Event {
        self.savepoints.stage = Stage::Asked(request, round);
        self.job.is_flush_due.store(true, Ordering::Relaxed);
        Event::OverBudget
    }

    /// A cycle is committed: what stores handed over with it goes to the disk while the job runs.
    pub(super) fn prepare_savepoint(&mut self) -> Result<(), JobError> {
        match std::mem::take(&mut self.savepoints.stage) {
            Stage::Asked(request, round) => {
                self.job.is_flush_due.store(false, Ordering::Relaxed);
                self.flusher.make_durable()?;
                self.savepoints.stage = Stage::Preparing(request, round);
            }
            other => self.savepoints.stage = other,
        }
        Ok(())
    }

    /// Little is left to be flushed: the next commit is the one that the savepoint is of.
    fn savepoint_is_prepared(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.savepoints.stage) {
            Stage::Preparing(request, round) if round < ROUNDS => {
                Some(self.ask_stores(request, round + 1))
            }
            Stage::Preparing(request, _) => {
                failpoint("savepoint.prepared");
                self.savepoints.stage = Stage::Due(request);
                Some(Event::Reassign)
            }
            other => {
                self.savepoints.stage = other;
                None
            }
        }
    }

    /// A cycle is committed and none is open.
    pub(super) fn stand_still(&mut self) -> Result<(), JobError> {
        match std::mem::take(&mut self.savepoints.stage) {
            Stage::Due(request) => {
                failpoint("savepoint.standing");
                let now = self.job.env.clock.now();
                // Then stores have no flush under way, and hand over all that they have.
                self.flusher.wait_until_idle()?;
                self.broadcast(|| Message::FlushAll);
                let workers = self.job.inboxes.len();
                self.savepoints.stage = Stage::Holding(request, workers, now);
                Ok(())
            }
            other => {
                self.savepoints.stage = other;
                // Who still has such a split after this says so again.
                self.held.clear();
                self.reassign()
            }
        }
    }

    /// A worker handed over all; once all have, the state is copied, and the job goes on.
    fn state_flushed(&mut self) -> Result<Option<Event>, JobError> {
        let stage = std::mem::take(&mut self.savepoints.stage);
        let Stage::Holding(request, workers, since) = stage else {
            unreachable!("workers hand over all when they are told to")
        };
        if workers > 1 {
            self.savepoints.stage = Stage::Holding(request, workers - 1, since);
            return Ok(None);
        }
        self.flusher.wait_until_idle()?;
        match self.copy_state() {
            Ok((copy, manifest)) => self.write_savepoint(request, copy, manifest, since),
            Err(e) => {
                warn!(job = %self.job.name, error = %e, "no savepoint was taken; the job goes on");
                request.answer(Err(e));
            }
        }
        Ok(Some(Event::Reassigned))
    }

    /// The copy's folder, and what belongs to it.
    fn copy_state(&self) -> Result<(PathBuf, Manifest), JobError> {
        let copy = self.job.backend.copy_at_rest()?;
        failpoint("savepoint.copied");
        match self.manifest() {
            Ok(manifest) => Ok((copy, manifest)),
            Err(e) => {
                self.job.backend.remove_copy()?;
                Err(e)
            }
        }
    }

    fn manifest(&self) -> Result<Manifest, JobError> {
        let topic = positions_topic(&self.job.name)?;
        self.wait_for_markers(&topic)?;
        let kept = read_positions(&self.job.transport, &topic)?;
        let (topics, splits) = self.saved_positions(&kept);
        let marks = self.savepoints.sinks.iter().flat_map(|sink| {
            let marks = kept.positions.marks(sink);
            let saved = marks.iter().map(|(part, mark)| SavedMark {
                sink: sink.clone(),
                part: part.to_owned(),
                mark: to_hex(mark),
            });
            saved.collect::<Vec<_>>()
        });
        Ok(Manifest {
            job: self.job.name.clone(),
            taken_at: self.job.env.clock.wall().0,
            state_partitions: self.job.state_partitions,
            topology: self.savepoints.topology.clone(),
            sources: self.savepoints.sources.clone(),
            topics,
            splits,
            marks: marks.collect(),
            between: Vec::new(),
            files: Vec::new(),
        })
    }

    fn saved_positions(&self, kept: &Kept) -> (Vec<SavedTopic>, Vec<SavedSplit>) {
        let (mut topics, mut splits) = (BTreeMap::<TopicName, SavedTopic>::new(), Vec::new());
        for (number, at) in &self.committed {
            let Some(plan) = self.job.splits.get(*number) else {
                unreachable!("positions are of splits that the job has")
            };
            match plan.split {
                Split::Partition(place) => {
                    let id = kept.read_topics.get(&place.topic).map(ToString::to_string);
                    let topic = topics.entry(place.topic.clone());
                    let saved = topic.or_insert_with(|| SavedTopic {
                        topic: place.topic.as_str().to_owned(),
                        id,
                        partitions: Vec::new(),
                    });
                    saved.partitions.push(SavedPosition {
                        partition: place.partition,
                        offset: at.offset,
                        metadata: at.to_metadata(),
                    });
                }
                Split::Named { source, name } => splits.push(SavedSplit {
                    source,
                    split: name,
                    offset: at.offset,
                    fingerprint: to_hex(&at.fingerprint),
                    watermark: at.watermark.map(|time| time.0),
                }),
            }
        }
        (topics.into_values().collect(), splits)
    }

    /// Waits until what the last commit wrote to the topic can be read: nothing of the job is open.
    fn wait_for_markers(&self, topic: &TopicName) -> Result<(), JobError> {
        let place = TopicPartition::new(topic.clone(), 0);
        let (env, transport) = (&self.job.env, &self.job.transport);
        let end = |isolation| wait(transport.list_offset(&place, OffsetSpec::Latest, isolation));
        let begin = env.clock.now();
        while end(Isolation::ReadCommitted)? != end(Isolation::ReadUncommitted)?
            && env.clock.now().since(begin) < MARKERS_WAIT
        {
            env.clock.sleep(MARKERS_POLL);
        }
        Ok(())
    }

    /// Puts the copy in its place on a thread of its own.
    fn write_savepoint(&self, request: Request, copy: PathBuf, manifest: Manifest, since: Instant) {
        let held = self.job.env.clock.now().since(since);
        let env = self.job.env.clone();
        // Without a thread the request is gone, and whoever waits for it is told that it was not taken.
        self.beside("take a savepoint", move || {
            let taken = finish(&env, &copy, &request.path, manifest, held);
            request.answer(taken);
        });
    }
}
