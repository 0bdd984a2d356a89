//! The rules that hold of a log after its job has read everything, without a model of the job.

use std::collections::{BTreeMap, BTreeSet};

use super::contents::{for_each_record, last_stable_offset};
use super::markers::{self, Marked};
use super::scene::Scene;
use crate::cli::output;
use crate::cli::session::Session;
use crate::protocol::messages::{CommittedOffset, OffsetSpec, TransactionState};
use crate::runtime::read_kept;
use crate::types::{GroupId, Isolation, Offset, TopicName, TopicPartition};

/// On a Kafka cluster records may be compacted away between two counts. Then both are made again, so often at most.
const COUNTS_MAX: u32 = 3;

/// Progress of the jobs under test.
#[derive(Default)]
pub(super) struct Look {
    /// The committed positions of source topics.
    pub(super) positions: Vec<Committed>,
    /// Positions of files and others, with what sinks keep there, which are not checked.
    pub(super) positions_of_files: usize,
}

/// A committed position of a source topic.
pub(super) struct Committed {
    job: GroupId,
    place: TopicPartition,
    offset: Offset,
    /// Whether anything was read: the position is behind the partition's beginning.
    is_moved: bool,
    /// The records behind it that are not read.
    unread: u64,
}

/// All that was found without a model.
pub(super) struct Findings {
    pub(super) look: Look,
    /// Number of transactional ids.
    pub(super) transactions: usize,
    /// Transactions that are open.
    open: Vec<String>,
    /// The records that readers of committed records see, and those of aborted transactions.
    pub(super) visible: u64,
    pub(super) aborted: u64,
    /// Partitions of which readers see others than those.
    misread: Vec<String>,
}

impl Look {
    pub(super) fn unread(&self) -> String {
        let unread = self.positions.iter().map(|it| it.unread);
        output::grouped(unread.sum())
    }

    /// Whether any job has committed anything.
    pub(super) fn has_positions(&self) -> bool {
        !self.positions.is_empty() || self.positions_of_files > 0
    }

    /// A job that has read something.
    pub(super) fn begun(&self) -> Option<&GroupId> {
        let mut positions = self.positions.iter();
        positions.find(|it| it.is_moved).map(|it| &it.job)
    }

    /// Whether the jobs have committed anything since `before`.
    pub(super) fn has_moved_since(&self, before: &Self) -> bool {
        let offsets = |look: &Self| -> BTreeSet<_> {
            let positions = look.positions.iter();
            positions
                .map(|it| (it.job.clone(), it.place.clone(), it.offset))
                .collect()
        };
        // How far a file was read is not known; that it was is.
        offsets(self) != offsets(before) || self.positions_of_files > 0
    }

    pub(super) fn problems(&self) -> Vec<String> {
        if !self.has_positions() {
            let why = "no job has committed a position: does the program use this log, and find its input?";
            return vec![why.to_owned()];
        }
        let behind = self.positions.iter().filter(|it| it.unread > 0);
        let told = behind.map(|it| {
            let Committed {
                job, place, unread, ..
            } = it;
            format!("{job} has {unread} records of {place} still to read")
        });
        told.collect()
    }
}

impl Findings {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.look.problems();
        problems.extend(self.open.iter().cloned());
        problems.extend(self.misread.iter().cloned());
        problems
    }
}

/// Looks how far the jobs have come.
pub(super) fn look(scene: &Scene<'_>) -> anyhow::Result<Look> {
    scene.with_session(|session| {
        scene.wait_for_markers(session)?;
        let admin = session.admin();
        let mut look = Look::default();
        for job in scene.jobs_there(session)? {
            let kept = read_kept(&session.transport(), job.as_str())?;
            look.positions_of_files += kept.positions.names().count();
            for (place, committed) in session.wait(admin.committed(&job))? {
                let Some(CommittedOffset { offset, .. }) = committed else {
                    continue;
                };
                if session.wait(admin.topic(&place.topic)).is_err() {
                    look.positions_of_files += 1;
                    continue;
                }
                let mut unread = 0;
                for_each_record(session, &place, offset, None, &mut |_| unread += 1)?;
                look.positions.push(Committed {
                    job: job.clone(),
                    is_moved: offset > start_of(session, &place)?,
                    place,
                    offset,
                    unread,
                });
            }
        }
        Ok(look)
    })
}

