//! The numbers of commits that readers are shown: they go up for good, also over the death of the process (pure).

/// The epochs that are reserved at once: more than a day of commits at ten a second, and the number fits JSON for 8 billion restarts.
const BLOCK: u64 = 1 << 20;

/// The epochs that this process may show. One is shown only if a committed record says that it, or a later one, was reserved; a start
/// begins at the last one that was reserved. So whatever a process showed before it died, the next one shows no less.
#[derive(Debug)]
pub(super) struct Epochs {
    last_reserved: u64,
}

impl Epochs {
    /// As the log has it.
    pub(super) fn new(last_reserved: u64) -> Self {
        Self { last_reserved }
    }

    /// The cycle that is about to be committed becomes this epoch: the bound to write in its own transaction, if a new one is needed.
    pub(super) fn reserve(&mut self, epoch: u64) -> Option<u64> {
        if epoch <= self.last_reserved {
            return None;
        }
        self.last_reserved = epoch + BLOCK;
        Some(self.last_reserved)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The fate of a cycle.
    #[derive(Debug, Clone, Copy)]
    enum End {
        Committed,
        Aborted,
        /// It is committed, and the process dies before it hears of it.
        Unheard,
    }

    fn ends() -> impl Strategy<Value = Vec<End>> {
        let end = prop_oneof![
            12 => Just(End::Committed),
            1 => Just(End::Aborted),
            1 => Just(End::Unheard),
        ];
        prop::collection::vec(end, 0..300)
    }

    proptest! {
        #[test]
        fn u12_epochs_never_go_back_and_one_epoch_is_never_two_states(ends in ends(), is_armed in any::<u64>()) {
            // The log: the bound that is committed, and how many cycles are.
            let (mut reserved, mut state) = (0, 0);
            let mut epochs = Epochs::new(reserved);
            let mut epoch = reserved;
            let mut shown: Option<(u64, u64)> = None;
            for (number, end) in ends.into_iter().enumerate() {
                let is_armed = is_armed >> (number / 5 % 64) & 1 == 1;
                let written = is_armed.then(|| epochs.reserve(epoch + 1)).flatten();
                if !matches!(end, End::Aborted) {
                    reserved = written.unwrap_or(reserved);
                    state += 1;
                }
                if !matches!(end, End::Committed) {
                    epochs = Epochs::new(reserved);
                    epoch = reserved;
                    continue;
                }
                epoch += 1;
                if is_armed {
                    let (last_epoch, last_state) = shown.unwrap_or_default();
                    prop_assert!(epoch >= last_epoch);
                    prop_assert!(epoch > last_epoch || state == last_state);
                    shown = Some((epoch, state));
                }
            }
        }
    }

    #[test]
    fn a_bound_is_written_once_in_a_million_commits() {
        let mut epochs = Epochs::new(0);
        assert_eq!(epochs.reserve(1), Some(1 + BLOCK));
        assert_eq!(epochs.reserve(2), None);
        assert_eq!(epochs.reserve(1 + BLOCK), None);
        assert_eq!(epochs.reserve(2 + BLOCK), Some(2 + 2 * BLOCK));
    }
}
