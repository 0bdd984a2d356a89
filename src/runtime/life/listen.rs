//! `Log::listen`: other programs feed and read the embedded log of this process over TCP, as they would Kafka.

use std::path::Path;

use crate::runtime::Log;
use crate::server::{Server, ServerConfig, ServerError};

impl Log {
    /// Serves the embedded log on `address` (`127.0.0.1:9092`) to Kafka clients of this machine, while jobs run on it.
    ///
    /// The server lives until its value is dropped or [stopped](Server::stop). For other machines, TLS and users, see
    /// [`Log::listen_with`].
    ///
    /// # Errors
    /// If the address is not one, cannot be listened on, or could be reached from other machines; on a Kafka cluster.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> anyhow::Result<()> {
    /// # let folder = tempfile::tempdir()?;
    /// use onceflow::prelude::*;
    ///
    /// let log = Log::embedded(folder.path().join("data"))?;
    /// let server = log.listen("127.0.0.1:0")?;
    /// println!("kcat -b {} -L", server.address());
    /// server.stop().await;
    /// log.close()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn listen(&self, address: &str) -> Result<Server, ServerError> {
        self.listen_with(ServerConfig::on(address)?)
    }

    /// As [`Log::listen`], with settings of your own.
    ///
    /// # Errors
    /// As [`Log::listen`]; if a certificate or the file of users cannot be read.
    pub fn listen_with(&self, config: ServerConfig) -> Result<Server, ServerError> {
        let data_dir = self.state_dir().parent().unwrap_or(Path::new("."));
        match self.broker() {
            Some(broker) => Server::start(self.env(), broker, data_dir, config),
            None => Err(ServerError::Invalid {
                what: "a Kafka cluster is reached by its own brokers: only an embedded log listens"
                    .to_owned(),
            }),
        }
    }
}
