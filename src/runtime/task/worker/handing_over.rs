//! Tasks that come and go between two cycles, in a job that is scaled out.
//!
//! Where a job asks for the time, chains are built anew when tasks come: those may be behind the tasks that are there, and time does
//! not go back for an operator. So they are where a step makes calls of the world outside, and has in memory what waits for an answer.
//! The new chains go on from committed state, as after a restart. The stores stay as they are in memory.

use std::sync::Arc;

use super::{State, Worker, build_chains};
use crate::env::failpoint;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::senders::{SenderClocks, Senders};
use crate::runtime::contract::source::{AssignedSplit, Position};
use crate::runtime::task::context::{ContextParts, JobContext, OperatorContext};
use crate::runtime::task::feed::Feed;
use crate::runtime::task::inbox::TaskChange;
use crate::runtime::task::report::Report;

/// Tells the feeds of topics between processes who sends to them.
pub(super) fn expect_senders(
    job: &JobContext,
    feeds: &mut [Box<dyn Feed>],
    sources_count: usize,
    ways: &[(Senders, usize)],
) -> Result<(), JobError> {
    if !job.is_spread {
        return Ok(());
    }
    for (exchange, feed) in feeds.iter_mut().skip(sources_count).enumerate() {
        let senders = ways.iter().filter(|way| way.1 == exchange);
        let senders: Vec<Senders> = senders.map(|way| way.0.clone()).collect();
        if !Position::holds_clocks(SenderClocks::committed_bytes_max(&senders)) {
            let count: u32 = senders.iter().map(|it| it.tasks_count).sum();
            return Err(JobError::Topology {
                job: job.name.clone(),
                why: format!(
                    "{count} partitions of sources and state send to the step {:?}, and the time of each is kept with the committed \
                     offset, which has no room for more than about 300: read fewer partitions, or run it as one process with several workers",
                    job.exchanges[exchange]
                ),
            });
        }
        feed.expect_senders(senders);
    }
    Ok(())
}

impl Worker {
    /// Lets tasks go and takes others on; the stores of those that stay keep all that they have in memory.
    pub(super) fn reassign(&mut self, change: &TaskChange) -> Result<(), JobError> {
        assert_eq!(
            self.state,
            State::Drained,
            "tasks change where the last cycle was drained"
        );
        for feed in &mut self.feeds {
            feed.close_splits(&change.closed_splits);
        }
        let job = Arc::clone(&self.job);
        self.each_store(&mut |store, changelog| {
            changelog.remove(store, &change.closed_state);
            Ok(changelog.add(&job, store, &change.opened_state)?)
        })?;
        failpoint("tasks.let_go");
        // Calls are also made for keys that went.
        let is_built_again = !change.opened_splits.is_empty() || self.job.calls.are_pending();
        let keeps_more_than_stores = self.job.uses_time || self.job.calls.are_used();
        if keeps_more_than_stores && is_built_again {
            self.build_again()?;
        }
        for (feed, assigned) in &change.opened_splits {
            self.feeds[*feed].open_split(assigned)?;
        }
        failpoint("tasks.taken_on");
        self.reports.send(Report::TasksChanged);
        Ok(())
    }

    /// Builds the chains anew, on the stores that are open, and goes on with the splits where they are.
    fn build_again(&mut self) -> Result<(), JobError> {
        let mut positions = Vec::new();
        for feed in &self.feeds {
            feed.positions(&mut |split, at| positions.push((split, at)));
        }
        // First what has its hands on the stores.
        self.feeds.clear();
        self.sinks.clear();
        let parts = ContextParts {
            writer: std::rc::Rc::clone(&self.writer),
            edges: Vec::new(),
            ways: Vec::new(),
            dead_letters: self.dead_letters.take(),
            stores: std::mem::take(&mut self.stores),
            sinks: Vec::new(),
            turn: std::rc::Rc::clone(&self.turn),
        };
        let sources_count = self.chains.sources.len();
        let job = Arc::clone(&self.job);
        let mut context = OperatorContext::again(job, self.number, sources_count, parts);
        (self.feeds, _) = build_chains(&self.chains, &mut context)?;
        let parts = context.into_parts();
        expect_senders(&self.job, &mut self.feeds, sources_count, &parts.ways)?;
        (self.dead_letters, self.stores, self.sinks) =
            (parts.dead_letters, parts.stores, parts.sinks);
        self.next_feed = 0;
        for (number, position) in positions {
            let Some(plan) = self.job.splits.get(number) else {
                unreachable!("the splits that a worker reads are the job's")
            };
            self.feeds[plan.source].open_split(&AssignedSplit {
                number,
                split: plan.split,
                position: Some(position),
            })?;
        }
        Ok(())
    }
}
