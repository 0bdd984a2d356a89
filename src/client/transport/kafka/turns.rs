//! `Turns`: who comes first. Calls for one key take their turn when they are made, and go on in that order.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures::channel::oneshot;
use parking_lot::Mutex;

/// The last turn that was taken for each key.
#[derive(Debug, Clone)]
pub(super) struct Turns<K: Eq + Hash> {
    taken: Arc<Mutex<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K> {
    count: u64,
    last: HashMap<K, (u64, oneshot::Receiver<()>)>,
}

/// One call's turn; dropping it lets the next one go on.
pub(super) struct Turn<K: Eq + Hash> {
    turns: Turns<K>,
    key: K,
    number: u64,
    before: Option<oneshot::Receiver<()>>,
    _is_over: oneshot::Sender<()>,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    pub(super) fn new() -> Self {
        Self {
            taken: Arc::new(Mutex::new(Taken {
                count: 0,
                last: HashMap::new(),
            })),
        }
    }

    /// Takes the next turn for `key`.
    pub(super) fn take(&self, key: &K) -> Turn<K> {
        let (is_over, wait) = oneshot::channel();
        let mut taken = self.taken.lock();
        taken.count += 1;
        let number = taken.count;
        let before = taken.last.insert(key.clone(), (number, wait));
        Turn {
            turns: self.clone(),
            key: key.clone(),
            number,
            before: before.map(|(_, before)| before),
            _is_over: is_over,
        }
    }
}

impl<K: Eq + Hash> Turn<K> {
    /// Waits until all earlier turns for the key are over.
    pub(super) async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            // Its end is its being dropped.
            let _ = before.await;
        }
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut taken = self.turns.taken.lock();
        if taken
            .last
            .get(&self.key)
            .is_some_and(|(number, _)| *number == self.number)
        {
            taken.last.remove(&self.key);
        }
    }
}
