//! `Dispatch`: finds the handler of a request, and turns bytes into requests and responses into bytes.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::ServerConfig;
use super::handler::{Answer, Frame, Handler, Malformed};
use super::handlers::{
    FetchSessions, acls, api_versions, cluster, configs, consumer_groups, fetch, groups, log_dirs,
    metadata, offsets, positions, produce, topics, transactions, txn_markers, users,
};
use super::session::Session;
use crate::broker::Broker;
use crate::env::Env;
use crate::protocol::wire::{
    ApiKey, Reader, Request, RequestHeader, WireError, decode_request, encode_response, messages,
};

/// Answers the requests of all connections.
pub(super) struct Dispatch {
    pub(super) env: Env,
    pub(super) broker: Broker,
    pub(super) fetch_sessions: FetchSessions,
    /// Whether a topic that a client asks for is created.
    pub(super) creates_topics: bool,
    /// The partitions of a topic that is created without saying how many.
    pub(super) default_partitions: i32,
    /// The settings that clients may see: without keys.
    pub(super) config: ServerConfig,
    /// Kafka's name for the way in which clients connect.
    pub(super) protocol: &'static str,
}

impl Dispatch {
    pub(super) fn new(env: Env, broker: Broker, config: &ServerConfig) -> Self {
        Self {
            broker,
            fetch_sessions: FetchSessions::new(env.clone()),
            env,
            creates_topics: config.auto_create_topics,
            default_partitions: config.default_partitions,
            config: ServerConfig {
                tls: None,
                ..config.clone()
            },
            protocol: match (config.tls.is_some(), config.sasl.is_empty()) {
                (false, true) => "PLAINTEXT",
                (false, false) => "SASL_PLAINTEXT",
                (true, true) => "SSL",
                (true, false) => "SASL_SSL",
            },
        }
    }
}

/// A request being answered: what its handler needs besides the request itself.
pub(super) struct Call<'a> {
    pub(super) dispatch: &'a Dispatch,
    pub(super) session: &'a Session,
    pub(super) header: &'a RequestHeader,
}

impl Call<'_> {
    pub(super) fn broker(&self) -> &Broker {
        &self.dispatch.broker
    }

    pub(super) fn version(&self) -> i16 {
        self.header.version
    }

    fn decode<R: Request>(&self, body: Reader) -> Result<R, Malformed> {
        decode_request(body, self.version()).map_err(malformed)
    }

    fn encode<R: Request>(&self, response: &R::Response) -> Answer {
        let frame = encode_response::<R>(self.version(), self.header.correlation_id, response);
        Ok(Some(frame.map_err(malformed)?.chunks.into()))
    }
}

fn malformed(error: WireError) -> Malformed {
    Malformed(error.to_string())
}

impl Handler for Dispatch {
    fn handle(self: Arc<Self>, session: Arc<Session>, frame: Bytes) -> BoxFuture<'static, Answer> {
        async move { self.answer(&session, frame).await }.boxed()
    }

    fn forget(&self, session: &Session) {
        self.fetch_sessions.close(session.id());
    }
}

impl Dispatch {
    async fn answer(&self, session: &Session, frame: Bytes) -> Answer {
        let mut body = Reader::new(frame);
        let header = RequestHeader::decode(&mut body).map_err(malformed)?;
        let call = Call {
            dispatch: self,
            session,
            header: &header,
        };
        let Some(api) = ApiKey::from_key(header.api_key) else {
            let api_key = header.api_key;
            return Err(malformed(WireError::UnknownApi { api_key }));
        };
        let version = header.version;
        let is_offered = api.served().contains(&version);
        match (api, is_offered) {
            (_, true) => route(&call, api, body).await,
            (ApiKey::ApiVersions, false) => api_versions::unsupported(&call),
            (_, false) => Err(malformed(WireError::UnsupportedVersion { api, version })),
        }
    }
}

