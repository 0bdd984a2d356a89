//! Produce: one attempt a call. Batches of one partition leave in the order of the calls, those of several partitions
//! of one broker together (`outbox.rs`); whoever calls sends again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::channel::{Channel, Pending};
use super::cluster::{Cluster, grant_pause, unsendable};
use super::judge::{error_of, refused};
use super::metadata::{Leader, NodeId};
use super::outbox::{Outbox, Waiting};
use super::slots;
use super::transactions::Joined;
use super::turns::Turn;
use crate::client::ClientError;
use crate::protocol::batch::Header;
use crate::protocol::messages::{Acks, ProduceRequest, ProduceResponse};
use crate::protocol::wire::messages::produce as wire;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Offset, Sequence, Timestamp, TopicName, TopicPartition};

/// Answer of the broker on one batch; `None` with `acks=0`.
type Said = Result<Option<wire::PartitionProduceResponse>, ClientError>;
type Batch = Waiting<oneshot::Sender<Said>>;

/// The batches for one broker, and the way to have them looked at.
struct Queue {
    outbox: Mutex<Outbox<oneshot::Sender<Said>>>,
    news: Notify,
}

/// The queues of all brokers. Bounded by what hands batches over: producers' memory and writers' bytes in flight (I10).
#[derive(Default)]
pub(super) struct Queues {
    queues: Mutex<HashMap<NodeId, Arc<Queue>>>,
}

/// A request that left.
struct Sent {
    channel: Arc<Channel>,
    /// `None` with `acks=0`.
    pending: Option<Pending>,
}

impl Cluster {
    /// Sends the batch when its turn has come, and waits for the answer.
    pub(super) async fn produce(
        self: Arc<Self>,
        request: ProduceRequest,
        mut turn: Turn<TopicPartition>,
        joined: &Joined,
    ) -> Result<ProduceResponse, ClientError> {
        turn.wait().await;
        let header = header(&request)?;
        if self.is_older_protocol()
            && let Some(id) = &request.transactional_id
        {
            let producer = header.producer;
            self.join(joined, id, producer, &request.partition).await?;
        }
        let begins = self.begins(&request, &header)?;
        let place = request.partition.clone();
        let leader = self.leader(&place).await?;
        let answer = self.enqueue(leader.node, request);
        // The batch has its place in the outbox: the next one may follow, unless this one is to be the first.
        let turn = begins.then_some(turn);
        let said = answer.await.unwrap_or_else(|_| Err(super::closed()));
        let said = said.inspect_err(|_| self.deny(&place, leader, None))?;
        let Some(said) = said else {
            return Ok(unknown_place());
        };
        let written = self.take_answer(&place, leader, said)?;
        if turn.is_some() {
            let mut begun = self.begun.lock();
            begun.insert((place, header.producer.id), header.producer.epoch);
        }
        Ok(written)
    }

    /// Whether the batch is the first of its producer in the partition, and is to be written before any other leaves.
    /// A log that does not know a producer takes its word for where its sequence stands, except with transactions v2:
    /// were the second batch to arrive first, the first one would be out of order for ever.
    fn begins(&self, request: &ProduceRequest, header: &Header) -> Result<bool, ClientError> {
        let is_checked = request.transactional_id.is_some() && !self.is_older_protocol();
        if is_checked || !header.has_producer() || request.acks == Acks::None {
            return Ok(false);
        }
        let begun = self.begun.lock();
        let key = (request.partition.clone(), header.producer.id);
        let is_begun = begun.get(&key) == Some(&header.producer.epoch);
        match (is_begun, header.base_sequence == Sequence::ZERO) {
            (true, _) => Ok(false),
            (false, true) => Ok(true),
            (false, false) => {
                let words = "not sent: the producer's first batch is not written yet".to_owned();
                let code = ErrorCode::NotLeaderOrFollower;
                let place = request.partition.to_string();
                Err(refused("Produce", code, &place, Some(words)))
            }
        }
    }

