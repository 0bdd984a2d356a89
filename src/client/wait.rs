//! `wait`: blocks the calling thread until a reply is there; `pause`: a reply that is there after a while.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use futures::channel::oneshot;

use super::ClientError;
use crate::env::Env;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The future's output, blocking until it is there. In-process replies mostly are, so that
/// nothing is parked. Not for use inside an async task.
pub fn wait<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    if let Poll::Ready(output) = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        return output;
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Completes after `duration`. It costs a thread, for the rare retry of a client that has none of its own; where there are no
/// threads, the caller's turn takes so long.
pub(super) async fn pause(env: &Env, duration: Duration) -> Result<(), ClientError> {
    if !env.spawn.has_threads() {
        env.clock.sleep(duration);
        return Ok(());
    }
    let (done, over) = oneshot::channel();
    let clock = env.clock.clone();
    let sleep = move || {
        clock.sleep(duration);
        // Nobody listens if the retry was given up meanwhile.
        let _ = done.send(());
    };
    env.spawn
        .spawn("of-retry", Box::new(sleep))
        .map_err(|e| ClientError::Thread {
            name: "of-retry".to_owned(),
            why: e.to_string(),
        })?;
    // A sleeper that died counts as over.
    let _ = over.await;
    Ok(())
}