/// Decodes the body, calls the handler, encodes what it returns.
async fn route(call: &Call<'_>, api: ApiKey, body: Reader) -> Answer {
    macro_rules! now {
        ($request:ident, $handler:path) => {
            call.encode::<messages::$request>(&$handler(call, call.decode(body)?))
        };
    }
    macro_rules! later {
        ($request:ident, $handler:path) => {
            call.encode::<messages::$request>(&$handler(call, call.decode(body)?).await)
        };
    }
    match api {
        ApiKey::Produce => produce(call, body).await,
        ApiKey::Fetch => fetch(call, body).await,
        ApiKey::ListOffsets => now!(ListOffsetsRequest, offsets::list),
        ApiKey::Metadata => now!(MetadataRequest, metadata::metadata),
        ApiKey::OffsetCommit => later!(OffsetCommitRequest, positions::commit),
        ApiKey::OffsetFetch => now!(OffsetFetchRequest, positions::fetch),
        ApiKey::FindCoordinator => now!(FindCoordinatorRequest, cluster::find_coordinator),
        ApiKey::JoinGroup => later!(JoinGroupRequest, groups::join),
        ApiKey::Heartbeat => later!(HeartbeatRequest, groups::heartbeat),
        ApiKey::LeaveGroup => later!(LeaveGroupRequest, groups::leave),
        ApiKey::SyncGroup => later!(SyncGroupRequest, groups::sync),
        ApiKey::DescribeGroups => now!(DescribeGroupsRequest, groups::describe),
        ApiKey::ListGroups => now!(ListGroupsRequest, groups::list),
        ApiKey::ApiVersions => now!(ApiVersionsRequest, api_versions::api_versions),
        ApiKey::CreateTopics => now!(CreateTopicsRequest, topics::create),
        ApiKey::DeleteTopics => now!(DeleteTopicsRequest, topics::delete),
        ApiKey::DeleteRecords => now!(DeleteRecordsRequest, offsets::delete_records),
        ApiKey::InitProducerId => later!(InitProducerIdRequest, transactions::init_producer_id),
        ApiKey::OffsetForLeaderEpoch => now!(OffsetForLeaderEpochRequest, offsets::for_epoch),
        ApiKey::AddPartitionsToTxn => {
            later!(AddPartitionsToTxnRequest, transactions::add_partitions)
        }
        ApiKey::AddOffsetsToTxn => later!(AddOffsetsToTxnRequest, transactions::add_offsets),
        ApiKey::EndTxn => later!(EndTxnRequest, transactions::end),
        ApiKey::TxnOffsetCommit => later!(TxnOffsetCommitRequest, positions::txn_commit),
        ApiKey::DescribeConfigs => now!(DescribeConfigsRequest, configs::describe),
        ApiKey::DescribeLogDirs => now!(DescribeLogDirsRequest, log_dirs::describe),
        ApiKey::CreatePartitions => now!(CreatePartitionsRequest, topics::create_partitions),
        ApiKey::DeleteGroups => later!(DeleteGroupsRequest, groups::delete),
        ApiKey::AlterConfigs => now!(AlterConfigsRequest, configs::replace),
        ApiKey::WriteTxnMarkers => later!(WriteTxnMarkersRequest, txn_markers::write),
        ApiKey::IncrementalAlterConfigs => now!(IncrementalAlterConfigsRequest, configs::alter),
        ApiKey::OffsetDelete => later!(OffsetDeleteRequest, positions::delete),
        ApiKey::DescribeCluster => now!(DescribeClusterRequest, cluster::describe),
        ApiKey::DescribeProducers => now!(DescribeProducersRequest, transactions::producers),
        ApiKey::DescribeTransactions => now!(DescribeTransactionsRequest, transactions::describe),
        ApiKey::ListTransactions => now!(ListTransactionsRequest, transactions::list),
        ApiKey::ConsumerGroupHeartbeat => {
            later!(ConsumerGroupHeartbeatRequest, consumer_groups::heartbeat)
        }
        ApiKey::ConsumerGroupDescribe => {
            now!(ConsumerGroupDescribeRequest, consumer_groups::describe)
        }
        ApiKey::DescribeTopicPartitions => {
            now!(DescribeTopicPartitionsRequest, metadata::pages)
        }
        ApiKey::DescribeAcls => now!(DescribeAclsRequest, acls::describe),
        ApiKey::CreateAcls => now!(CreateAclsRequest, acls::create),
        ApiKey::DeleteAcls => now!(DeleteAclsRequest, acls::delete),
        ApiKey::DescribeUserScramCredentials => {
            now!(DescribeUserScramCredentialsRequest, users::describe)
        }
        ApiKey::AlterUserScramCredentials => {
            now!(AlterUserScramCredentialsRequest, users::alter)
        }
        // The connection answers the login itself.
        other => Err(Malformed(format!("{other} is not answered here"))),
    }
}

/// The records of a fetch may be read while the answer is sent.
async fn fetch(call: &Call<'_>, body: Reader) -> Answer {
    let (response, streams) = fetch::fetch(call, call.decode(body)?).await;
    let correlation_id = call.header.correlation_id;
    let frame =
        encode_response::<messages::FetchRequest>(call.version(), correlation_id, &response);
    Ok(Some(Frame::new(frame.map_err(malformed)?, streams)))
}

/// A produce request may want no answer.
async fn produce(call: &Call<'_>, body: Reader) -> Answer {
    match produce::produce(call, call.decode(body)?).await {
        Some(response) => call.encode::<messages::ProduceRequest>(&response),
        None => Ok(None),
    }
}
