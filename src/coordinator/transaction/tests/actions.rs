//! Everything that may happen next in a state of the world.

use super::clients::{end_kind, request_id};
use super::world::{Action, Client, Message, World};
use crate::coordinator::transaction::Effect;
use crate::protocol::messages::TransactionResult;

impl World {
    pub(super) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            self.client_actions(number, client, &mut actions);
        }
        for at in 0..self.network.len() {
            actions.push(Action::Deliver(at));
            if self.copies_left > 0 {
                actions.push(Action::DeliverCopy(at));
            }
        }
        if !self.queue.is_empty() {
            actions.push(Action::RunEffect);
        }
        if self.timeouts_left > 0 && !self.coordinator.is_recovering() {
            actions.push(Action::Timeout);
        }
        if self.crashes_left > 0 {
            self.crash_actions(&mut actions);
        }
        if self.kills_left > 0 {
            let has_front = matches!(self.queue.front(), Some(Effect::AppendJournal { .. }));
            actions.push(Action::Kill { has_begun: false });
            if has_front {
                actions.push(Action::Kill { has_begun: true });
            }
        }
        actions
    }

    fn client_actions(&self, number: usize, client: &Client, actions: &mut Vec<Action>) {
        let is_busy = self.network.iter().any(|message| match message {
            Message::Init { .. } | Message::Produce { .. } => false,
            Message::End {
                client: of, label, ..
            } => *of == number && *label == client.label && client.ending.is_some(),
        });
        if client.is_fenced || is_busy {
            return;
        }
        if client.identity.is_none() && client.inits_left > 0 && !client.is_initialising {
            actions.push(Action::SendInit(number));
        }
        if client.identity.is_none() || client.transactions_left == 0 {
            return;
        }
        match client.ending {
            Some(_) if self.is_end_awaited(number) => {}
            Some(result) => actions.push(Action::SendEnd(number, result)),
            None => {
                for partition in 0..self.partitions.len() {
                    if !client.sent.contains(&partition) {
                        actions.push(Action::SendProduce(number, partition));
                    }
                }
                if client.sent == client.acked {
                    actions.push(Action::SendEnd(number, TransactionResult::Commit));
                }
                actions.push(Action::SendEnd(number, TransactionResult::Abort));
            }
        }
    }

    fn is_end_awaited(&self, client: usize) -> bool {
        let state = &self.clients[client];
        let Some(ending) = state.ending else {
            return false;
        };
        let waiter = request_id(client, end_kind(state.label, ending));
        self.coordinator
            .entries
            .values()
            .any(|entry| entry.pending.as_ref().and_then(|pending| pending.waiter) == Some(waiter))
    }

    /// Every choice of files that have something to lose.
    fn crash_actions(&self, actions: &mut Vec<Action>) {
        let has_front = matches!(self.queue.front(), Some(Effect::AppendJournal { .. }));
        let mut losers = 0u8;
        let journal_loses = self.journal.synced < self.journal.items.len();
        losers |= u8::from(journal_loses);
        for (at, file) in self.partitions.iter().enumerate() {
            losers |= u8::from(file.synced < file.items.len()) << (at + 1);
        }
        for kept in 0..1 << (self.partitions.len() + 1) {
            let has_begun = false;
            if kept & !losers == 0 {
                actions.push(Action::Crash { kept, has_begun });
            }
            if has_front && kept & 1 == 1 && kept & !(losers | 1) == 0 {
                let has_begun = true;
                actions.push(Action::Crash { kept, has_begun });
            }
        }
    }
}
