//! The job in one sentence.

use std::fmt::Write as _;

use super::{JobPhase, SplitState, Status};
use crate::types::Timestamp;

/// With work to do and without a commit for so long, and for so many commit intervals, the job is said to stand still.
const STANDS_STILL_MILLIS: i64 = 10_000;
const STANDS_STILL_INTERVALS: u64 = 3;
/// With no more to read than it reads in so long, or in so many commit intervals, it is said to keep up.
const KEEPS_UP_MILLIS: u64 = 1_000;
const KEEPS_UP_INTERVALS: u64 = 2;
/// The last cycles that say how fast the job reads.
const CYCLES_OF_A_RATE: usize = 20;
/// Longest lag of event time behind the furthest split before its holder is named.
const HELD_MILLIS: i64 = 10_000;

/// Says how the job is, and who holds it up.
pub(super) fn sentence(status: &Status) -> String {
    let mut text = match status.phase {
        JobPhase::Starting if status.totals.restarts > 0 => format!(
            "starting again from its last commit: {}",
            status.totals.last_restart.as_deref().unwrap_or("unknown")
        ),
        JobPhase::Starting => "starting: it opens its state".to_owned(),
        JobPhase::Ended => format!("ended after {} commits", status.totals.commits),
        JobPhase::Running => running(status),
    };
    if status.phase == JobPhase::Running {
        for holder in [held_readers(status), held_time(status)]
            .into_iter()
            .flatten()
        {
            // Writing to a string cannot fail.
            let _ = write!(text, "; {holder}");
        }
    }
    text
}

fn running(status: &Status) -> String {
    let records = status.totals.records;
    if let Some(error) = &status.log_error {
        return format!("running, {records} records committed; the log does not answer: {error}");
    }
    let Some(behind) = status.lag() else {
        return format!("running: {records} records committed");
    };
    let idle_millis = since_commit_millis(status);
    if behind == 0 {
        return format!("caught up: {records} records committed");
    }
    if idle_millis > stands_still_millis(status) {
        let seconds = idle_millis / 1000;
        return format!("standing still: {behind} records behind, no commit for {seconds} s");
    }
    match millis_left(status, behind) {
        // What came since the last commit is always behind.
        Some(millis) if millis <= keeps_up_millis(status) => {
            format!("keeping up: {records} records committed, {behind} behind")
        }
        Some(millis) => {
            let seconds = millis.div_ceil(1000);
            format!("catching up: {behind} records behind, about {seconds} s")
        }
        None => format!("catching up: {behind} records behind"),
    }
}

/// Returns the age of the last commit or start.
fn since_commit_millis(status: &Status) -> i64 {
    let commits = status.cycles.last().map(|cycle| cycle.committed_at);
    let began = status.lives.last().map(|life| life.began);
    let last = commits.max(began).unwrap_or(status.now);
    status.now.0.saturating_sub(last.0).max(0)
}

fn commit_interval_millis(status: &Status) -> u64 {
    let life = status.lives.last();
    life.map_or(0, |life| life.commit_interval_micros / 1000)
}

fn stands_still_millis(status: &Status) -> i64 {
    let intervals_millis = commit_interval_millis(status).saturating_mul(STANDS_STILL_INTERVALS);
    i64::try_from(intervals_millis).map_or(i64::MAX, |it| it.max(STANDS_STILL_MILLIS))
}

fn keeps_up_millis(status: &Status) -> u64 {
    let intervals_millis = commit_interval_millis(status).saturating_mul(KEEPS_UP_INTERVALS);
    intervals_millis.max(KEEPS_UP_MILLIS)
}

/// Estimates the time for the lag by the rate of the last cycles while open, without what comes meanwhile.
fn millis_left(status: &Status, behind: u64) -> Option<u64> {
    let last = status.cycles.iter().rev().take(CYCLES_OF_A_RATE);
    let (records, micros) = last.fold((0u64, 0u64), |(records, micros), cycle| {
        let took = cycle.open_micros.saturating_add(cycle.drain_micros);
        (
            records.saturating_add(cycle.records),
            micros.saturating_add(took),
        )
    });
    (records > 0 && micros > 0).then(|| {
        let micros = u128::from(behind) * u128::from(micros) / u128::from(records);
        u64::try_from(micros / 1000).unwrap_or(u64::MAX)
    })
}

fn held_readers(status: &Status) -> Option<String> {
    let own = |name: &str| {
        let mut own = status.transactions.iter().filter(|open| open.is_own);
        own.any(|open| open.name() == name)
    };
    let held = status.splits.iter().filter_map(|split| {
        let holder = split.held_by.as_ref().filter(|holder| !own(holder))?;
        Some((split.held_since?, split, holder))
    });
    let (since, split, holder) = held.min_by_key(|(since, ..)| *since)?;
    let seconds = status.now.0.saturating_sub(since.0).max(0) / 1000;
    let split = &split.split;
    Some(format!(
        "{split} is held up by {holder}, open for {seconds} s"
    ))
}

