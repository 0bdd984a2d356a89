//! `Cluster`: finds who is responsible for a request, sends it there, and repeats it where that is safe.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::answers::Answer;
use super::backoff::Backoff;
use super::channel::Channel;
use super::epochs::Epochs;
use super::judge::{Next, Repeat, error_of, judge, refused};
use super::login::Login;
use super::metadata::{Leader, Lookup, Metadata, NodeId};
use super::produce::Queues;
use super::settings::{KafkaSettings, TransactionProtocol};
use super::slots::{Lane, Place, Slots};
use crate::client::ClientError;
use crate::env::{Env, Instant};
use crate::net::{Address, ClientTls, ClientTlsSettings};
use crate::protocol::wire::messages::find_coordinator::{
    FindCoordinatorRequest, FindCoordinatorResponse,
};
use crate::protocol::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse,
};
use crate::protocol::wire::{ApiKey, Request};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{ProducerEpoch, ProducerId, TopicName, TopicPartition};

/// Longest search for a topic that the cluster does not know: one that was just created is on its way.
const MISSING_TOPIC_PATIENCE: Duration = Duration::from_secs(5);

/// Kind of a coordinator, with Kafka's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum CoordinatorKind {
    Group = 0,
    Transaction = 1,
}

/// Who a request is for.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Any,
    Controller,
    Node(NodeId),
    Leader(TopicPartition),
    Coordinator(CoordinatorKind, String),
}

/// Plan of a request.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) lane: Lane,
    pub(super) repeat: Repeat,
    /// Longest wait of the broker itself before it answers.
    pub(super) broker_wait: Duration,
    /// Its subject, for messages.
    pub(super) about: String,
}

impl Plan {
    /// A request that may be repeated, on the control connection.
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            lane: Lane::Control,
            repeat: Repeat::Always,
            broker_wait: Duration::ZERO,
            about: String::new(),
        }
    }

    pub(super) fn about(mut self, what: impl std::fmt::Display) -> Self {
        self.about = what.to_string();
        self
    }

    pub(super) fn once(mut self) -> Self {
        self.repeat = Repeat::IfRefused;
        self
    }

    pub(super) fn parked(mut self, broker_wait: Duration) -> Self {
        (self.lane, self.broker_wait) = (Lane::Parked, broker_wait);
        self
    }
}

/// A cluster, and everything that is known of it.
pub(super) struct Cluster {
    pub(super) env: Env,
    pub(super) settings: KafkaSettings,
    tls: Option<ClientTls>,
    slots: Slots,
    metadata: Mutex<Metadata>,
    /// Held while metadata is asked for: those who want the same then find it.
    asking: tokio::sync::Mutex<()>,
    coordinators: Mutex<HashMap<(CoordinatorKind, String), NodeId>>,
    /// The epoch under which a producer's first batch was written to a partition.
    pub(super) begun: Mutex<HashMap<(TopicPartition, ProducerId), ProducerEpoch>>,
    pub(super) produce_queues: Queues,
    pub(super) epochs: Epochs,
}

impl Cluster {
    pub(super) fn new(env: Env, settings: KafkaSettings) -> Result<Self, ClientError> {
        settings.check()?;
        let tls = match settings.security_protocol.is_encrypted() {
            false => None,
            true => Some(tls(&env, &settings)?),
        };
        Ok(Self {
            env,
            settings,
            tls,
            slots: Slots::new(),
            metadata: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            coordinators: Mutex::default(),
            begun: Mutex::default(),
            produce_queues: Queues::default(),
            epochs: Epochs::default(),
        })
    }

