//! `Fake`: brokers on 127.0.0.1 that answer what a test tells them to, and remember what they were asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::{KafkaSettings, KafkaTransport};
use crate::env::{Env, Instant};
use crate::net::{Connection, Listener};
use crate::protocol::ErrorCode;
use crate::protocol::wire::messages::api_versions as versions;
use crate::protocol::wire::messages::find_coordinator as coordinators;
use crate::protocol::wire::messages::init_producer_id::{
    InitProducerIdRequest, InitProducerIdResponse,
};
use crate::protocol::wire::messages::metadata as wire;
use crate::protocol::wire::{
    ApiKey, Reader, Request, RequestHeader, decode_request, encode_response,
};
use crate::types::TopicId;

/// The largest request, in bytes.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// Brokers: 1 and 2 are in the metadata, 3 only where a test names it.
pub(super) const NODES: [i32; 3] = [1, 2, 3];
/// The partitions of the topic `t`.
pub(super) const PARTITIONS: i32 = 24;

/// A request that came.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) node: i32,
    pub(super) api: ApiKey,
    pub(super) at: Instant,
    header: RequestHeader,
    frame: Bytes,
}

/// Answer of a broker to a request.
pub(super) enum Heard {
    Answer(Vec<Bytes>),
    /// Answered once the test opens the gate.
    AnswerLater(Vec<Bytes>),
    /// Never answered.
    Nothing,
    /// The connection ends instead.
    HangUp,
}

impl Asked {
    pub(super) fn version(&self) -> i16 {
        self.header.version
    }

    pub(super) fn request<R: Request>(&self) -> R {
        let mut reader = Reader::new(self.frame.clone());
        RequestHeader::decode(&mut reader).unwrap();
        decode_request(reader, self.header.version).unwrap()
    }

    fn encoded<R: Request>(&self, response: &R::Response) -> Vec<Bytes> {
        let (version, id) = (self.header.version, self.header.correlation_id);
        encode_response::<R>(version, id, response).unwrap().chunks
    }

    pub(super) fn answer<R: Request>(&self, response: &R::Response) -> Heard {
        Heard::Answer(self.encoded::<R>(response))
    }

    pub(super) fn answer_later<R: Request>(&self, response: &R::Response) -> Heard {
        Heard::AnswerLater(self.encoded::<R>(response))
    }
}

/// Rule of a test: `None` for what brokers usually answer.
type Rule = dyn Fn(&Asked) -> Option<Heard> + Send + Sync;

/// Metadata that it tells.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) topic_id: TopicId,
    /// The leader of every partition of `t`, and its epoch.
    pub(super) leader: (i32, i32),
    /// Who coordinates everything.
    pub(super) coordinator: i32,
    /// Questions for `t` that are still answered as if there were none.
    pub(super) hidden_looks: u32,
}

struct Shared {
    env: Env,
    ports: BTreeMap<i32, u16>,
    asked: Mutex<Vec<Asked>>,
    known: Mutex<Known>,
    rule: Box<Rule>,
    gate: watch::Sender<bool>,
}

/// A cluster that does as a test says.
pub(super) struct Fake {
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    pub(super) fn new(rule: impl Fn(&Asked) -> Option<Heard> + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _context = runtime.enter();
        let listeners = NODES.map(|node| {
            let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
            (node, listener)
        });
        let ports = listeners
            .iter()
            .map(|(node, listener)| (*node, listener.local().unwrap().port()));
        let shared = Arc::new(Shared {
            env: Env::real(),
            ports: ports.collect(),
            asked: Mutex::default(),
            known: Mutex::new(Known {
                topic_id: TopicId(7),
                leader: (1, 5),
                coordinator: 1,
                hidden_looks: 0,
            }),
            rule: Box::new(rule),
            gate: watch::Sender::new(false),
        });
        for (node, listener) in listeners {
            runtime.spawn(accept(node, listener, Arc::clone(&shared)));
        }
        drop(_context);
        Self {
            shared,
            _runtime: runtime,
        }
    }

    pub(super) fn connect(&self, settings: &[(&str, &str)]) -> KafkaTransport {
        let bootstrap = format!("127.0.0.1:{}", self.port(1));
        let base = KafkaSettings::new(&bootstrap).unwrap();
        let settings = settings
            .iter()
            .fold(base, |all, (name, value)| all.with(name, value).unwrap());
        KafkaTransport::connect(Env::real(), settings).unwrap()
    }

    pub(super) fn port(&self, node: i32) -> u16 {
        self.shared.ports[&node]
    }

    /// Lists the requests of an API.
    pub(super) fn asked(&self, api: ApiKey) -> Vec<Asked> {
        let asked = self.shared.asked.lock();
        asked
            .iter()
            .filter(|asked| asked.api == api)
            .cloned()
            .collect()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.shared.known.lock());
    }

    /// Lets go of the answers that wait.
    pub(super) fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }

    pub(super) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let clock = &self.shared.env.clock;
        let deadline = clock.now().plus(Duration::from_secs(20));
        while !condition() {
            assert!(clock.now() < deadline, "timed out: {what}");
            clock.sleep(Duration::from_millis(1));
        }
    }
}

