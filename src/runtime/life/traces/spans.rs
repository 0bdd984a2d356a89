//! Spans of a job, made of what its process counts: a trace for each cycle with its commit and the phases of that, and one for each start. Pure.

use crate::runtime::life::status::Status;
use crate::runtime::task::meter::{CycleStatus, LifeStatus};
use crate::types::Timestamp;

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Number(u64),
    Text(String),
}

/// A span with those within it. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) name: &'static str,
    pub(super) begin_micros: i64,
    pub(super) end_micros: i64,
    pub(super) attributes: Vec<(&'static str, Told)>,
    /// Why it failed, if it did.
    pub(super) failure: Option<String>,
    pub(super) within: Vec<Self>,
}

impl Span {
    fn new(name: &'static str, (begin_micros, end_micros): (i64, i64)) -> Self {
        Self {
            name,
            begin_micros,
            end_micros: end_micros.max(begin_micros),
            attributes: Vec::new(),
            failure: None,
            within: Vec::new(),
        }
    }
}

/// Cycles and starts that were made into spans so far.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// The commits of the process.
    commits: u64,
    /// When the workers of the last start that was told of ran.
    last_life: Option<Timestamp>,
}

impl Collector {
    /// A collector that tells of what is done from now on, and of the start that the job is in.
    pub(super) fn new(now: &Status) -> Self {
        Self {
            commits: now.totals.commits,
            last_life: None,
        }
    }

    /// The spans of what has ended since the last look.
    pub(super) fn step(&mut self, now: &Status) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for life in &now.lives {
            let is_told = self.last_life.is_some_and(|last| life.began <= last);
            if !is_told && let Some(span) = recovery(life) {
                self.last_life = Some(life.began);
                spans.push(span);
            }
        }
        let done = now.totals.commits.saturating_sub(self.commits);
        self.commits = now.totals.commits;
        let there = now.cycles.len();
        let told = usize::try_from(done).unwrap_or(usize::MAX).min(there);
        let left_out = done.saturating_sub(told as u64);
        for (place, status) in now.cycles[there - told..].iter().enumerate() {
            let mut span = cycle(status);
            if place == 0 && left_out > 0 {
                let name = "onceflow.cycles_left_out";
                span.attributes.push((name, Told::Number(left_out)));
            }
            spans.push(span);
        }
        spans
    }
}

fn micros_of(time: Timestamp) -> i64 {
    time.0.saturating_mul(1_000)
}

fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// Spans in a row from a moment on, and where the last one ends. Those that took no time, or that a log on a network does not tell, are
/// left out.
fn in_a_row(begin_micros: i64, phases: &[(&'static str, u64)]) -> (Vec<Span>, i64) {
    let (mut spans, mut at) = (Vec::new(), begin_micros);
    for &(name, micros) in phases {
        let next = at.saturating_add(signed(micros));
        if micros > 0 {
            spans.push(Span::new(name, (at, next)));
        }
        at = next;
    }
    (spans, at)
}

/// A committed cycle: it is told of when its last phase is over, and so it is laid out from its end.
fn cycle(status: &CycleStatus) -> Span {
    let end = micros_of(status.committed_at);
    let phases = [
        ("drain", status.drain_micros),
        ("flush", status.flush_micros),
        ("positions", status.positions_micros),
        ("sync", status.sync_micros),
        ("decide", status.decide_micros),
        ("markers", status.markers_micros),
        ("apply", status.apply_micros),
    ];
    let whole: u64 = phases.iter().map(|(_, micros)| micros).sum();
    let begin = end.saturating_sub(signed(whole));
    let mut commit = Span::new("commit", (begin, end));
    (commit.within, _) = in_a_row(begin, &phases);
    let opened = begin.saturating_sub(signed(status.open_micros));
    let mut cycle = Span::new("cycle", (opened, end));
    let reason = status.reason.name().to_owned();
    cycle.attributes = vec![
        ("onceflow.records", Told::Number(status.records)),
        ("onceflow.close_reason", Told::Text(reason)),
    ];
    cycle.within = vec![commit];
    cycle
}

/// A start, once it has committed or has failed: what came before its workers, their replay of changelogs, and the way to the first
/// commit.
fn recovery(life: &LifeStatus) -> Option<Span> {
    if life.first_commit.is_none() && life.ended_by.is_none() {
        return None;
    }
    let before = &life.recovery;
    let phases = [
        ("fence", before.fence_micros),
        ("open", before.open_micros),
        ("positions", before.positions_micros),
    ];
    let whole: u64 = phases.iter().map(|(_, micros)| micros).sum();
    let began = micros_of(life.began);
    let begin = began.saturating_sub(signed(whole));
    let (mut within, at) = in_a_row(begin, &phases);
    let replayed = at.saturating_add(signed(before.replay_micros));
    // The clock on the wall counts milliseconds.
    let end = life.first_commit.map_or(replayed, micros_of).max(replayed);
    within.extend(in_a_row(at, &[("replay", before.replay_micros)]).0);
    let mut span = Span::new("recovery", (begin, end));
    span.within = within;
    let records = Told::Number(before.replayed_records);
    span.attributes = vec![("onceflow.replayed_records", records)];
    if life.first_commit.is_none() {
        span.failure.clone_from(&life.ended_by);
    }
    Some(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::task::meter::CloseReason;
    use crate::runtime::task::recovery::RecoveryStatus;

    fn committed(at_millis: i64, sync_micros: u64) -> CycleStatus {
        CycleStatus {
            committed_at: Timestamp(at_millis),
            reason: CloseReason::Interval,
            records: 7,
            open_micros: 100_000,
            drain_micros: 1_000,
            flush_micros: 2_000,
            positions_micros: 500,
            sync_micros,
            decide_micros: 300,
            markers_micros: 0,
            apply_micros: 200,
        }
    }

    #[test]
    fn the_phases_of_a_commit_stand_in_a_row_and_end_with_the_cycle() {
        let span = cycle(&committed(5_000, 4_000));
        let [commit] = &span.within[..] else {
            panic!("{span:?}");
        };
        assert_eq!((span.end_micros, commit.end_micros), (5_000_000, 5_000_000));
        assert_eq!(commit.begin_micros, 5_000_000 - 8_000);
        assert_eq!(span.begin_micros, commit.begin_micros - 100_000);
        let names: Vec<_> = commit.within.iter().map(|it| it.name).collect();
        assert_eq!(
            names,
            ["drain", "flush", "positions", "sync", "decide", "apply"]
        );
        let mut at = commit.begin_micros;
        for phase in &commit.within {
            assert_eq!(phase.begin_micros, at, "{phase:?}");
            at = phase.end_micros;
        }
        assert_eq!(at, commit.end_micros);
    }

    #[test]
    fn each_cycle_is_told_once_and_those_that_are_gone_are_counted() {
        let mut status = Status::of_a_test();
        status.totals.commits = 5;
        let mut collector = Collector::new(&status);
        assert!(collector.step(&status).is_empty());
        status.totals.commits = 7;
        status.cycles = (0..6).map(|n| committed(1_000 * n, 0)).collect();
        let told = collector.step(&status);
        let ends: Vec<_> = told.iter().map(|span| span.end_micros).collect();
        assert_eq!(ends, [4_000_000, 5_000_000], "the last two");
        assert!(collector.step(&status).is_empty());
        status.totals.commits = 17;
        let told = collector.step(&status);
        assert_eq!(told.len(), 6);
        let left_out = ("onceflow.cycles_left_out", Told::Number(4));
        assert!(told[0].attributes.contains(&left_out));
    }

    #[test]
    fn a_start_is_told_once_it_has_committed_or_failed() {
        let mut status = Status::of_a_test();
        let recovery = RecoveryStatus {
            fence_micros: 10_000,
            open_micros: 20_000,
            positions_micros: 0,
            replayed_records: 5,
            replay_micros: 15_000,
        };
        let life = |began: i64| LifeStatus {
            began: Timestamp(began),
            commit_interval_micros: 100,
            recovery,
            first_commit: None,
            commits: 0,
            ended_by: None,
        };
        status.lives = vec![life(1_000)];
        let mut collector = Collector::new(&status);
        assert!(collector.step(&status).is_empty());
        status.lives[0].ended_by = Some("a bad disk".to_owned());
        status.lives.push(life(2_000));
        let told = collector.step(&status);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].failure.as_deref(), Some("a bad disk"));
        status.lives[1].first_commit = Some(Timestamp(2_050));
        let told = collector.step(&status);
        let [recovery] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(
            (recovery.begin_micros, recovery.end_micros),
            (1_970_000, 2_050_000)
        );
        let within: Vec<_> = recovery
            .within
            .iter()
            .map(|it| (it.name, it.begin_micros, it.end_micros))
            .collect();
        assert_eq!(
            within,
            [
                ("fence", 1_970_000, 1_980_000),
                ("open", 1_980_000, 2_000_000),
                ("replay", 2_000_000, 2_015_000),
            ]
        );
        assert!(collector.step(&status).is_empty());
    }
}
