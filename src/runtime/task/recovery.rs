//! Phases of a job's start before its first record: shown with each of its lives.

use std::collections::BTreeMap;
use std::time::Duration;

use super::meter::micros;
use crate::env::Instant;

/// Times of a start before its first record, in microseconds. A job that is scaled out opens its state as tasks come to it, which is
/// not part of this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RecoveryStatus {
    /// The instance before was fenced, and what it had left open was ended.
    pub fence_micros: u64,
    /// Topics were looked up or created, and RocksDB was opened.
    pub open_micros: u64,
    /// Positions were read, and splits planned from them.
    pub positions_micros: u64,
    /// Offsets of changelogs that were replayed into stores.
    pub replayed_records: u64,
    /// Time of the slowest worker for that, with the lookups in front of it.
    pub replay_micros: u64,
}

/// The start that is under way, or was last.
#[derive(Debug, Default)]
pub(super) struct Recovering {
    status: RecoveryStatus,
    /// The time that each worker has spent on replaying; they replay side by side.
    replays: BTreeMap<usize, Duration>,
}

impl Recovering {
    /// A job has come through what precedes its workers, at these moments: its begin, and the ends of the three phases.
    pub(super) fn prepared(&mut self, [begin, fenced, open, planned]: [Instant; 4]) {
        self.status = RecoveryStatus {
            fence_micros: micros(fenced.since(begin)),
            open_micros: micros(open.since(fenced)),
            positions_micros: micros(planned.since(open)),
            ..RecoveryStatus::default()
        };
        self.replays.clear();
    }

    /// A worker has replayed so many records for one of its stores.
    pub(super) fn replayed(&mut self, worker: usize, records: u64, took: Duration) {
        let whole = self.replays.entry(worker).or_default();
        *whole += took;
        self.status.replayed_records += records;
        self.status.replay_micros = self.status.replay_micros.max(micros(*whole));
    }

    pub(super) fn status(&self) -> RecoveryStatus {
        self.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_replay_side_by_side_and_their_stores_one_after_the_other() {
        let mut recovering = Recovering::default();
        let millis = Duration::from_millis;
        let at = |after| Instant::default().plus(millis(after));
        recovering.prepared([at(0), at(1), at(3), at(6)]);
        recovering.replayed(0, 10, millis(4));
        recovering.replayed(1, 10, millis(5));
        recovering.replayed(0, 10, millis(6));
        let status = recovering.status();
        assert_eq!(
            (status.replayed_records, status.replay_micros),
            (30, 10_000)
        );
        assert_eq!((status.fence_micros, status.open_micros), (1_000, 2_000));
        recovering.prepared([at(9); 4]);
        assert_eq!(recovering.status(), RecoveryStatus::default());
    }
}
