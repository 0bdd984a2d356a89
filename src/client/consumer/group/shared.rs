//! `Shared`: what a member's thread wants to be read, and what the consumer's polls have made of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::channel::oneshot;
use parking_lot::{Condvar, Mutex};

use crate::client::ClientError;
use crate::env::{Env, Instant};
use crate::protocol::messages::GroupMember;
use crate::types::TopicPartition;

/// The partitions that a consumer is to read.
#[derive(Debug, Clone, Default)]
pub(in crate::client::consumer) struct Desired {
    pub(in crate::client::consumer) partitions: BTreeSet<TopicPartition>,
    /// Whether those that go were lost: somebody else may read them already, and nothing can be committed.
    pub(in crate::client::consumer) is_lost: bool,
    /// Grows with each change.
    pub(in crate::client::consumer) version: u64,
}

/// Between a consumer and its member's thread.
pub(in crate::client::consumer) struct Shared {
    env: Env,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    desired: Desired,
    applied_version: u64,
    /// As who the member joined last.
    member: GroupMember,
    is_member: bool,
    /// Who it was when it lost partitions of which no poll has heard yet.
    lost_as: Option<GroupMember>,
    last_poll: Instant,
    is_polling: bool,
    failure: Option<ClientError>,
    /// Dropped when the member is to leave.
    open: Option<oneshot::Sender<()>>,
    /// A poll that waits for a change.
    poll: Option<Waker>,
}

/// The member is to leave.
pub(super) struct Closing;

impl Shared {
    /// The shared part, and what resolves when it is closed.
    pub(super) fn new(env: Env) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (open, closing) = oneshot::channel();
        let state = State {
            desired: Desired::default(),
            applied_version: 0,
            member: GroupMember::default(),
            is_member: false,
            lost_as: None,
            last_poll: env.clock.now(),
            is_polling: false,
            failure: None,
            open: Some(open),
            poll: None,
        };
        let shared = Self {
            env,
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        (Arc::new(shared), closing)
    }

    /// Asks the member to leave.
    pub(super) fn close(&self) {
        self.state.lock().open = None;
        self.changed.notify_all();
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let poll = state.poll.take();
        drop(state);
        if let Some(poll) = poll {
            poll.wake();
        }
    }

    /// Says what is to be read; returns the version to wait for.
    pub(super) fn publish(&self, partitions: BTreeSet<TopicPartition>, is_lost: bool) -> u64 {
        let mut version = 0;
        self.change(|state| {
            // What was lost stays lost until a poll has heard of it.
            let is_unheard_loss =
                state.desired.is_lost && state.applied_version != state.desired.version;
            version = state.desired.version + 1;
            if is_lost {
                state.is_member = false;
                state.lost_as.get_or_insert_with(|| state.member.clone());
            }
            state.desired = Desired {
                partitions,
                is_lost: is_lost || is_unheard_loss,
                version,
            };
        });
        version
    }

    /// Who commits from now on.
    pub(super) fn set_member(&self, member: GroupMember) {
        let mut state = self.state.lock();
        (state.member, state.is_member) = (member, true);
    }

    /// The membership has ended with an error, which polls return.
    pub(super) fn fail(&self, error: ClientError) {
        self.change(|state| state.failure = Some(error));
    }

    /// Blocks until `deadline`, or until a poll has applied `version`; whether it has.
    pub(super) fn wait_applied(&self, version: u64, deadline: Instant) -> Result<bool, Closing> {
        let mut state = self.state.lock();
        loop {
            let left = deadline.since(self.env.clock.now());
            match () {
                () if state.open.is_none() => return Err(Closing),
                () if state.applied_version >= version => return Ok(true),
                () if left.is_zero() => return Ok(false),
                () => drop(self.changed.wait_for(&mut state, left)),
            }
        }
    }

    /// Blocks until `deadline`.
    pub(super) fn sleep(&self, deadline: Instant) -> Result<(), Closing> {
        self.wait_applied(u64::MAX, deadline).map(drop)
    }

    /// For how long nobody has polled; zero during a poll.
    pub(super) fn idle(&self) -> Duration {
        let state = self.state.lock();
        match state.is_polling {
            true => Duration::ZERO,
            false => self.env.clock.now().since(state.last_poll),
        }
    }

    /// A poll begins; it ends when the guard is dropped.
    pub(in crate::client::consumer) fn begin_poll(self: &Arc<Self>) -> Polling {
        self.state.lock().is_polling = true;
        Polling(self.clone())
    }

    /// Returns what is to be read, if it is new.
    ///
    /// # Errors
    /// Reason for the membership's end.
    pub(in crate::client::consumer) fn desired(&self) -> Result<Option<Desired>, ClientError> {
        let state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let is_new = state.applied_version != state.desired.version;
        Ok(is_new.then(|| state.desired.clone()))
    }

    /// The consumer reads what `version` says.
    pub(in crate::client::consumer) fn applied(&self, version: u64) {
        let mut state = self.state.lock();
        state.applied_version = version;
        if version == state.desired.version {
            state.lost_as = None;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Who commits. K9: until a poll has heard of a loss, who it was before, whom the group refuses: what the consumer
    /// holds is from that time, and the thread may have joined anew since.
    pub(in crate::client::consumer) fn member(&self) -> GroupMember {
        let state = self.state.lock();
        state.lost_as.as_ref().unwrap_or(&state.member).clone()
    }

    /// Whether the group knows the member by that name, as far as is known.
    pub(in crate::client::consumer) fn is_member(&self) -> bool {
        let state = self.state.lock();
        state.is_member && state.lost_as.is_none()
    }

    /// Resolves when something is to be applied, or the membership has ended.
    pub(in crate::client::consumer) async fn changed(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.state.lock();
            let is_new = state.applied_version != state.desired.version;
            if is_new || state.failure.is_some() {
                return Poll::Ready(());
            }
            state.poll = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A poll under way.
pub(in crate::client::consumer) struct Polling(Arc<Shared>);

impl Drop for Polling {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_polling = false;
        state.last_poll = self.0.env.clock.now();
        drop(state);
        self.0.changed.notify_all();
    }
}
