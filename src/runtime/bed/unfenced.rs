//! A log that fences nobody: each producer gets a transactional id of its own. Crash tests are tested with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::client::ClientError;
use crate::protocol::batch::Batches;
use crate::protocol::messages::ProduceRequest;
use crate::types::{ProducerId, ProducerIdentity, TransactionalId};

/// The ids that producers have instead of those that they asked for. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Unfenced {
    given: Arc<Mutex<Given>>,
}

#[derive(Default)]
struct Given {
    count: u64,
    by_producer: BTreeMap<ProducerId, TransactionalId>,
}

impl Unfenced {
    /// Another id for one that somebody may have.
    pub(super) fn another(&self, asked: &TransactionalId) -> TransactionalId {
        let mut given = self.given.lock();
        given.count += 1;
        let another = TransactionalId::new(&format!("{asked}-{}", given.count));
        another.unwrap_or_else(|_| asked.clone())
    }

    /// It is this producer's from now on.
    pub(super) fn give(
        &self,
        id: TransactionalId,
        answer: Result<ProducerIdentity, ClientError>,
    ) -> Result<ProducerIdentity, ClientError> {
        let producer = answer?;
        self.given.lock().by_producer.insert(producer.id, id);
        Ok(producer)
    }

    /// The id of a producer that asked for `asked`.
    pub(super) fn id_of(&self, producer: ProducerId, asked: TransactionalId) -> TransactionalId {
        let given = self.given.lock();
        given.by_producer.get(&producer).cloned().unwrap_or(asked)
    }

    /// The request under the id of its producer.
    pub(super) fn produce(&self, mut request: ProduceRequest) -> ProduceRequest {
        let mut batches = Batches::new(request.records.bytes().clone());
        let first = batches.next().and_then(Result::ok);
        if let Some((batch, asked)) = first.zip(request.transactional_id.take()) {
            request.transactional_id = Some(self.id_of(batch.header().producer.id, asked));
        }
        request
    }
}
