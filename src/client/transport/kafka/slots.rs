//! `Slots`: the connections to the brokers, made when they are needed, one at a time each, with growing pauses after failures.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::channel::Channel;
use super::login::Login;
use super::metadata::NodeId;
use crate::client::ClientError;
use crate::protocol::ErrorKind;

/// Connections that wait for the next parked request, a broker.
const IDLE_PARKED_MAX: usize = 32;

/// Which broker a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The n-th of `bootstrap.servers`, whichever broker that is.
    Bootstrap(usize),
    Node(NodeId),
}

/// Use of a connection: requests of one kind do not wait behind those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Batches.
    Produce,
    /// Requests answered soon.
    Control,
    /// Requests that the broker may park: each has a connection to itself while it waits.
    Parked,
}

struct Slot {
    channel: Option<Arc<Channel>>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// Held while its connection is made: others then find it.
type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

/// All connections of a client.
pub(super) struct Slots {
    slots: Mutex<HashMap<(Place, Lane), SharedSlot>>,
    idle_parked: Mutex<HashMap<NodeId, Vec<Arc<Channel>>>>,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            slots: Mutex::default(),
            idle_parked: Mutex::default(),
        }
    }

    /// The connection to `place` for `lane`, made by `login` if there is none.
    pub(super) async fn channel(
        &self,
        place: Place,
        lane: Lane,
        login: Login<'_>,
    ) -> Result<Arc<Channel>, ClientError> {
        let slot = {
            let mut slots = self.slots.lock();
            let slot = slots.entry((place, lane)).or_insert_with(|| {
                let settings = login.settings;
                Arc::new(tokio::sync::Mutex::new(Slot {
                    channel: None,
                    backoff: Backoff::new(
                        settings.reconnect_backoff,
                        settings.reconnect_backoff_max,
                    ),
                    not_before: None,
                }))
            });
            Arc::clone(slot)
        };
        let mut slot = slot.lock().await;
        if let Some(channel) = slot.channel.as_ref().filter(|channel| channel.is_usable()) {
            return Ok(Arc::clone(channel));
        }
        // What is under way on a connection that retires still ends there.
        slot.channel = None;
        if let Some(not_before) = slot.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        match login.run().await {
            Ok(channel) => {
                slot.backoff.reset();
                slot.not_before = None;
                slot.channel = Some(Arc::clone(&channel));
                Ok(channel)
            }
            Err(error) => {
                if error.kind() == ErrorKind::Retriable {
                    let pause = slot.backoff.next(&*login.env.random);
                    slot.not_before = Some(Instant::now() + pause);
                }
                Err(error)
            }
        }
    }

    /// A connection that waits for a request that may be parked.
    pub(super) fn take_parked(&self, node: NodeId) -> Option<Arc<Channel>> {
        let mut idle = self.idle_parked.lock();
        let channels = idle.get_mut(&node)?;
        std::iter::from_fn(|| channels.pop()).find(|channel| channel.is_usable())
    }

    /// Gives a connection back whose request was answered.
    pub(super) fn return_parked(&self, node: NodeId, channel: Arc<Channel>) {
        let mut idle = self.idle_parked.lock();
        let channels = idle.entry(node).or_default();
        if channel.is_usable() && channels.len() < IDLE_PARKED_MAX {
            channels.push(channel);
        }
    }

    /// Whether a connection is there already.
    pub(super) fn is_connected(&self, place: Place) -> bool {
        let slots = self.slots.lock();
        let slot = slots.get(&(place, Lane::Control));
        slot.and_then(|slot| slot.try_lock().ok())
            .is_some_and(|slot| {
                slot.channel
                    .as_ref()
                    .is_some_and(|channel| channel.is_usable())
            })
    }
}
