//! The makers of chains: all that a worker knows of the job's graph.

use std::sync::Arc;

use super::context::OperatorContext;
use super::exchange::Receive;
use super::feed::Feed;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::operator::Stage;

/// Builds one worker's instance of a stage, on that worker's thread.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot end a stream",
    note = "what ends a stream comes with the crate: `topic`, `files`, and `at_least_once`, which calls a function of yours"
)]
pub trait StageFactory<K: ?Sized, V: ?Sized>: Send + Sync + 'static {
    /// Its stage.
    type Stage: Stage<K, V> + 'static;
    /// Builds it.
    fn build(&self, context: &mut OperatorContext) -> Result<Self::Stage, JobError>;
}

/// Builds one worker's receiving end of an exchange.
pub(crate) type ReceiveFactory =
    Arc<dyn Fn(&mut OperatorContext) -> Result<Box<dyn Receive>, JobError> + Send + Sync>;
/// Builds one worker's reader of a source.
pub(crate) type FeedFactory =
    Arc<dyn Fn(&mut OperatorContext) -> Result<Box<dyn Feed>, JobError> + Send + Sync>;

/// The chains of a job, from which each worker makes its own instances.
#[derive(Clone)]
pub(crate) struct Chains {
    /// Those behind the sources.
    pub(crate) sources: Vec<FeedFactory>,
    /// Those behind the exchanges.
    pub(crate) exchanges: Vec<ExchangeChain>,
}

/// The chain behind an exchange, fed from the inboxes of this process or from a topic.
#[derive(Clone)]
pub(crate) struct ExchangeChain {
    pub(crate) receive: ReceiveFactory,
    pub(crate) repartition: FeedFactory,
}
