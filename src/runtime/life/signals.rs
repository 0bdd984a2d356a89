//! SIGTERM and SIGINT end a job in order, whatever runtime its caller has, or none.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

use super::stopper::Stopper;
use crate::env::{Env, warn};

/// Stops the job at a signal, until something is sent to what is returned. On a thread of its own: the caller's runtime, if it has one,
/// may not be able to wait for signals.
pub(super) fn watch(env: &Env, stopper: Stopper) -> oneshot::Sender<()> {
    let (watched, over) = oneshot::channel();
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(stop_on_signal(stopper, over)),
            Err(error) => {
                warn!(%error, "signals cannot be watched: SIGTERM will not end the job gently")
            }
        }
    };
    if let Err(error) = env.spawn.spawn("of-signals", Box::new(body)) {
        warn!(%error, "signals cannot be watched: SIGTERM will not end the job gently");
    }
    watched
}

async fn stop_on_signal(stopper: Stopper, over: oneshot::Receiver<()>) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        warn!("signals cannot be watched: SIGTERM will not end the job gently");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: finishing the cycle"),
        _ = interrupt.recv() => info!("SIGINT: finishing the cycle"),
        // Where nobody waits for the job any more, it still runs and is to be stopped.
        Ok(()) = over => return,
    }
    stopper.stop();
}
