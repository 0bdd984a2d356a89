//! Which worker of this process has which task, and what each is to let go of and take on between two cycles. Pure.

use std::collections::BTreeMap;

use super::assignor::Task;

/// The tasks of each worker.
#[derive(Debug)]
pub(crate) struct Placement {
    workers: Vec<usize>,
    tasks: BTreeMap<Task, usize>,
}

impl Placement {
    pub(crate) fn new(workers_count: usize) -> Self {
        assert!(workers_count > 0, "a job has at least one worker");
        Self {
            workers: vec![0; workers_count],
            tasks: BTreeMap::new(),
        }
    }

    /// Takes a task away; says which worker had it.
    pub(crate) fn remove(&mut self, task: Task) -> Option<usize> {
        let worker = self.tasks.remove(&task)?;
        self.workers[worker] -= 1;
        Some(worker)
    }

    /// Gives a task to the worker that has fewest of its kind, then fewest at all. Tasks that stay are not moved.
    pub(crate) fn add(&mut self, task: Task) -> usize {
        let mut alike = vec![0usize; self.workers.len()];
        for (other, &worker) in &self.tasks {
            alike[worker] += usize::from(other.topics == task.topics);
        }
        let load = |worker: &usize| (alike[*worker], self.workers[*worker], *worker);
        let worker = (0..self.workers.len()).min_by_key(load).unwrap_or(0);
        if self.tasks.insert(task, worker).is_none() {
            self.workers[worker] += 1;
        }
        worker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_come_go_where_fewest_are_and_those_that_stay_stay() {
        let mut placement = Placement::new(2);
        let task = |topics, partition| Task { topics, partition };
        let given: Vec<usize> = (0..4).map(|p| placement.add(task(1, p))).collect();
        assert_eq!(given, [0, 1, 0, 1]);
        assert_eq!(placement.remove(task(1, 0)), Some(0));
        assert_eq!(placement.remove(task(1, 0)), None);
        assert_eq!(placement.add(task(1, 9)), 0);
        assert_eq!(placement.add(task(0, 0)), 0);
        assert_eq!(placement.add(task(0, 1)), 1);
        assert_eq!(placement.remove(task(1, 3)), Some(1));
    }
}