    pub(super) fn now(&self) -> Instant {
        self.env.clock.now()
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.settings.retry_backoff, self.settings.retry_backoff_max)
    }

    /// Waits before the next attempt.
    pub(super) async fn pause(&self, backoff: &mut Backoff) {
        tokio::time::sleep(backoff.next(&*self.env.random)).await;
    }

    /// Whether the older transaction protocol is spoken.
    pub(super) fn is_older_protocol(&self) -> bool {
        self.settings.transaction_protocol == TransactionProtocol::V1
    }

    pub(super) fn metadata<T>(&self, look: impl FnOnce(&mut Metadata) -> T) -> T {
        look(&mut self.metadata.lock())
    }

    /// Carries a request out, repeating it within `default.api.timeout.ms` where that is safe.
    pub(super) async fn call<R: Request>(
        &self,
        plan: &Plan,
        request: &R,
    ) -> Result<R::Response, ClientError>
    where
        R::Response: Answer,
    {
        self.call_noting(plan, request, |_| ()).await
    }

    /// As [`Cluster::call`]; `note` hears of each refusal.
    pub(super) async fn call_noting<R: Request>(
        &self,
        plan: &Plan,
        request: &R,
        mut note: impl FnMut(ErrorCode),
    ) -> Result<R::Response, ClientError>
    where
        R::Response: Answer,
    {
        let began = self.now();
        let mut backoff = self.backoff();
        loop {
            let error = match self.attempt(plan, request).await {
                Ok(answer) => match answer.fault() {
                    None => return Ok(answer),
                    Some((code, words)) => {
                        note(code);
                        refused(R::API.name(), code, &plan.about, words)
                    }
                },
                Err(error) => error,
            };
            let patience = match judge(&error, plan.repeat) {
                Next::GiveUp => return Err(error),
                Next::Again => self.settings.default_api_timeout,
                Next::AgainForAWhile => MISSING_TOPIC_PATIENCE,
            };
            if self.now().since(began) >= patience {
                return Err(error);
            }
            self.doubt(&plan.target, &error);
            self.pause(&mut backoff).await;
        }
    }

    /// One attempt, whatever is in the answer.
    pub(super) async fn attempt<R: Request>(
        &self,
        plan: &Plan,
        request: &R,
    ) -> Result<R::Response, ClientError>
    where
        R::Response: Answer,
    {
        let node = match &plan.target {
            Target::Any => None,
            Target::Controller => self.controller().await?,
            Target::Node(node) => Some(*node),
            Target::Leader(place) => Some(self.leader(place).await?.node),
            Target::Coordinator(kind, key) => Some(self.coordinator(*kind, key).await?),
        };
        let (channel, parked) = match (node, plan.lane) {
            (None, _) => (self.any_channel().await?, None),
            (Some(node), Lane::Parked) => (self.parked_channel(node).await?, Some(node)),
            (Some(node), lane) => (self.channel(node, lane).await?, None),
        };
        let answer = self.ask(&channel, plan.broker_wait, request).await;
        if let (Some(node), Ok(_)) = (parked, &answer) {
            self.slots.return_parked(node, channel);
        }
        answer
    }

    /// Asks on a connection, and grants the pause that the answer asks for.
    pub(super) async fn ask<R: Request>(
        &self,
        channel: &Channel,
        broker_wait: Duration,
        request: &R,
    ) -> Result<R::Response, ClientError>
    where
        R::Response: Answer,
    {
        let version = self.version::<R>(channel)?;
        let pending = channel
            .send(version, request)
            .map_err(|e| unsendable::<R>(&e))?;
        let limit = self.settings.request_timeout.saturating_add(broker_wait);
        let answer = channel.receive::<R>(pending, limit).await?;
        grant_pause(channel, answer.throttle_ms());
        Ok(answer)
    }

    pub(super) fn version<R: Request>(&self, channel: &Channel) -> Result<i16, ClientError> {
        match self.is_older_protocol() {
            true => channel.versions().choose_older(R::API),
            false => channel.versions().choose(R::API),
        }
    }

    /// Doubts what was believed: the next attempt asks again who is responsible.
    fn doubt(&self, target: &Target, error: &ClientError) {
        let is_moved = !matches!(
            error.code(),
            Some(
                ErrorCode::CoordinatorLoadInProgress
                    | ErrorCode::OffsetNotAvailable
                    | ErrorCode::ThrottlingQuotaExceeded
            )
        );
        if !is_moved {
            return;
        }
        match target {
            Target::Leader(place) => {
                let known = self.known_leader(place, None);
                if let Lookup::Known(leader) = known {
                    self.metadata(|metadata| metadata.deny(place, leader, None));
                }
            }
            Target::Coordinator(kind, key) => {
                self.coordinators.lock().remove(&(*kind, key.clone()));
            }
            Target::Controller | Target::Any | Target::Node(_) => {}
        }
    }

    /// A connection for a request that nobody else should wait for.
    async fn parked_channel(&self, node: NodeId) -> Result<Arc<Channel>, ClientError> {
        match self.slots.take_parked(node) {
            Some(channel) => Ok(channel),
            None => {
                let address = self.address(node)?;
                let channel = self.login(&address).run().await;
                channel.inspect_err(|_| self.is_unreachable(node))
            }
        }
    }

    /// The connection to a broker.
    pub(super) async fn channel(
        &self,
        node: NodeId,
        lane: Lane,
    ) -> Result<Arc<Channel>, ClientError> {
        let address = self.address(node)?;
        let login = self.login(&address);
        let channel = self.slots.channel(Place::Node(node), lane, login).await;
        channel.inspect_err(|_| self.is_unreachable(node))
    }

    /// Forgets what the broker led or coordinated: it may have moved by now.
    fn is_unreachable(&self, node: NodeId) {
        self.metadata(|metadata| metadata.deny_all_of(node));
        self.coordinators
            .lock()
            .retain(|_, coordinator| *coordinator != node);
    }

    fn login<'a>(&'a self, address: &'a Address) -> Login<'a> {
        Login {
            env: &self.env,
            settings: &self.settings,
            tls: self.tls.as_ref(),
            address,
        }
    }

    fn address(&self, node: NodeId) -> Result<Address, ClientError> {
        let address = self.metadata(|metadata| metadata.address(node).cloned());
        address.ok_or_else(|| ClientError::Connect {
            address: format!("broker {node}"),
            why: "the cluster does not list it any more".to_owned(),
            kind: ErrorKind::Retriable,
        })
    }

    /// A connection to any broker: one that is there, else to one that is known, else to one of those to begin with.
    pub(super) async fn any_channel(&self) -> Result<Arc<Channel>, ClientError> {
        let mut places: Vec<Place> = self.metadata(|m| m.nodes().map(Place::Node).collect());
        places.extend((0..self.settings.bootstrap_servers.len()).map(Place::Bootstrap));
        let turn = usize::try_from(self.env.random.below(places.len() as u64)).unwrap_or(0);
        places.rotate_left(turn);
        places.sort_by_key(|place| match place {
            _ if self.slots.is_connected(*place) => 0,
            Place::Node(_) => 1,
            Place::Bootstrap(_) => 2,
        });
        let mut last = None;
        for place in places {
            let channel = match place {
                Place::Node(node) => self.channel(node, Lane::Control).await,
                Place::Bootstrap(index) => {
                    let login = self.login(&self.settings.bootstrap_servers[index]);
                    self.slots.channel(place, Lane::Control, login).await
                }
            };
            match channel {
                Ok(channel) => return Ok(channel),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Connect {
            address: "the cluster".to_owned(),
            why: "no broker is known".to_owned(),
            kind: ErrorKind::Fatal,
        }))
    }

    async fn controller(&self) -> Result<Option<NodeId>, ClientError> {
        if self.metadata(|metadata| metadata.controller()).is_none() {
            self.ask_metadata(Some(Vec::new())).await?;
        }
        // A cluster may keep its controller to itself: then every broker passes the request on.
        Ok(self.metadata(|metadata| metadata.controller()))
    }

    fn known_leader(&self, place: &TopicPartition, since: Option<Instant>) -> Lookup {
        let (now, max_age) = (self.now(), self.settings.metadata_max_age);
        self.metadata(|metadata| metadata.leader(place, now, max_age, since))
    }

    /// Who leads the partition, as far as anybody knows now.
    pub(super) async fn leader(&self, place: &TopicPartition) -> Result<Leader, ClientError> {
        let since = self.now();
        if let Lookup::Known(leader) = self.known_leader(place, None) {
            return Ok(leader);
        }
        let _asking = self.asking.lock().await;
        if let Lookup::Known(leader) = self.known_leader(place, Some(since)) {
            return Ok(leader);
        }
        let since = self.now();
        self.ask_metadata(Some(vec![place.topic.clone()])).await?;
        match self.known_leader(place, Some(since)) {
            Lookup::Known(leader) => Ok(leader),
            Lookup::NoLeader => Err(refused(
                "Metadata",
                ErrorCode::LeaderNotAvailable,
                &place.to_string(),
                None,
            )),
            Lookup::Ask | Lookup::NoSuchPartition => {
                let code = ErrorCode::UnknownTopicOrPartition;
                Err(refused("Metadata", code, &place.to_string(), None))
            }
        }
    }

    /// Asks for the brokers and `topics` (`None`: all), and remembers the answer.
    pub(super) async fn ask_metadata(
        &self,
        topics: Option<Vec<TopicName>>,
    ) -> Result<MetadataResponse, ClientError> {
        let named = |topic: TopicName| MetadataRequestTopic {
            name: Some(topic.to_string()),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.into_iter().map(named).collect()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let channel = self.any_channel().await?;
        let answer = self.ask(&channel, Duration::ZERO, &request).await?;
        let now = self.now();
        self.metadata(|metadata| metadata.learn(&answer, now));
        let faults = answer.topics.iter().filter_map(|topic| {
            let code = error_of(topic.error_code)?;
            Some((code, topic.name.clone().unwrap_or_default()))
        });
        let mut denied = faults.filter(|(code, _)| code.kind() == ErrorKind::Fatal);
        match denied.next() {
            Some((code, topic)) => Err(refused("Metadata", code, &topic, None)),
            None => Ok(answer),
        }
    }

    /// Who coordinates the group or transactional id.
    async fn coordinator(&self, kind: CoordinatorKind, key: &str) -> Result<NodeId, ClientError> {
        let known = self
            .coordinators
            .lock()
            .get(&(kind, key.to_owned()))
            .copied();
        if let Some(node) = known {
            return Ok(node);
        }
        let channel = self.any_channel().await?;
        let version = self.version::<FindCoordinatorRequest>(&channel)?;
        let (keys, single) = match version {
            ..4 => (Vec::new(), key.to_owned()),
            4.. => (vec![key.to_owned()], String::new()),
        };
        let request = FindCoordinatorRequest {
            key: single,
            key_type: kind as i8,
            coordinator_keys: keys,
        };
        let answer = self.ask(&channel, Duration::ZERO, &request).await?;
        if let Some((code, words)) = answer.fault() {
            return Err(refused(ApiKey::FindCoordinator.name(), code, key, words));
        }
        let node = coordinator_of(answer);
        if self.metadata(|metadata| metadata.address(node).is_none()) {
            self.ask_metadata(Some(Vec::new())).await?;
        }
        self.coordinators
            .lock()
            .insert((kind, key.to_owned()), node);
        Ok(node)
    }
}