    fn enqueue(self: &Arc<Self>, node: NodeId, request: ProduceRequest) -> oneshot::Receiver<Said> {
        let (answer, said) = oneshot::channel();
        let queue = self.queue(node);
        queue.outbox.lock().push(Waiting { request, answer });
        queue.news.notify_one();
        said
    }

    /// The broker's queue, and the task that empties it, which ends with the transport's thread.
    fn queue(self: &Arc<Self>, node: NodeId) -> Arc<Queue> {
        let mut queues = self.produce_queues.queues.lock();
        let queue = queues.entry(node).or_insert_with(|| {
            let queue = Arc::new(Queue {
                outbox: Mutex::new(Outbox::new()),
                news: Notify::new(),
            });
            tokio::spawn(Arc::clone(self).send_batches(node, Arc::clone(&queue)));
            queue
        });
        Arc::clone(queue)
    }

    async fn send_batches(self: Arc<Self>, node: NodeId, queue: Arc<Queue>) {
        loop {
            queue.news.notified().await;
            // Everybody who has a batch by now adds it first: one request instead of several.
            tokio::task::yield_now().await;
            loop {
                let batches = queue.outbox.lock().next_request();
                if batches.is_empty() {
                    break;
                }
                self.send_request(node, &queue, batches).await;
            }
        }
    }

    /// Sends one request; its answer is awaited by a task of its own.
    async fn send_request(self: &Arc<Self>, node: NodeId, queue: &Arc<Queue>, batches: Vec<Batch>) {
        match self.send_produce(node, &batches).await {
            Ok(sent) => {
                let (cluster, queue) = (Arc::clone(self), Arc::clone(queue));
                tokio::spawn(async move {
                    cluster.take_produced(sent, batches).await;
                    queue.outbox.lock().request_is_over();
                    queue.news.notify_one();
                });
            }
            Err(error) => {
                let mut outbox = queue.outbox.lock();
                outbox.request_is_over();
                tell(batches, &error);
                if matches!(error, ClientError::Connect { .. }) {
                    // None of them left. Their callers hear it at once, and look for the leaders anew.
                    tell(outbox.drain(), &error);
                }
            }
        }
    }

    async fn send_produce(&self, node: NodeId, batches: &[Batch]) -> Result<Sent, ClientError> {
        let channel = self.channel(node, slots::Lane::Produce).await?;
        let version = self.version::<wire::ProduceRequest>(&channel)?;
        let first = batches.first().map(|batch| &batch.request);
        let id = first.and_then(|request| request.transactional_id.as_ref());
        if id.is_some() && !self.is_older_protocol() {
            super::transactions::check_protocol(channel.versions())?;
        }
        let acks = first.map_or(Acks::All, |request| request.acks);
        let timeout_ms = self.settings.request_timeout.as_millis();
        let message = wire::ProduceRequest {
            transactional_id: id.map(ToString::to_string),
            acks: match acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            timeout_ms: i32::try_from(timeout_ms).unwrap_or(i32::MAX),
            topic_data: topic_data(batches),
        };
        let unsendable = |e| unsendable::<wire::ProduceRequest>(&e);
        let pending = match acks {
            Acks::None => {
                let sent = channel.send_unanswered(version, &message);
                sent.map_err(unsendable)?;
                None
            }
            _ => Some(channel.send(version, &message).map_err(unsendable)?),
        };
        Ok(Sent { channel, pending })
    }

