//! Failpoints: named places where the process can be told to die, to test what a crash there leaves.
//!
//! Off unless the environment variable `ONCEFLOW_FAILPOINTS` names one, e.g.
//! `commit.before_decision=kill@3,open.recovered=kill`: `SIGKILL` to this very process at the third, and at the
//! first, hit. When off, a failpoint costs one relaxed atomic load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// The environment variable.
pub const VARIABLE: &str = "ONCEFLOW_FAILPOINTS";

/// Every failpoint there is, in the order in which a transaction meets them (design §4), then those of the other
/// operations. Harnesses walk this list.
pub const NAMES: &[&str] = &[
    "produce.before_append",
    "produce.after_append",
    "txn.partition_added",
    "txn.offsets_pending",
    "commit.begin",
    "commit.before_data_sync",
    "commit.after_data_sync",
    "commit.before_decision",
    "commit.decision_written",
    "commit.after_decision",
    "commit.before_marker",
    "commit.after_marker",
    "commit.before_complete",
    "commit.after_complete",
    "commit.before_reply",
    "open.locked",
    "open.journals_read",
    "open.partitions_read",
    "open.before_roll",
    "open.after_roll",
    "open.ready",
    "topic.create_intended",
    "topic.partitions_made",
    "topic.created",
    "topic.delete_intended",
    "topic.directories_renamed",
    "topic.deleted",
    "housekeeping.before_checkpoint",
    "housekeeping.after_checkpoint",
    "close.before_clean_mark",
    "log.before_roll",
    "log.after_roll",
    "state.before_flush",
    "state.after_flush",
    "state.before_durable",
    "state.after_durable",
    "start.fenced",
    "start.compaction_held",
    "start.topics_created",
    "start.state_opened",
    "start.partition_restored",
    "time.kept",
    "time.due_taken",
    "letters.written",
    "letters.asked",
    "cycle.drained",
    "cycle.changelog_written",
    "cycle.offsets_sent",
    "cycle.committed",
    "cycle.applied",
    "sink.recovered",
    "sink.part_created",
    "sink.before_sync",
    "sink.after_sync",
    "sink.prepared",
    "sink.parts_renamed",
    "sink.parts_sealed",
    "sink.committed",
    "sink.parts_settled",
    "tasks.let_go",
    "tasks.taken_on",
    "calls.begun",
    "calls.answered",
    "savepoint.prepared",
    "savepoint.standing",
    "savepoint.copied",
    "savepoint.moved",
    "savepoint.summed",
    "savepoint.sealed",
    "savepoint.named",
    "restore.fenced",
    "restore.topics_created",
    "restore.held_off",
    "restore.part_committed",
    "restore.rows_written",
    "restore.all_written",
    "restore.committed",
];

const UNREAD: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNREAD);
static POINTS: OnceLock<Vec<Point>> = OnceLock::new();

struct Point {
    name: String,
    hits_left: AtomicU32,
}

/// Dies here if this failpoint is armed and its hit has come.
#[inline]
pub fn failpoint(name: &'static str) {
    debug_assert!(NAMES.contains(&name), "failpoint {name} is not in the list");
    if STATE.load(Ordering::Relaxed) != OFF {
        hit(name);
    }
}

#[cold]
fn hit(name: &str) {
    let points = POINTS.get_or_init(|| {
        let points = parse(&std::env::var(VARIABLE).unwrap_or_default());
        let state = if points.is_empty() { OFF } else { ON };
        STATE.store(state, Ordering::Relaxed);
        points
    });
    let is_due = points
        .iter()
        .filter(|point| point.name == name)
        .any(|point| point.hits_left.fetch_sub(1, Ordering::Relaxed) == 1);
    if is_due {
        // No destructor and no exit handler may run: that is the point.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Reads `name=kill@hit,…`. What does not parse is an operator's typing error in a test tool: it stops the process.
fn parse(text: &str) -> Vec<Point> {
    let wanted = text.split([',', ';']).map(str::trim);
    wanted
        .filter(|item| !item.is_empty())
        .map(parse_point)
        .collect()
}

fn parse_point(item: &str) -> Point {
    let parsed = item.split_once('=').and_then(|(name, action)| {
        let hits = match action.split_once('@') {
            Some(("kill", hit)) => hit.parse().ok()?,
            None if action == "kill" => 1,
            _ => return None,
        };
        (NAMES.contains(&name) && hits > 0).then(|| Point {
            name: name.to_owned(),
            hits_left: AtomicU32::new(hits),
        })
    });
    match parsed {
        Some(point) => point,
        None => panic!(
            "{VARIABLE}: {item:?} is not understood: write NAME=kill or NAME=kill@HIT, with a NAME of the list in src/env/failpoint.rs"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failpoints_are_read_with_their_hit() {
        let points = parse("commit.begin=kill@3, open.ready=kill");
        let read: Vec<_> = points
            .iter()
            .map(|p| (p.name.as_str(), p.hits_left.load(Ordering::Relaxed)))
            .collect();
        assert_eq!(read, [("commit.begin", 3), ("open.ready", 1)]);
        assert!(parse("").is_empty());
    }

    #[test]
    #[should_panic(expected = "is not understood")]
    fn an_unknown_failpoint_is_not_taken_for_a_passed_test() {
        parse("commit.begni=kill");
    }

    #[test]
    fn names_are_unique() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }
}
