//! `Side`: one of the two brokers, asked step by step; it gives each answer as text in which only what a client can
//! rely on is left.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceflow::client::ErrorCode;
use onceflow::internals::protocol::wire::messages::find_coordinator::FindCoordinatorRequest;
use onceflow::internals::protocol::wire::messages::{
    create_topics as ct, describe_transactions as dt, metadata as md,
};
use onceflow::internals::protocol::wire::{Request, decode_response};
use onceflow::types::TopicId;

use super::steps::{GROUPS, IDEMPOTENT, PARTITIONS, PRODUCERS, Round};
use crate::support::raw::{frame, read_frame, write_frame};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time to ask again after a "later".
const AGAIN_MAX: Duration = Duration::from_millis(300);
/// Answers of a coordinator that begins to serve: asked again for as long as an answer may take.
const NOT_YET: [ErrorCode; 3] = [
    ErrorCode::CoordinatorLoadInProgress,
    ErrorCode::CoordinatorNotAvailable,
    ErrorCode::NotCoordinator,
];
/// Answers that say that the same request may succeed in a moment, or never.
const LATER: [ErrorCode; 2] = [
    ErrorCode::ConcurrentTransactions,
    ErrorCode::NotEnoughReplicas,
];

/// A producer as its broker knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
    /// By partition, the sequence that follows, and the one before that.
    pub(super) sequences: BTreeMap<i32, (i32, i32)>,
}

/// A broker and what it answered so far in this round.
pub(super) struct Side {
    address: String,
    stream: Option<TcpStream>,
    /// The ending of all names of the round.
    pub(super) suffix: String,
    /// The run's time.
    pub(super) base_time: i64,
    pub(super) topic_id: TopicId,
    /// The leader epoch of the topic's partitions.
    pub(super) leader_epoch: i32,
    has_topic: bool,
    pub(super) producers: BTreeMap<u8, Identity>,
    /// Ids of producers, by their slots: earlier ones too.
    pub(super) ids: BTreeMap<i64, u8>,
}

