//! Produce: one attempt a call. Batches of one partition leave in the order of the calls; whoever calls sends again.

use std::sync::Arc;
use std::time::Duration;

use super::channel::{Channel, Pending};
use super::cluster::{Cluster, grant_pause, unsendable};
use super::judge::{error_of, refused};
use super::metadata::Leader;
use super::slots::Lane;
use super::transactions::Joined;
use super::turns::Turn;
use crate::client::ClientError;
use crate::protocol::batch::Header;
use crate::protocol::messages::{Acks, ProduceRequest, ProduceResponse};
use crate::protocol::wire::messages::produce as wire;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Offset, Sequence, Timestamp, TopicPartition};

/// A batch that left, and what its answer is judged by.
struct Sent {
    channel: Arc<Channel>,
    leader: Leader,
    /// `None` with `acks=0`.
    pending: Option<Pending>,
}

impl Cluster {
    /// Sends the batch when its turn has come, and waits for the answer.
    pub(super) async fn produce(
        &self,
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
        let sent = self.send_batch(&request).await?;
        // The batch is on its way in order: the next one may follow, unless this one is to be the first.
        let turn = begins.then_some(turn);
        let Some(pending) = sent.pending else {
            return Ok(unknown_place());
        };
        let limit = self.settings.request_timeout.saturating_add(BROKER_GRACE);
        let answer = sent
            .channel
            .receive::<wire::ProduceRequest>(pending, limit)
            .await;
        let answer = answer.inspect_err(|_| self.deny(&request.partition, sent.leader, None))?;
        grant_pause(&sent.channel, answer.throttle_time_ms);
        let written = self.take_answer(&request.partition, sent.leader, answer)?;
        if turn.is_some() {
            self.begun.lock().insert(
                (request.partition, header.producer.id),
                header.producer.epoch,
            );
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
                Err(refused(
                    "Produce",
                    code,
                    &request.partition.to_string(),
                    Some(words),
                ))
            }
        }
    }

    async fn send_batch(&self, request: &ProduceRequest) -> Result<Sent, ClientError> {
        let leader = self.leader(&request.partition).await?;
        let channel = self.channel(leader.node, Lane::Produce).await?;
        let version = self.version::<wire::ProduceRequest>(&channel)?;
        if request.transactional_id.is_some() && !self.is_older_protocol() {
            super::transactions::check_protocol(channel.versions())?;
        }
        let timeout_ms = self.settings.request_timeout.as_millis();
        let message = wire::ProduceRequest {
            transactional_id: request.transactional_id.as_ref().map(ToString::to_string),
            acks: match request.acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            timeout_ms: i32::try_from(timeout_ms).unwrap_or(i32::MAX),
            topic_data: vec![wire::TopicProduceData {
                name: request.partition.topic.to_string(),
                partition_data: vec![wire::PartitionProduceData {
                    index: request.partition.partition,
                    records: Some(request.records.clone()),
                }],
                ..wire::TopicProduceData::default()
            }],
        };
        let unsendable = |e| unsendable::<wire::ProduceRequest>(&e);
        let pending = match request.acks {
            Acks::None => {
                channel
                    .send_unanswered(version, &message)
                    .map_err(unsendable)?;
                None
            }
            _ => Some(channel.send(version, &message).map_err(unsendable)?),
        };
        Ok(Sent {
            channel,
            leader,
            pending,
        })
    }

    fn take_answer(
        &self,
        place: &TopicPartition,
        leader: Leader,
        answer: wire::ProduceResponse,
    ) -> Result<ProduceResponse, ClientError> {
        let partitions = answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partition_responses);
        let Some(answer) = partitions.into_iter().find(|p| p.index == place.partition) else {
            return Err(ClientError::Unanswered {
                request: "Produce",
                why: format!("the answer does not speak of {place}"),
                kind: ErrorKind::Fatal,
            });
        };
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
            code => Err(refused("Produce", code, &place.to_string(), words)),
        }
    }

    pub(super) fn deny(&self, place: &TopicPartition, asked: Leader, current: Option<Leader>) {
        self.metadata(|metadata| metadata.deny(place, asked, current));
    }
}

/// The broker answers within the request's own timeout; its answer travels a little longer.
const BROKER_GRACE: Duration = Duration::from_secs(5);

/// Who the batch says wrote it, and where it belongs.
fn header(request: &ProduceRequest) -> Result<Header, ClientError> {
    Header::parse(&request.records).map_err(|e| {
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