/// The partition's first offset.
fn start_of(session: &Session, place: &TopicPartition) -> anyhow::Result<Offset> {
    let (spec, isolation) = (OffsetSpec::Earliest, Isolation::ReadCommitted);
    let start = session.wait(session.admin().list_offset(place, spec, isolation))?;
    Ok(start.map_or(Offset::ZERO, |start| start.offset))
}

/// Checks everything that needs no model. `topics` are looked at even if nobody has written to them.
pub(super) fn check(
    scene: &Scene<'_>,
    look: Look,
    topics: &[TopicName],
) -> anyhow::Result<Findings> {
    let mut findings = Findings {
        look,
        transactions: 0,
        open: Vec::new(),
        visible: 0,
        aborted: 0,
        misread: Vec::new(),
    };
    let counted = scene.with_session(|session| {
        let transactions = scene.transactions(session)?;
        findings.transactions = transactions.len();
        let open = transactions.into_iter().filter(|it| is_open(it.state));
        let named =
            open.map(|it| format!("the transaction of {} has not ended", it.transactional_id));
        findings.open = named.collect();
        let read = findings.look.positions.iter().map(|it| it.place.clone());
        let places = scene.partitions(session, read, topics)?;
        for place in places.iter().filter(|_| scene.directory().is_none()) {
            let hanging = session.wait(session.admin().hanging_transactions(place))?;
            let told = hanging.iter().map(|it| {
                format!(
                    "a transaction of producer {} hangs in {place}: no coordinator will end it",
                    it.producer.id
                )
            });
            findings.open.extend(told);
        }
        let counted = places.into_iter().map(|place| {
            let seen = records_seen(session, &place)?;
            let counted = match scene.directory() {
                Some(_) => (seen, None),
                None => {
                    let (seen, marked) = count_both_on_cluster(session, &place, seen)?;
                    (seen, Some(marked))
                }
            };
            Ok((place, counted))
        });
        counted.collect::<anyhow::Result<BTreeMap<_, _>>>()
    })?;
    for (place, (seen, marked)) in counted {
        let marked = match (marked, scene.directory()) {
            (None, Some(data)) => markers::count_in_files(scene.env, data, &place, seen.start)?,
            (marked, _) => marked.unwrap_or_default(),
        };
        findings.visible += seen.records;
        findings.aborted += marked.aborted;
        if seen.records != marked.committed || marked.open > 0 {
            findings.misread.push(format!(
                "{place}: readers of committed records see {}, its markers say {} ({} are in no ended transaction)",
                seen.records, marked.committed, marked.open
            ));
        }
    }
    Ok(findings)
}

fn is_open(state: TransactionState) -> bool {
    !matches!(
        state,
        TransactionState::Empty
            | TransactionState::CompleteCommit
            | TransactionState::CompleteAbort
            | TransactionState::Dead
    )
}

/// The records of a partition that a reader of committed ones sees.
struct Seen {
    start: Offset,
    end: Offset,
    records: u64,
}

fn records_seen(session: &Session, place: &TopicPartition) -> anyhow::Result<Seen> {
    let mut seen = Seen {
        start: start_of(session, place)?,
        end: last_stable_offset(session, place)?,
        records: 0,
    };
    let end = Some(seen.end);
    for_each_record(session, place, seen.start, end, &mut |_| seen.records += 1)?;
    Ok(seen)
}

/// The records that readers see, and those by the markers that the cluster sends.
fn count_both_on_cluster(
    session: &Session,
    place: &TopicPartition,
    mut seen: Seen,
) -> anyhow::Result<(Seen, Marked)> {
    let mut count = 1;
    loop {
        let marked = markers::count_on_cluster(session, place, seen.start..seen.end)?;
        if marked.committed == seen.records || count == COUNTS_MAX {
            return Ok((seen, marked));
        }
        count += 1;
        seen = records_seen(session, place)?;
    }
}