impl Side {
    pub(super) fn new(address: &str, base_time: i64) -> Self {
        Self {
            address: address.to_owned(),
            stream: None,
            suffix: String::new(),
            base_time,
            topic_id: TopicId::default(),
            leader_epoch: 0,
            has_topic: false,
            producers: BTreeMap::new(),
            ids: BTreeMap::new(),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn topic(&self) -> String {
        format!("topic{}", self.suffix)
    }

    pub(super) fn group(&self, number: u8) -> String {
        format!("group-{number}{}", self.suffix)
    }

    pub(super) fn transactional_id(&self, slot: u8) -> String {
        format!("id-{slot}{}", self.suffix)
    }

    /// Begins a round: new names, and the topic.
    pub(super) fn begin(&mut self, round: &Round, suffix: &str) -> String {
        suffix.clone_into(&mut self.suffix);
        self.producers.clear();
        self.ids.clear();
        let topic = ct::CreatableTopic {
            name: self.topic(),
            num_partitions: PARTITIONS,
            replication_factor: 1,
            configs: settings(&round.settings),
            ..ct::CreatableTopic::default()
        };
        let request = ct::CreateTopicsRequest {
            topics: vec![topic],
            ..ct::CreateTopicsRequest::default()
        };
        let answer = self.ask(6, &request);
        let code = answer.map_or(0, |answer| answer.topics[0].error_code);
        self.has_topic = code == 0;
        if self.has_topic {
            self.until_led(PARTITIONS);
            self.until_served(PARTITIONS);
            self.until_coordinated();
        }
        format!("created with {:?}: {}\n", round.settings, name(code))
    }

    /// Whether the round's topic could be created.
    pub(super) fn has_topic(&self) -> bool {
        self.has_topic
    }

    /// Waits until the topic's partitions have leaders.
    pub(super) fn until_led(&mut self, partitions: i32) {
        let topic = md::MetadataRequestTopic {
            name: Some(self.topic()),
            ..md::MetadataRequestTopic::default()
        };
        let request = md::MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..md::MetadataRequest::default()
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(12, &request).expect("metadata is answered");
            let topic = &answer.topics[0];
            let is_led =
                |it: &md::MetadataResponsePartition| it.error_code == 0 && it.leader_id >= 0;
            let all = i32::try_from(topic.partitions.len()) == Ok(partitions);
            if all && topic.partitions.iter().all(is_led) {
                self.topic_id = topic.topic_id;
                self.leader_epoch = topic.partitions[0].leader_epoch;
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the topic has no leader: {answer:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the partitions answer: a broker is named as the leader before it knows that it is.
    pub(super) fn until_served(&mut self, partitions: i32) {
        let deadline = Instant::now() + PATIENCE;
        for partition in 0..partitions {
            let request = self.list_request(partition, 0, -2);
            let not_yet = [
                ErrorCode::NotLeaderOrFollower,
                ErrorCode::UnknownTopicOrPartition,
            ];
            loop {
                let answer = self.ask(4, &request).expect("offsets are listed");
                let code = ErrorCode::from_code(answer.topics[0].partitions[0].error_code);
                if !code.is_some_and(|code| not_yet.contains(&code)) {
                    break;
                }
                assert!(
                    Instant::now() < deadline,
                    "partition {partition} is not served: {answer:?}"
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Waits until a deleted topic is known no more.
    pub(super) fn until_gone(&mut self, name: &str) {
        let topic = md::MetadataRequestTopic {
            name: Some(name.to_owned()),
            ..md::MetadataRequestTopic::default()
        };
        let request = md::MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..md::MetadataRequest::default()
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(12, &request).expect("metadata is answered");
            let unknown = ErrorCode::UnknownTopicOrPartition.code();
            if answer.topics[0].error_code == unknown {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{name} is still there: {answer:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the round's groups and transactional ids have a coordinator that serves.
    fn until_coordinated(&mut self) {
        let groups: Vec<String> = (0..GROUPS).map(|number| self.group(number)).collect();
        let slots = IDEMPOTENT..PRODUCERS;
        let ids: Vec<String> = slots.map(|slot| self.transactional_id(slot)).collect();
        let deadline = Instant::now() + PATIENCE;
        for (key_type, coordinator_keys) in [(0, groups), (1, ids)] {
            let request = FindCoordinatorRequest {
                key_type,
                coordinator_keys,
                ..FindCoordinatorRequest::default()
            };
            loop {
                let answer = self.ask(4, &request).expect("coordinators are named");
                if answer.coordinators.iter().all(|it| it.error_code == 0) {
                    break;
                }
                assert!(Instant::now() < deadline, "no coordinator: {answer:?}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Waits until no transaction of the round is about to end, since markers are written behind the answer; `false` if one
    /// does not.
    pub(super) fn until_ended(&mut self) -> bool {
        let ids = (IDEMPOTENT..PRODUCERS).map(|slot| self.transactional_id(slot));
        let request = dt::DescribeTransactionsRequest {
            transactional_ids: ids.collect(),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(0, &request).expect("descriptions are answered");
            let is_ending = |it: &dt::TransactionState| it.transaction_state.starts_with("Prepare");
            if !answer.transaction_states.iter().any(is_ending) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks on the side's connection; `None` if it was closed instead of an answer.
    pub(super) fn ask<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        let answer = self.exchange(&frame(version, request)).ok()?;
        let (_, answer) = decode_response::<R>(version, Bytes::from(answer)).unwrap();
        Some(answer)
    }

    /// Asks until `code` of the answer is none that says "later".
    pub(super) fn ask_until<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> Option<R::Response> {
        let begin = Instant::now();
        loop {
            let answer = self.ask(version, request)?;
            let patience = match ErrorCode::from_code(code(&answer)) {
                Some(error) if NOT_YET.contains(&error) => PATIENCE,
                Some(error) if LATER.contains(&error) => AGAIN_MAX,
                _ => return Some(answer),
            };
            if begin.elapsed() > patience {
                return Some(answer);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn exchange(&mut self, frame: &[u8]) -> io::Result<Vec<u8>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        let answer = write_frame(stream, frame).and_then(|()| read_frame(stream));
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    /// A producer's name: its slot, not the id that its broker gave it.
    pub(super) fn producer_name(&self, id: i64) -> String {
        match self.ids.get(&id) {
            Some(slot) => format!("P{slot}"),
            None if id < 0 => "nobody".to_owned(),
            None => "a stranger".to_owned(),
        }
    }

    /// A time, counted from the run's; what is of the last minutes is "now".
    pub(super) fn time(&self, time: i64) -> String {
        let now = super::now();
        match time {
            -1 => "none".to_owned(),
            _ if (self.base_time + NOW_AFTER..=now + 1000).contains(&time) => "now".to_owned(),
            _ => format!("{:+}", time - self.base_time),
        }
    }
}

/// The run's time lies so many milliseconds before its beginning, so that times of records and of brokers differ.
pub(super) const NOW_AFTER: i64 = 600_000;

/// The settings of a new topic.
pub(super) fn settings(of: &[(&'static str, String)]) -> Vec<ct::CreatableTopicConfig> {
    let setting = |(name, value): &(&'static str, String)| ct::CreatableTopicConfig {
        name: (*name).to_owned(),
        value: Some(value.clone()),
    };
    of.iter().map(setting).collect()
}

/// The name of an error; `ok` for none.
pub(super) fn name(code: i16) -> String {
    match ErrorCode::from_code(code) {
        Some(error) => format!("{error:?}"),
        None if code == 0 => "ok".to_owned(),
        None => format!("error {code}"),
    }
}

/// Puts lines together.
pub(super) fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").unwrap();
}