fn held_time(status: &Status) -> Option<String> {
    let holder = status.splits.iter().find(|split| split.holds_time)?;
    let furthest = status.splits.iter().filter_map(|split| split.watermark);
    let furthest = furthest.filter(|time| *time != Timestamp::MAX).max()?;
    if holder.state != SplitState::Active {
        return None;
    }
    match holder.watermark {
        None => Some(format!(
            "event time is held by {}, which had no record yet",
            holder.split
        )),
        Some(at) if furthest.0.saturating_sub(at.0) >= HELD_MILLIS => Some(format!(
            "event time is held by {}, {} s behind",
            holder.split,
            furthest.0.saturating_sub(at.0) / 1000
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runtime::graph::description::Description;
    use crate::runtime::life::status::{SplitStatus, Totals};
    use crate::runtime::task::meter::{CloseReason, CycleStatus, LifeStatus};
    use crate::runtime::task::recovery::RecoveryStatus;

    /// A job that reads 1,000 records a second, with so many behind in its only split, 50 s after its last commit.
    fn behind(lag: Option<u64>) -> Status {
        let cycle = |at: i64| CycleStatus {
            committed_at: Timestamp(at),
            reason: CloseReason::Interval,
            records: 1_000,
            open_micros: 1_000_000,
            drain_micros: 0,
            flush_micros: 0,
            positions_micros: 0,
            sync_micros: 0,
            decide_micros: 0,
            markers_micros: 0,
            apply_micros: 0,
        };
        Status {
            job: "job".to_owned(),
            version: "0",
            now: Timestamp(60_000),
            sentence: String::new(),
            phase: JobPhase::Running,
            totals: Totals {
                records: 2_000,
                ..Totals::default()
            },
            graph: Description::new("job", &[], &BTreeMap::new()),
            chains: vec![],
            workers: vec![],
            cycles: vec![cycle(9_000), cycle(10_000)],
            splits: vec![SplitStatus {
                source: "words".to_owned(),
                split: "words-0".to_owned(),
                position: 0,
                last_stable_offset: None,
                high_watermark: None,
                lag,
                held_by: None,
                held_since: None,
                watermark: None,
                state: SplitState::Active,
                holds_time: false,
            }],
            stores: vec![],
            transactions: vec![],
            lives: vec![LifeStatus {
                began: Timestamp(1_000),
                commit_interval_micros: 100_000,
                recovery: RecoveryStatus::default(),
                first_commit: None,
                commits: 2,
                ended_by: None,
            }],
            log_error: None,
        }
    }

    #[test]
    fn a_job_with_records_to_read_and_no_commit_stands_still_only_if_one_was_due() {
        let mut status = behind(Some(5_000));
        let said = "standing still: 5000 records behind, no commit for 50 s";
        assert_eq!(sentence(&status), said);
        status.lives[0].commit_interval_micros = 60_000_000;
        let said = "keeping up: 2000 records committed, 5000 behind";
        assert_eq!(sentence(&status), said);
        status.splits[0].lag = Some(120_000);
        let said = "keeping up: 2000 records committed, 120000 behind";
        assert_eq!(sentence(&status), said, "two intervals of 60 s");
        status.splits[0].lag = Some(120_001);
        let said = "catching up: 120001 records behind, about 121 s";
        assert_eq!(sentence(&status), said);
        status.cycles.clear();
        assert_eq!(sentence(&status), "catching up: 120001 records behind");
    }

    #[test]
    fn a_job_is_called_caught_up_only_if_that_is_known() {
        assert_eq!(
            sentence(&behind(Some(0))),
            "caught up: 2000 records committed"
        );
        assert_eq!(sentence(&behind(None)), "running: 2000 records committed");
        let mut status = behind(None);
        status.log_error = Some("nobody there".to_owned());
        let said = "running, 2000 records committed; the log does not answer: nobody there";
        assert_eq!(sentence(&status), said);
    }

    #[test]
    fn who_holds_event_time_is_named_where_it_is_far_behind() {
        let mut status = behind(Some(0));
        let mut ahead = status.splits[0].clone();
        ahead.watermark = Some(Timestamp(50_000));
        status.splits[0].holds_time = true;
        status.splits.push(ahead);
        let said = "; event time is held by words-0, which had no record yet";
        assert!(sentence(&status).ends_with(said), "{}", sentence(&status));
        status.splits[0].watermark = Some(Timestamp(20_000));
        let said = "; event time is held by words-0, 30 s behind";
        assert!(sentence(&status).ends_with(said), "{}", sentence(&status));
        status.splits[0].watermark = Some(Timestamp(45_000));
        assert_eq!(sentence(&status), "caught up: 2000 records committed");
    }
}
