//! Producer ids: reserved in blocks by a journal record, so that none is ever given twice, through any crash.

use crate::types::ProducerId;

/// The producer ids that may be given out.
#[derive(Debug, Clone, Default, Hash)]
pub(super) struct ProducerIds {
    /// The next one to give.
    next: i64,
    /// The first one that no durable record reserves.
    end: i64,
    /// The end of the block that is being journalled.
    requested_end: Option<i64>,
}

impl ProducerIds {
    /// Everything below `end` may have been given out before a restart.
    pub(super) fn replay_block(&mut self, end: ProducerId) {
        self.end = self.end.max(end.0);
        self.next = self.end;
    }

    /// `id` is in use: nothing up to it is given out.
    pub(super) fn replay_used(&mut self, id: ProducerId) {
        self.replay_block(ProducerId(id.0.saturating_add(1)));
    }

    /// A producer id that was never given before; `None` while none is reserved.
    pub(super) fn allot(&mut self) -> Option<ProducerId> {
        (self.next < self.end).then(|| {
            self.next += 1;
            ProducerId(self.next - 1)
        })
    }

    /// The end of the block to be journalled now; `None` if one is on its way.
    pub(super) fn request_block(&mut self, size: i64) -> Option<ProducerId> {
        if self.requested_end.is_some() {
            return None;
        }
        let end = self.end.saturating_add(size.max(1));
        self.requested_end = Some(end);
        Some(ProducerId(end))
    }

    /// The block that was requested is durable.
    pub(super) fn block_written(&mut self) {
        self.end = self.requested_end.take().unwrap_or(self.end);
    }

    /// The block that was requested is not in the journal.
    pub(super) fn block_failed(&mut self) {
        self.requested_end = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_producer_id_is_given_twice_across_a_restart() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.allot(), None);
        let end = ids.request_block(3);
        assert_eq!(end, Some(ProducerId(3)));
        assert_eq!(ids.request_block(3), None, "one block at a time");
        assert_eq!(ids.allot(), None, "not before the record is durable");
        ids.block_written();
        let given: Vec<_> = std::iter::from_fn(|| ids.allot()).collect();
        assert_eq!(given, [ProducerId(0), ProducerId(1), ProducerId(2)]);

        let mut restarted = ProducerIds::default();
        restarted.replay_block(ProducerId(3));
        restarted.replay_used(ProducerId(1));
        assert_eq!(restarted.request_block(3), Some(ProducerId(6)));
        restarted.block_written();
        assert_eq!(restarted.allot(), Some(ProducerId(3)));
    }

    #[test]
    fn a_block_that_failed_is_asked_for_again() {
        let mut ids = ProducerIds::default();
        assert_eq!(ids.request_block(2), Some(ProducerId(2)));
        ids.block_failed();
        assert_eq!(ids.allot(), None);
        assert_eq!(ids.request_block(2), Some(ProducerId(2)));
    }
}
