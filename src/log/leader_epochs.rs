//! `LeaderEpochs`: which leader epoch wrote which offsets of a partition, and where each of them ended. Pure.
//!
//! ```text
//! leader-epoch-checkpoint     "0\n2\n0 0\n3 170\n": version, number of lines, then epoch and first offset of each
//! ```
//! The file is Kafka's and for Kafka's tools. What we believe stands in the producer snapshots, which have a checksum,
//! and in the batches behind them.

use std::fmt::Write;

use crate::protocol::batch::Header;
use crate::types::Offset;

/// The most epochs that are remembered. Of an older one it is only known that it ended before those.
const EPOCHS_MAX: usize = 1000;

/// The epochs that wrote something, oldest first, each with its first offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaderEpochs(Vec<(i32, Offset)>);

impl LeaderEpochs {
    /// The epochs of a partition that one leader writes from `first` on.
    pub(super) fn beginning(epoch: i32, first: Offset) -> Self {
        Self(vec![(epoch, first)])
    }

    /// Those given, if epochs and offsets increase.
    pub(super) fn new(entries: Vec<(i32, Offset)>) -> Option<Self> {
        let is_increasing = entries
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let is_legal = entries
            .iter()
            .all(|(epoch, first)| *epoch >= 0 && first.0 >= 0);
        (is_increasing && is_legal && entries.len() <= EPOCHS_MAX).then_some(Self(entries))
    }

    /// Oldest first.
    pub(super) fn entries(&self) -> &[(i32, Offset)] {
        &self.0
    }

    /// Whether a batch like this would be the first of its epoch.
    pub(super) fn is_news(&self, header: &Header) -> bool {
        let epoch = header.partition_leader_epoch;
        epoch >= 0 && self.0.last().is_none_or(|&(last, _)| last < epoch)
    }

    /// Takes note of a batch that was written, or that is read again.
    pub(super) fn note(&mut self, header: &Header) {
        if !self.is_news(header) {
            return;
        }
        // An epoch that wrote nothing, as that of a new partition, leaves its place to the one that does.
        while self
            .0
            .last()
            .is_some_and(|&(_, first)| first >= header.base_offset)
        {
            self.0.pop();
        }
        if self.0.len() == EPOCHS_MAX {
            self.0.remove(0);
        }
        self.0
            .push((header.partition_leader_epoch, header.base_offset));
    }

    /// Forgets what lies below the first offset of the log.
    pub(super) fn begin_at(&mut self, log_start: Offset) {
        let below = self.0.partition_point(|&(_, first)| first <= log_start);
        self.0.drain(..below.saturating_sub(1));
        if let Some((_, first)) = self.0.first_mut() {
            *first = (*first).max(log_start);
        }
    }

    /// The epoch that wrote `offset`, or would have if compaction had left it; `None` if nobody remembers.
    pub(crate) fn at(&self, offset: Offset) -> Option<i32> {
        let behind = self.0.partition_point(|&(_, first)| first <= offset);
        let (epoch, _) = self.0.get(behind.checked_sub(1)?)?;
        Some(*epoch)
    }

    /// Checks the epoch of a batch that is read: it lies outside the checksum (F7).
    pub(super) fn check(&self, header: &Header) -> Result<(), String> {
        let found = header.partition_leader_epoch;
        let is_right = match self.at(header.base_offset) {
            Some(epoch) => found == epoch,
            // The first epoch may have begun below the log start, in the batch that holds it.
            None => found >= 0 && self.0.first().is_none_or(|&(first, _)| found <= first),
        };
        match is_right {
            true => Ok(()),
            false => Err(format!(
                "the batch of offset {} has leader epoch {found}, which did not write it",
                header.base_offset
            )),
        }
    }

    /// The largest epoch up to `epoch` that wrote something, and where it ended; `None` if `epoch` is newer than
    /// `current`, the leader's, which ends at `log_end`. As Kafka's OffsetsForLeaderEpoch answers.
    pub(super) fn end_of(
        &self,
        epoch: i32,
        current: i32,
        log_end: Offset,
    ) -> Option<(i32, Offset)> {
        if epoch < 0 || epoch > current {
            return None;
        }
        if epoch == current {
            return Some((current, log_end));
        }
        let behind = self.0.partition_point(|&(other, _)| other <= epoch);
        let end = self.0.get(behind).map_or(log_end, |&(_, first)| first);
        let floor = behind.checked_sub(1).and_then(|index| self.0.get(index));
        Some((floor.map_or(epoch, |&(floor, _)| floor), end))
    }

