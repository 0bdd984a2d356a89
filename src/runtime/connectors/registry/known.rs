//! [`Known`]: what was found out about schemas, by id. It grows only, so that a record looks it up without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The chains among which ids are spread.
const CHAINS: usize = 64;
/// The most ids that are kept: a subject with more is broken, or hostile.
const IDS_MAX: usize = 10_000;

/// Entries by id.
pub(super) struct Known<E> {
    chains: [OnceLock<Box<Link<E>>>; CHAINS],
    count: AtomicUsize,
}

struct Link<E> {
    id: u32,
    entry: E,
    next: OnceLock<Box<Link<E>>>,
}

impl<E> Default for Known<E> {
    fn default() -> Self {
        Self {
            chains: std::array::from_fn(|_| OnceLock::new()),
            count: AtomicUsize::new(0),
        }
    }
}

impl<E> Known<E> {
    fn chain(&self, id: u32) -> &OnceLock<Box<Link<E>>> {
        let place = usize::try_from(id).unwrap_or(0) % CHAINS;
        &self.chains[place]
    }

    /// The entry of an id.
    #[inline]
    pub(super) fn find(&self, id: u32) -> Option<&E> {
        let mut link = self.chain(id).get();
        while let Some(found) = link {
            if found.id == id {
                return Some(&found.entry);
            }
            link = found.next.get();
        }
        None
    }

    /// Keeps an entry, unless there is one with this id or there are too many; says whether the id has an entry now.
    pub(super) fn insert(&self, id: u32, entry: E) -> bool {
        if self.count.load(Ordering::Relaxed) >= IDS_MAX {
            return self.find(id).is_some();
        }
        let mut link = Box::new(Link {
            id,
            entry,
            next: OnceLock::new(),
        });
        let mut place = self.chain(id);
        loop {
            match place.set(link) {
                Ok(()) => {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(again) => link = again,
            }
            // It was set, so it is there.
            let Some(taken) = place.get() else {
                continue;
            };
            if taken.id == id {
                return true;
            }
            place = &taken.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_its_first_entry_and_there_are_not_too_many() {
        let known = Known::default();
        let ids = u32::try_from(IDS_MAX).unwrap();
        for id in 0..ids {
            assert_eq!(known.find(id), None);
            assert!(known.insert(id, id + 1));
        }
        assert!(known.insert(5, 0));
        assert_eq!(known.find(5), Some(&6));
        assert!(!known.insert(ids, 0));
        assert_eq!(known.find(ids), None);
    }
}
