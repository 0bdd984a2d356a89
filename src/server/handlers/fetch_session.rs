//! Fetch sessions (KIP-227): a client names its partitions once, and later only what changes; so does the broker. Pure.
//!
//! A session belongs to a connection and ends with it: a client that comes back is told that its session is unknown,
//! and begins another. So sessions are as many as connections at most, and their partitions are bounded in all.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::env::Env;
use crate::protocol::ErrorCode;
use crate::protocol::wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData,
};
use crate::types::TopicId;

/// The most partitions of all sessions together. Beyond, clients are given no session and name all partitions each time.
const PARTITIONS_MAX: usize = 100_000;
/// The epoch of a request that begins a session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request without a session.
const FINAL_EPOCH: i32 = -1;

/// A topic as a client names it: by its name up to version 12, by its id from 13 on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TopicKey {
    pub(super) name: String,
    pub(super) id: TopicId,
}

impl TopicKey {
    fn of(topic: &FetchTopic) -> Self {
        Self {
            name: topic.topic.clone(),
            id: topic.topic_id,
        }
    }
}

/// A partition of a session: what is asked of it, and what the client was told last.
#[derive(Debug, Clone)]
struct Known {
    asked: FetchPartition,
    high_watermark: i64,
    last_stable_offset: i64,
    log_start_offset: i64,
    /// When it was asked for or last gave records: those that wait longest are read first.
    turn: u64,
}

/// The partitions of one client.
#[derive(Debug, Default)]
pub(super) struct FetchSession {
    id: i32,
    epoch: i32,
    partitions: BTreeMap<(TopicKey, i32), Known>,
    turns_count: u64,
}

/// The sessions of all connections.
pub(in crate::server) struct FetchSessions {
    env: Env,
    sessions: Mutex<HashMap<u64, FetchSession>>,
}

/// Plan of one request, and what its session makes of it.
pub(super) struct Plan {
    /// The partitions, in order of preference.
    pub(super) partitions: Vec<(TopicKey, FetchPartition)>,
    session: Option<FetchSession>,
    /// Whether only changes are told.
    is_incremental: bool,
}

impl FetchSessions {
    pub(in crate::server) fn new(env: Env) -> Self {
        Self {
            env,
            sessions: Mutex::default(),
        }
    }

    /// The connection's session ends.
    pub(in crate::server) fn close(&self, connection: u64) {
        self.sessions.lock().remove(&connection);
    }

    /// Plans `request`. The session is taken out until [`FetchSessions::finish`]; a connection has one fetch at a time.
    ///
    /// # Errors
    /// `FetchSessionIdNotFound`, `InvalidFetchSessionEpoch`, `FetchSessionTopicIdError`.
    pub(super) fn begin(&self, connection: u64, request: &FetchRequest) -> Result<Plan, ErrorCode> {
        let mut sessions = self.sessions.lock();
        if matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            sessions.remove(&connection);
            let partitions = asked(request).collect::<Vec<_>>();
            let in_use: usize = sessions
                .values()
                .map(|session| session.partitions.len())
                .sum();
            let is_kept = request.session_epoch == INITIAL_EPOCH
                && in_use + partitions.len() <= PARTITIONS_MAX;
            drop(sessions);
            let session = is_kept.then(|| self.new_session(&partitions));
            return Ok(Plan {
                partitions,
                session,
                is_incremental: false,
            });
        }
        let known = sessions
            .get(&connection)
            .filter(|session| session.id == request.session_id);
        let session = known.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        let mut session = sessions.remove(&connection).unwrap_or_default();
        drop(sessions);
        session.update(request)?;
        Ok(Plan {
            partitions: session.in_turn(),
            session: Some(session),
            is_incremental: true,
        })
    }

    fn new_session(&self, partitions: &[(TopicKey, FetchPartition)]) -> FetchSession {
        // The low 31 bits, and never 0, which means no session.
        let random = self.env.random.next_u128() & 0x7fff_ffff;
        let mut session = FetchSession {
            id: i32::try_from(random).unwrap_or(1).max(1),
            ..FetchSession::default()
        };
        for (topic, partition) in partitions {
            session.insert(topic.clone(), partition.clone());
        }
        session
    }

    /// Takes the session back, and leaves out of the answer what the client knows already. Returns the session's id.
    pub(super) fn finish(
        &self,
        connection: u64,
        plan: Plan,
        answers: &mut Vec<(TopicKey, PartitionData)>,
    ) -> i32 {
        let Some(mut session) = plan.session else {
            return 0;
        };
        answers.retain(|(topic, data)| session.tell(topic, data) || !plan.is_incremental);
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        let id = session.id;
        self.sessions.lock().insert(connection, session);
        id
    }
}

fn asked(request: &FetchRequest) -> impl Iterator<Item = (TopicKey, FetchPartition)> + '_ {
    request.topics.iter().flat_map(|topic| {
        let key = TopicKey::of(topic);
        topic
            .partitions
            .iter()
            .map(move |partition| (key.clone(), partition.clone()))
    })
}

impl FetchSession {
    /// Takes in what the client changes.
    fn update(&mut self, request: &FetchRequest) -> Result<(), ErrorCode> {
        for topic in &request.forgotten_topics_data {
            for partition in &topic.partitions {
                let key = TopicKey {
                    name: topic.topic.clone(),
                    id: topic.topic_id,
                };
                self.partitions.remove(&(key, *partition));
            }
        }
        for (topic, partition) in asked(request) {
            let names_ids = topic.name.is_empty();
            let others = self.partitions.keys().next();
            if others.is_some_and(|(other, _)| other.name.is_empty() != names_ids) {
                return Err(ErrorCode::FetchSessionTopicIdError);
            }
            self.insert(topic, partition);
        }
        match self.partitions.len() {
            ..=PARTITIONS_MAX => Ok(()),
            _ => Err(ErrorCode::FetchSessionIdNotFound),
        }
    }

    fn insert(&mut self, topic: TopicKey, asked: FetchPartition) {
        let key = (topic, asked.partition);
        if let Some(known) = self.partitions.get_mut(&key) {
            known.asked = asked;
            return;
        }
        self.turns_count += 1;
        let known = Known {
            asked,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            turn: self.turns_count,
        };
        self.partitions.insert(key, known);
    }

    /// All partitions, those that have waited longest first.
    fn in_turn(&self) -> Vec<(TopicKey, FetchPartition)> {
        let mut partitions: Vec<_> = self.partitions.iter().collect();
        partitions.sort_unstable_by_key(|(_, known)| known.turn);
        partitions
            .into_iter()
            .map(|((topic, _), known)| (topic.clone(), known.asked.clone()))
            .collect()
    }

    /// Notes what the client is told of a partition; whether that is news.
    fn tell(&mut self, topic: &TopicKey, data: &PartitionData) -> bool {
        let key = (topic.clone(), data.partition_index);
        let Some(known) = self.partitions.get_mut(&key) else {
            return true;
        };
        let is_news = !data.records.is_empty()
            || data.error_code != 0
            || data.diverging_epoch.epoch >= 0
            || data.high_watermark != known.high_watermark
            || data.last_stable_offset != known.last_stable_offset
            || data.log_start_offset != known.log_start_offset;
        known.high_watermark = data.high_watermark;
        known.last_stable_offset = data.last_stable_offset;
        known.log_start_offset = data.log_start_offset;
        if !data.records.is_empty() {
            self.turns_count += 1;
            known.turn = self.turns_count;
        }
        if data.error_code != 0 {
            // Told again each time, until it is over.
            known.high_watermark = -1;
        }
        is_news
    }
}