async fn accept(node: i32, listener: Listener, shared: Arc<Shared>) {
    while let Ok(incoming) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let established = incoming.establish(None, Duration::from_secs(10)).await;
            if let Ok(connection) = established {
                serve(node, connection, &shared).await;
            }
        });
    }
}

/// One request after the other, as Kafka does; answers that wait hold up none behind them.
async fn serve(node: i32, connection: Connection, shared: &Shared) {
    let (mut reader, mut writer) = connection.split(FRAME_BYTES_MAX);
    let mut later = Vec::new();
    let mut gate = shared.gate.subscribe();
    loop {
        tokio::select! {
            frame = reader.next() => {
                let Ok(Some(frame)) = frame else { return };
                let asked = asked(node, frame, shared);
                shared.asked.lock().push(asked.clone());
                let heard = (shared.rule)(&asked).or_else(|| usual(&asked, shared));
                match heard.unwrap_or(Heard::Nothing) {
                    Heard::Answer(chunks) => writer.write(&chunks).await.unwrap_or(()),
                    Heard::AnswerLater(chunks) => later.push(chunks),
                    Heard::Nothing => {}
                    Heard::HangUp => return,
                }
            }
            () = opened(&mut gate), if !later.is_empty() => {
                for chunks in later.drain(..) {
                    writer.write(&chunks).await.unwrap_or(());
                }
            }
        }
    }
}

async fn opened(gate: &mut watch::Receiver<bool>) {
    drop(gate.wait_for(|is_open| *is_open).await);
}

fn asked(node: i32, frame: Bytes, shared: &Shared) -> Asked {
    let header = RequestHeader::decode(&mut Reader::new(frame.clone())).unwrap();
    Asked {
        node,
        api: ApiKey::from_key(header.api_key).unwrap(),
        at: shared.env.clock.now(),
        header,
        frame,
    }
}

fn usual(asked: &Asked, shared: &Shared) -> Option<Heard> {
    match asked.api {
        ApiKey::ApiVersions => Some(asked.answer::<versions::ApiVersionsRequest>(&offered())),
        ApiKey::Metadata => Some(asked.answer::<wire::MetadataRequest>(&metadata(asked, shared))),
        ApiKey::FindCoordinator => {
            let key = asked.request::<coordinators::FindCoordinatorRequest>();
            let node_id = shared.known.lock().coordinator;
            Some(asked.answer::<coordinators::FindCoordinatorRequest>(
                &coordinators::FindCoordinatorResponse {
                    coordinators: vec![coordinators::Coordinator {
                        key: key.coordinator_keys[0].clone(),
                        node_id,
                        ..coordinators::Coordinator::default()
                    }],
                    ..coordinators::FindCoordinatorResponse::default()
                },
            ))
        }
        ApiKey::InitProducerId => {
            let identity = InitProducerIdResponse {
                producer_id: 7,
                ..InitProducerIdResponse::default()
            };
            Some(asked.answer::<InitProducerIdRequest>(&identity))
        }
        _ => None,
    }
}

fn offered() -> versions::ApiVersionsResponse {
    let apis = ApiKey::ALL.iter().map(|api| versions::ApiVersion {
        api_key: api.key(),
        min_version: *api.known().start(),
        max_version: *api.known().end(),
    });
    versions::ApiVersionsResponse {
        api_keys: apis.collect(),
        finalized_features: vec![versions::FinalizedFeatureKey {
            name: "transaction.version".to_owned(),
            max_version_level: 2,
            min_version_level: 2,
        }],
        ..versions::ApiVersionsResponse::default()
    }
}

fn metadata(asked: &Asked, shared: &Shared) -> wire::MetadataResponse {
    let known = shared.known.lock().clone();
    let request: wire::MetadataRequest = asked.request();
    let is_hidden = known.hidden_looks > 0 && request.topics.is_some_and(|it| !it.is_empty());
    if is_hidden {
        shared.known.lock().hidden_looks -= 1;
    }
    let error_code = match is_hidden {
        true => ErrorCode::UnknownTopicOrPartition.code(),
        false => 0,
    };
    let broker = |node: i32| wire::MetadataResponseBroker {
        node_id: node,
        host: "127.0.0.1".to_owned(),
        port: i32::from(shared.ports[&node]),
        rack: None,
    };
    let partition = |index| wire::MetadataResponsePartition {
        partition_index: index,
        leader_id: known.leader.0,
        leader_epoch: known.leader.1,
        ..wire::MetadataResponsePartition::default()
    };
    wire::MetadataResponse {
        brokers: vec![broker(1), broker(2)],
        controller_id: 1,
        topics: vec![wire::MetadataResponseTopic {
            error_code,
            name: Some("t".to_owned()),
            topic_id: known.topic_id,
            partitions: (0..PARTITIONS).map(partition).collect(),
            ..wire::MetadataResponseTopic::default()
        }],
        ..wire::MetadataResponse::default()
    }
}
