//! Tasks that come and go in a job that is scaled out, where a cycle is committed and none is open.

use super::*;

impl Driver {
    /// The cycle is committed and none is open: tells each worker what it lets go of and takes on.
    pub(super) fn reassign(&mut self) -> Result<(), JobError> {
        let Some(share) = self.share.clone() else {
            unreachable!("the tasks of a job that runs alone stay")
        };
        let change = share.membership.begin_change();
        debug!(job = %self.job.name, revoked = change.revoked.len(), added = change.added.len(), "changes tasks");
        if !change.revoked.is_empty() {
            // Changes on their way to RocksDB must not overtake the next owner of the state in this process.
            self.flusher.wait_until_idle()?;
        }
        let mut changes: Vec<TaskChange> = Vec::new();
        changes.resize_with(self.job.inboxes.len(), TaskChange::default);
        let plan = share.membership.plan();
        for &task in &change.revoked {
            if let Some(worker) = self.placement.remove(task) {
                self.close_task(plan, task, &mut changes[worker]);
            }
        }
        for ready in &change.added {
            let worker = self.placement.add(ready.task);
            self.open_task(plan, ready, &mut changes[worker]);
        }
        self.changing = Some((change.revoked, changes.len()));
        for (inbox, change) in self.job.inboxes.iter().zip(changes) {
            inbox.send(Message::Reassign(Box::new(change)));
        }
        Ok(())
    }

    fn close_task(&mut self, plan: &Plan, task: Task, change: &mut TaskChange) {
        change.closed_state.extend(plan.state_partition(task));
        for (_, place) in plan.feeds(task) {
            if let Some(number) = self.job.splits.number(&Split::Partition(place)) {
                self.committed.remove(&number);
                change.closed_splits.push(number);
            }
        }
    }

    fn open_task(&mut self, plan: &Plan, ready: &ReadyTask, change: &mut TaskChange) {
        let state_partition = plan.state_partition(ready.task);
        change.opened_state.extend(state_partition);
        for (feed, place) in plan.feeds(ready.task) {
            let position = ready.positions.get(&place).cloned();
            let split = Split::Partition(place);
            let number = self.job.splits.add(SplitPlan {
                source: feed,
                split: split.clone(),
                position: position.clone(),
                is_rereadable: true,
                state_partition,
            });
            self.committed
                .extend(position.clone().map(|at| (number, at)));
            let assigned = AssignedSplit {
                number,
                split,
                position,
            };
            change.opened_splits.push((feed, assigned));
        }
    }

    /// A worker has changed its tasks; `true` once all have.
    pub(super) fn tasks_changed(&mut self) -> bool {
        let Some((revoked, workers)) = self.changing.take() else {
            unreachable!("tasks change when they are told to")
        };
        if workers > 1 {
            self.changing = Some((revoked, workers - 1));
            return false;
        }
        if let Some(share) = &self.share {
            share.membership.end_change(&revoked);
        }
        true
    }
}