    /// Waits for the answer, and tells each batch its part of it.
    async fn take_produced(&self, sent: Sent, batches: Vec<Batch>) {
        let Some(pending) = sent.pending else {
            for batch in batches {
                // Nobody listens if the caller is gone.
                let _ = batch.answer.send(Ok(None));
            }
            return;
        };
        let limit = self.settings.request_timeout.saturating_add(BROKER_GRACE);
        let answer = sent.channel.receive::<wire::ProduceRequest>(pending, limit);
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return tell(batches, &error),
        };
        grant_pause(&sent.channel, answer.throttle_time_ms);
        let endpoints = answer.node_endpoints.into_iter();
        let endpoints = endpoints.map(|node| (node.node_id, node.host, node.port));
        self.metadata(|metadata| metadata.learn_endpoints(endpoints));
        let mut parts = HashMap::new();
        for topic in answer.responses {
            for part in topic.partition_responses {
                parts.insert((topic.name.clone(), part.index), part);
            }
        }
        for batch in batches {
            let place = &batch.request.partition;
            let part = parts.remove(&(place.topic.to_string(), place.partition));
            let said = part.map(Some).ok_or_else(|| ClientError::Unanswered {
                request: "Produce",
                why: format!("the answer does not speak of {place}"),
                kind: ErrorKind::Fatal,
            });
            let _ = batch.answer.send(said);
        }
    }

    fn take_answer(
        &self,
        place: &TopicPartition,
        leader: Leader,
        answer: wire::PartitionProduceResponse,
    ) -> Result<ProduceResponse, ClientError> {
        let Some(code) = error_of(answer.error_code) else {
            return Ok(ProduceResponse {
                base_offset: Offset(answer.base_offset),
                log_append_time: Timestamp(answer.log_append_time_ms),
                log_start_offset: Offset(answer.log_start_offset),
            });
        };
        let current = Leader {
            node: answer.current_leader.leader_id,
            epoch: answer.current_leader.leader_epoch,
        };
        if code.kind() == ErrorKind::Retriable {
            self.deny(place, leader, (current.node >= 0).then_some(current));
        }
        let words = answer.error_message.or_else(|| {
            let first = answer.record_errors.into_iter().next()?;
            first.batch_index_error_message
        });
        match code {
            // The broker gave up waiting for its replicas: the batch is in its own log, perhaps in theirs.
            ErrorCode::RequestTimedOut | ErrorCode::NotEnoughReplicasAfterAppend => {
                Err(ClientError::Unanswered {
                    request: "Produce",
                    why: format!("{place}: {code}"),
                    kind: ErrorKind::Retriable,
                })
            }
            // It says nothing of how far the broker came.
            ErrorCode::UnknownServerError => Err(ClientError::Unanswered {
                request: "Produce",
                why: format!("{place}: {code}"),
                kind: ErrorKind::Fatal,
            }),
            code => Err(refused("Produce", code, &place.to_string(), words)),
        }
    }

    pub(super) fn deny(&self, place: &TopicPartition, asked: Leader, current: Option<Leader>) {
        self.metadata(|metadata| metadata.deny(place, asked, current));
    }
}

/// The broker answers within the request's own timeout; its answer travels a little longer.
const BROKER_GRACE: Duration = Duration::from_secs(5);

/// The batches as the request names them, a topic once.
fn topic_data(batches: &[Batch]) -> Vec<wire::TopicProduceData> {
    let mut topics: BTreeMap<&TopicName, Vec<wire::PartitionProduceData>> = BTreeMap::new();
    for Waiting { request, .. } in batches {
        let partitions = topics.entry(&request.partition.topic).or_default();
        partitions.push(wire::PartitionProduceData {
            index: request.partition.partition,
            records: Some(request.records.bytes().clone()),
        });
    }
    let topics = topics.into_iter().map(|(topic, partition_data)| {
        let name = topic.to_string();
        wire::TopicProduceData {
            name,
            partition_data,
            ..wire::TopicProduceData::default()
        }
    });
    topics.collect()
}

fn tell(batches: Vec<Batch>, error: &ClientError) {
    for batch in batches {
        // Nobody listens if the caller is gone.
        let _ = batch.answer.send(Err(error.clone()));
    }
}

/// Who the batch says wrote it, and where it belongs.
fn header(request: &ProduceRequest) -> Result<Header, ClientError> {
    Header::parse(request.records.bytes()).map_err(|e| {
        refused(
            "Produce",
            ErrorCode::CorruptMessage,
            &request.partition.to_string(),
            Some(e.to_string()),
        )
    })
}

/// With `acks=0` nobody is told the offset.
fn unknown_place() -> ProduceResponse {
    ProduceResponse {
        base_offset: Offset(-1),
        log_append_time: Timestamp::NONE,
        log_start_offset: Offset(-1),
    }
}
