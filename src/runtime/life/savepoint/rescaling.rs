//! Restoring state into another number of state partitions: each row goes where its key belongs now.

use std::ops::ControlFlow;

use super::placing::{Place, place};
use super::refused;
use super::restoring::{Restore, bounds, for_each_key};
use super::writing::{Target, Writing};
use crate::runtime::contract::error::JobError;
use crate::runtime::task::timed_row::later_of;
use crate::state::{StoreAtRest, state_partition};
use crate::types::{TopicName, TopicPartition};

impl Restore<'_> {
    /// Fills the changelogs of a store, of which there are `count`, with its rows; what is in them and not in the savepoint is deleted.
    pub(super) fn write_rescaled(
        &self,
        store: &str,
        topic: &TopicName,
        count: u16,
        writing: &mut Writing<'_>,
    ) -> Result<(), JobError> {
        let place_of = |partition: u16| TopicPartition::new(topic.clone(), i32::from(partition));
        let targets: Vec<Target> = (0..count).map(|it| writing.open(&place_of(it))).collect();
        let saved = self.saved.stores().into_iter().find(|it| it.name == store);
        for (partition, &target) in (0..count).zip(&targets) {
            let place = place_of(partition);
            let (start, end) = bounds(self.transport, &place)?;
            let mut each =
                |key: &[u8], writing: &mut Writing<'_>| match self.is_saved(saved.as_ref(), key)? {
                    true => writing.step(),
                    false => writing.push(target, key, None),
                };
            for_each_key(self.transport, &place, start, end, writing, &mut each)?;
        }
        if let Some(saved) = &saved {
            self.move_rows(saved, count, &targets, writing)?;
        }
        writing.finish_rows()
    }

    /// Whether the savepoint has a row of this key.
    fn is_saved(&self, saved: Option<&StoreAtRest>, key: &[u8]) -> Result<bool, JobError> {
        let Some(saved) = saved else {
            return Ok(false);
        };
        match self.place_of(saved, key)? {
            Place::Each => Ok(true),
            Place::Hash(hash) => {
                let partition = state_partition(hash, self.saved.state_partitions());
                Ok(self.saved.get(&saved.name, partition, key)?.is_some())
            }
        }
    }

    fn move_rows(
        &self,
        saved: &StoreAtRest,
        count: u16,
        targets: &[Target],
        writing: &mut Writing<'_>,
    ) -> Result<(), JobError> {
        let before = self.saved.state_partitions();
        let mut each: Option<(Vec<u8>, Vec<u8>)> = None;
        for partition in 0..before {
            let mut failed = Ok(());
            let mut move_row = |key: &[u8], value: &[u8]| match self.place_of(saved, key)? {
                Place::Each => {
                    let time = match each.take() {
                        Some((_, time)) => later_of(time, value),
                        None => value.to_vec(),
                    };
                    each = Some((key.to_vec(), time));
                    Ok(())
                }
                Place::Hash(hash) if state_partition(hash, before) == partition => {
                    let target = targets[usize::from(state_partition(hash, count))];
                    writing.push(target, key, Some(value))
                }
                Place::Hash(_) => Err(self.misplaced(saved)),
            };
            let _ = self
                .saved
                .visit(&saved.name, partition, &mut |key, value| {
                    failed = move_row(key, value);
                    Ok(match failed {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_) => ControlFlow::Break(()),
                    })
                })?;
            failed?;
        }
        if let Some((key, time)) = each {
            let mut targets = targets.iter();
            targets.try_for_each(|target| writing.push(*target, &key, Some(&time)))?;
        }
        Ok(())
    }

    fn place_of(&self, saved: &StoreAtRest, key: &[u8]) -> Result<Place, JobError> {
        let key_type = saved.key.as_ref().map_or("", |key| key.as_str());
        place(key_type, key).ok_or_else(|| self.misplaced(saved))
    }

    fn misplaced(&self, saved: &StoreAtRest) -> JobError {
        let why = format!(
            "its store {:?} has rows that are placed by something else than their keys: it can be restored into {} state partitions only, ask \
             for as many",
            saved.name,
            self.saved.state_partitions()
        );
        refused(self.savepoint.path(), why)
    }
}