fn coordinator_of(answer: FindCoordinatorResponse) -> NodeId {
    let first = answer.coordinators.first();
    first.map_or(answer.node_id, |coordinator| coordinator.node_id)
}

fn tls(env: &Env, settings: &KafkaSettings) -> Result<ClientTls, ClientError> {
    let tls = ClientTlsSettings {
        ca: settings.ssl_ca.clone(),
        certificate: settings.ssl_certificate.clone(),
        key: settings.ssl_key.clone(),
        verify_hostname: settings.ssl_verify_hostname == super::settings::EndpointCheck::Https,
    };
    ClientTls::new(env, &tls).map_err(|e| ClientError::Connect {
        address: "the cluster".to_owned(),
        why: e.to_string(),
        kind: ErrorKind::Fatal,
    })
}

/// The broker asks for a pause: it gets one.
pub(super) fn grant_pause(channel: &Channel, throttle_ms: i32) {
    let pause = Duration::from_millis(u64::try_from(throttle_ms).unwrap_or(0));
    if !pause.is_zero() {
        channel.mute(pause);
    }
}

/// The broker speaks too old a version for what the request says.
pub(super) fn unsendable<R: Request>(error: &crate::protocol::wire::WireError) -> ClientError {
    ClientError::Refused {
        request: R::API.name(),
        code: ErrorCode::UnsupportedVersion,
        message: error.to_string(),
        kind: ErrorKind::Fatal,
    }
}
