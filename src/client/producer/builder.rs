//! `ProducerBuilder`: everything about a producer that is code rather than a setting.

use std::sync::Arc;

use super::sender::Shared;
use super::serializer::{Serializer, default_serializer};
use super::{
    DefaultPartitioner, Inner, Partitioner, Producer, ProducerConfig, ProducerInterceptor,
};
use crate::client::{ClientError, Transport};
use crate::codec::{Codec, Datum};

/// Builds a [`Producer`].
pub struct ProducerBuilder<K: ?Sized + Datum, V: ?Sized + Datum> {
    transport: Arc<dyn Transport>,
    config: ProducerConfig,
    keys: Box<dyn Serializer<K>>,
    values: Box<dyn Serializer<V>>,
    partitioner: Option<Box<dyn Partitioner>>,
    interceptors: Vec<Box<dyn ProducerInterceptor<K, V>>>,
}

impl<K: ?Sized + Datum, V: ?Sized + Datum> ProducerBuilder<K, V> {
    pub(super) fn new(transport: Arc<dyn Transport>, config: ProducerConfig) -> Self {
        Self {
            transport,
            config,
            keys: default_serializer(),
            values: default_serializer(),
            partitioner: None,
            interceptors: Vec::new(),
        }
    }

    /// Encodes keys with `codec`.
    #[must_use]
    pub fn key_codec(mut self, codec: impl Codec<K>) -> Self {
        self.keys = Box::new(codec);
        self
    }

    /// Encodes values with `codec`.
    #[must_use]
    pub fn value_codec(mut self, codec: impl Codec<V>) -> Self {
        self.values = Box::new(codec);
        self
    }

    /// Chooses partitions with `partitioner`, which may be a closure.
    #[must_use]
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.partitioner = Some(Box::new(partitioner));
        self
    }

    /// Adds an interceptor, after those already there.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl ProducerInterceptor<K, V>) -> Self {
        self.interceptors.push(Box::new(interceptor));
        self
    }

    /// Starts the producer's thread.
    ///
    /// # Errors
    /// If the settings contradict each other, or no thread can be started.
    pub fn build(self) -> Result<Producer<K, V>, ClientError> {
        self.config.check()?;
        let random = self.transport.env().random.clone();
        let stick_bytes = self.config.batch_size_bytes.max(1);
        let shared = Shared::new(self.transport, self.config);
        let inner = Inner {
            shared: shared.clone(),
            keys: self.keys,
            values: self.values,
            partitioner: self
                .partitioner
                .unwrap_or_else(|| Box::new(DefaultPartitioner::new(random, stick_bytes))),
            interceptors: self.interceptors.into(),
            topics: Default::default(),
        };
        shared.start()?;
        Ok(Producer {
            inner: Arc::new(inner),
        })
    }
}