    /// The text of `leader-epoch-checkpoint`.
    pub(super) fn text(&self) -> String {
        let mut text = format!("0\n{}\n", self.0.len());
        for (epoch, first) in &self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{epoch} {first}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::support::plain;

    fn header(epoch: i32, offset: i64) -> Header {
        let mut header = Header::parse(&plain(&["v"])).unwrap();
        header.partition_leader_epoch = epoch;
        header.base_offset = Offset(offset);
        header
    }

    fn epochs() -> LeaderEpochs {
        let mut epochs = LeaderEpochs::beginning(0, Offset(0));
        for (epoch, offset) in [(0, 0), (0, 5), (3, 170), (3, 180), (4, 200)] {
            epochs.note(&header(epoch, offset));
        }
        epochs
    }

    #[test]
    fn the_checkpoint_is_written_as_kafka_writes_it() {
        assert_eq!(epochs().text(), "0\n3\n0 0\n3 170\n4 200\n");
        assert_eq!(LeaderEpochs::default().text(), "0\n0\n");
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_that_wrote_begins() {
        let ends = |epoch| {
            epochs()
                .end_of(epoch, 6, Offset(250))
                .map(|(e, o)| (e, o.0))
        };
        assert_eq!(ends(0), Some((0, 170)));
        assert_eq!(ends(2), Some((0, 170)), "epochs 1 and 2 wrote nothing");
        assert_eq!(ends(3), Some((3, 200)));
        assert_eq!(ends(4), Some((4, 250)));
        assert_eq!(ends(5), Some((4, 250)));
        assert_eq!(ends(6), Some((6, 250)));
        assert_eq!(ends(7), None);
        assert_eq!(ends(-1), None);
    }

    #[test]
    fn what_lies_below_the_log_start_is_forgotten() {
        let mut epochs = epochs();
        epochs.begin_at(Offset(175));
        assert_eq!(epochs.text(), "0\n2\n3 175\n4 200\n");
        let end = epochs.end_of(0, 4, Offset(250));
        assert_eq!(end, Some((0, Offset(175))), "as far as anybody knows");
        assert_eq!(epochs.at(Offset(174)), None);
    }

    #[test]
    fn an_epoch_that_wrote_nothing_leaves_its_place() {
        let mut epochs = LeaderEpochs::beginning(0, Offset(0));
        epochs.note(&header(2, 0));
        assert_eq!(epochs.text(), "0\n1\n2 0\n");
    }

    #[test]
    fn f7_only_the_epoch_that_wrote_an_offset_is_believed() {
        let epochs = epochs();
        for (epoch, offset, is_right) in [
            (0, 0, true),
            (0, 169, true),
            (3, 169, false),
            (3, 170, true),
            (4, 199, false),
            (4, 300, true),
            (5, 300, false),
            (-1, 0, false),
        ] {
            let found = epochs.check(&header(epoch, offset)).is_ok();
            assert_eq!(found, is_right, "epoch {epoch} at {offset}");
        }
    }

    #[test]
    fn old_epochs_are_forgotten_so_that_restarts_cost_no_memory() {
        let mut epochs = LeaderEpochs::default();
        for n in 0..3000 {
            epochs.note(&header(n, i64::from(n)));
        }
        assert_eq!(epochs.entries().len(), EPOCHS_MAX);
        assert_eq!(epochs.at(Offset(2999)), Some(2999));
        assert!(epochs.check(&header(7, 7)).is_ok(), "nobody remembers");
        assert!(epochs.check(&header(2500, 7)).is_err());
    }

    #[test]
    fn lists_that_do_not_increase_are_refused() {
        let list = |entries: &[(i32, i64)]| {
            LeaderEpochs::new(entries.iter().map(|&(e, o)| (e, Offset(o))).collect())
        };
        assert!(list(&[(0, 0), (3, 7)]).is_some());
        for wrong in [
            &[(3, 0), (3, 7)][..],
            &[(0, 7), (3, 7)],
            &[(-1, 0)],
            &[(0, -1)],
        ] {
            assert_eq!(list(wrong), None);
        }
    }
}
