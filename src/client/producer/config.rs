//! `ProducerConfig`: a producer's settings, with Kafka's names and defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::ClientError;
use crate::client::settings::{Settings, config_error, settings};
use crate::protocol::batch::Compression;
use crate::protocol::messages::Acks;
use crate::types::TransactionalId;

/// More requests in flight than batches in the broker's dedup window would lose idempotence.
const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

settings! {
    /// A producer's settings. Fields have Kafka's defaults; every field has a setter of its name.
    ///
    /// ```
    /// use std::time::Duration;
    /// use onceflow::client::producer::ProducerConfig;
    ///
    /// let config = ProducerConfig::default().linger(Duration::from_millis(20)).batch_size_bytes(65_536usize);
    /// let same = ProducerConfig::from_map(&[("linger.ms", "20"), ("batch.size", "65536")])?;
    /// assert_eq!(config.linger, same.linger);
    /// # Ok::<(), onceflow::client::ClientError>(())
    /// ```
    pub struct ProducerConfig {
        /// When a batch counts as written: `None`, as soon as it was handed over (its offset stays
        /// unknown); `Leader`, in the page cache, which survives the process but not the machine;
        /// `All`, as durable as the log promises. Batches of a transaction become durable by its commit.
        acks: Acks = Acks::All, "acks";
        /// A batch is sent when it holds so many bytes. Larger records get a batch of their own.
        batch_size_bytes: usize = 16_384, "batch.size";
        /// A batch that is not full waits so long for more records.
        linger: Duration = Duration::from_millis(5), "linger.ms";
        /// All unacknowledged batches together take at most so many bytes; `send` waits for room.
        buffer_memory_bytes: usize = 33_554_432, "buffer.memory";
        /// Longest wait of `send` for room, of transactional calls for the coordinator.
        max_block: Duration = Duration::from_secs(60), "max.block.ms";
        /// A record not acknowledged so long after `send` failed. At least linger and request timeout together.
        delivery_timeout: Duration = Duration::from_secs(120), "delivery.timeout.ms";
        /// A request not answered for so long is sent again.
        request_timeout: Duration = Duration::from_secs(30), "request.timeout.ms";
        /// Batches of one partition that may be on their way at once. At most 5 with idempotence,
        /// which keeps their order through retries.
        max_in_flight: usize = 5, "max.in.flight.requests.per.connection";
        /// The largest record, with the header of a batch, in bytes. The topic's `max.message.bytes` limits it too.
        max_request_size_bytes: usize = 1_048_576, "max.request.size";
        /// A batch is sent again at most so often; `delivery_timeout` is the better bound.
        retries: u32 = u32::MAX, "retries";
        /// The pause before a batch is sent again.
        retry_backoff: Duration = Duration::from_millis(100), "retry.backoff.ms";
        /// Compression of batches.
        compression: Compression = Compression::None, "compression.type";
        /// The compressor's level; its default if none is given.
        compression_level: Option<i32> = None, "compression.level";
        /// Whether the broker recognises a batch that is sent again (I6). Required by transactions.
        enable_idempotence: bool = true, "enable.idempotence";
        /// The name under which transactions are made; whoever initialised it last, owns it.
        transactional_id: Option<TransactionalId> = None, "transactional.id";
        /// A transaction open for longer is aborted by the coordinator.
        transaction_timeout: Duration = Duration::from_secs(60), "transaction.timeout.ms";
        /// Age at which a topic's metadata is asked for again.
        metadata_max_age: Duration = Duration::from_secs(300), "metadata.max.age.ms";
    }
}

impl ProducerConfig {
    /// Defaults, changed by settings with Kafka's names and values.
    ///
    /// # Errors
    /// If a name is unknown or a value does not parse or fit.
    pub fn from_map<N: AsRef<str>, V: AsRef<str>>(
        settings: &[(N, V)],
    ) -> Result<Self, ClientError> {
        let map = settings
            .iter()
            .map(|(n, v)| (n.as_ref().to_owned(), v.as_ref().to_owned()));
        let mut config = Self::parse_map(&map.clone().collect::<BTreeMap<_, _>>())?;
        let names_idempotence = map.clone().any(|(name, _)| name == "enable.idempotence");
        if !names_idempotence {
            // As in Kafka: idempotence is the default only where the other settings allow it.
            config.enable_idempotence = config.allows_idempotence();
        }
        config.check()?;
        Ok(config)
    }

    fn allows_idempotence(&self) -> bool {
        self.acks == Acks::All && self.retries > 0 && self.max_in_flight <= IDEMPOTENT_IN_FLIGHT_MAX
    }

    /// Refuses settings that contradict each other.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        let least = self.linger.saturating_add(self.request_timeout);
        if self.delivery_timeout < least {
            let value = self.delivery_timeout.as_millis();
            let why = "it must be at least linger.ms + request.timeout.ms";
            return Err(config_error("delivery.timeout.ms", value, why));
        }
        if self.max_in_flight == 0 {
            let name = "max.in.flight.requests.per.connection";
            return Err(config_error(name, 0, "at least 1 is needed"));
        }
        if self.buffer_memory_bytes < self.batch_size_bytes {
            let why = "it must hold at least one batch of batch.size";
            return Err(config_error("buffer.memory", self.buffer_memory_bytes, why));
        }
        if self.enable_idempotence && !self.allows_idempotence() {
            let why =
                "idempotence needs acks=all, retries above 0, and at most 5 requests in flight";
            return Err(config_error("enable.idempotence", true, why));
        }
        if let (Some(id), false) = (&self.transactional_id, self.enable_idempotence) {
            let why = "transactions need enable.idempotence=true";
            return Err(config_error("transactional.id", id, why));
        }
        Ok(())
    }
}
