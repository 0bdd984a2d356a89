//! The broker on TCP, for any Kafka client: connections, TLS, logins, limits.
//!
//! Guarantees: one slow, silent or hostile client costs the others nothing but its bounded share (I10); nobody does what
//! the access rules do not allow; what other machines can reach is encrypted and asks who they are, unless told otherwise.
//! Knows nothing of jobs. What a request means is `dispatch.rs` and `handlers/`; everything before that is here.
//!
//! Reading order: `config.rs`, `settings.rs`, this file (start and stop), `connection.rs`, `requests.rs`, `login.rs`, `session.rs`,
//! `budget.rs`, `peers.rs`, `security/`, then `dispatch.rs`.

mod budget;
mod config;
mod connection;
mod dispatch;
mod error;
mod handler;
mod handlers;
mod login;
mod peers;
mod requests;
pub mod security;
mod session;
pub mod settings;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

pub use crate::net::{ClientAuth, Pem, ServerTlsSettings};
pub use crate::protocol::sasl::Mechanism;
pub use config::{Limits, ServerConfig};
pub use error::ServerError;

use self::budget::Budget;
use self::connection::Shared;
use self::dispatch::Dispatch;
use self::handler::Handler;
use self::peers::Peers;
use self::security::Security;
use crate::broker::Broker;
use crate::env::Env;
use crate::net::{Address, Listener, OwnRuntime, ServerTls, raise_open_files_limit};

/// After a failed accept (too many open files, say) the next try waits so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Interval of looks for changes of users and rules by other processes.
const SECURITY_REFRESH: Duration = Duration::from_secs(1);

/// A running server. Dropping it cuts all connections; [`Server::stop`] lets them finish first.
pub struct Server {
    /// Its drop ends what serves.
    _runtime: OwnRuntime,
    stop: watch::Sender<bool>,
    is_over: watch::Receiver<bool>,
    local: SocketAddr,
    security: Security,
}

impl Server {
    /// Serves `broker`, whose data directory is `data_dir`, to whoever connects. The listener stands when this returns.
    ///
    /// # Errors
    /// If the settings would open the log to the world or do not fit each other, if a certificate or the file of users
    /// cannot be read, or if the address cannot be listened on.
    pub fn start(
        env: &Env,
        broker: &Broker,
        data_dir: &Path,
        config: ServerConfig,
    ) -> Result<Self, ServerError> {
        config.check()?;
        let dispatch = Dispatch::new(env.clone(), broker.clone(), &config);
        let handler: Arc<dyn Handler> = Arc::new(dispatch);
        Self::start_with(env, data_dir, config, handler)
    }

    fn start_with(
        env: &Env,
        data_dir: &Path,
        config: ServerConfig,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, ServerError> {
        let tls = match &config.tls {
            Some(settings) => Some(ServerTls::new(env, settings)?),
            None => None,
        };
        let super_users = config.super_users.clone();
        let security = Security::open(env, data_dir, config.are_acls_enforced, super_users)?;
        raise_open_files_limit();
        // The network's own threads: tokio's, since nothing that decides runs on them unasked (design D8, D12).
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(env.spawn.parallelism())
            .thread_name("of-server")
            .enable_all()
            .build()
            .map_err(ServerError::Threads)?;
        let runtime = OwnRuntime::from(runtime);
        let (stop, stopping) = watch::channel(false);
        let (over, is_over) = watch::channel(false);
        let listener = {
            let _context = runtime.enter();
            Listener::bind(&config.listen)?
        };
        let local = listener.local()?;
        let shared = Arc::new(Shared {
            env: env.clone(),
            tls,
            security: security.clone(),
            handler,
            budget: Budget::new(&config.limits),
            peers: Peers::new(&config.limits),
            hashing: Arc::new(Semaphore::new(1)),
            last_id: AtomicU64::new(0),
            stop: stopping.clone(),
            config,
        });
        runtime.spawn(refresh(security.clone(), stopping));
        runtime.spawn(async move {
            accept(listener, shared).await;
            over.send_replace(true);
        });
        tracing::info!(%local, "listening");
        Ok(Self {
            _runtime: runtime,
            stop,
            is_over,
            local,
            security,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::from(self.local)
    }

    /// Its users and access rules.
    #[must_use]
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Accepts nobody more, lets every connection finish what it is at, and ends. Takes as long as
    /// [`Limits::stop_timeout`] allows.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // An error means that the task is gone, which is what is waited for.
        let _gone = self.is_over.wait_for(|is_over| *is_over).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.local)
    }
}

/// Accepts connections until the server stops, then waits for those that there are.
async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut stop = shared.stop.clone();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok(incoming) => match shared.peers.admit(incoming.peer().ip()) {
                    Some(place) => {
                        connections.spawn(connection::serve(Arc::clone(&shared), incoming, place));
                    }
                    None => tracing::debug!(peer = %incoming.peer(), "turned away: too many connections"),
                },
                Err(error) => {
                    crate::env::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(shared.config.limits.stop_timeout, finish)
        .await
        .is_err()
    {
        crate::env::warn!(
            count = connections.len(),
            "cut the connections that did not finish"
        );
    }
    connections.shutdown().await;
}

/// Waits until the server stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _gone = stop.wait_for(|stop| *stop).await;
}

/// A panic ends its connection and no other.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        crate::env::error!(%error, "a request's handler panicked; its connection was cut");
    }
}

/// Looks every second whether another process has changed users or rules.
async fn refresh(security: Security, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = sleep(SECURITY_REFRESH) => {}
        }
        let security = security.clone();
        let refreshed = tokio::task::spawn_blocking(move || security.refresh()).await;
        if let Ok(Err(error)) = refreshed {
            crate::env::error!(%error, "users and rules stay as they were");
        }
    }
}
