//! Letters over HTTP, and what changes something there: a replay of letters, the end of a transaction.
//!
//! ```text
//! GET  /letters                       the topics that have letters of the job
//! GET  /letters/TOPIC?limit=…         the newest letters of one
//! POST /letters/TOPIC/replay          {"all": true} or a choice: reason, source, partition, offset; time
//! POST /transactions/abort            {"transactional_id": …}; of a hanging one {"topic": …, "partition": …, "producer_id": …}
//! ```
//! Nothing is changed unless the server was [told so](super::http::HttpConfig::allow_changes), and then by who has the token. What is
//! done is done by the code behind `onceflow letters` and `onceflow txn`. One request at a time looks or acts: letters are read from the log.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming as Body;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::answers::{no_path, whole_body};
use super::failed::Failed;
use super::http::Shared;
use crate::client::records::bytes_json as bytes;
use crate::client::{Admin, ClientError};
use crate::protocol::ErrorKind;
use crate::runtime::contract::error::JobError;
use crate::runtime::life::letters::{
    Letter, LetterChoice, LetterKind, LetterState, LetterTime, Letters,
};
use crate::types::{NameError, ProducerId, Timestamp, TopicName, TopicPartition, TransactionalId};

/// The letters of an answer, where nobody says how many.
const LIMIT: usize = 50;
const LIMIT_MAX: usize = 200;
/// Longest wait for the log.
const WAIT: Duration = Duration::from_secs(60);

/// Action asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Topics,
    Newest { topic: String, limit: usize },
    Replay { topic: String },
    Abort,
}

impl Act {
    /// Whether something of this file is at a path.
    pub(super) fn is_at(path: &str) -> bool {
        let first = path.split('/').nth(1);
        matches!(first, Some("letters" | "transactions"))
    }

    fn of(method: &Method, path: &str, query: &str) -> Result<Self, Failed> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (method, &parts[..]) {
            (&Method::GET, ["letters"]) => Ok(Self::Topics),
            (&Method::GET, ["letters", topic]) => Ok(Self::Newest {
                topic: (*topic).to_owned(),
                limit: limit_of(query)?,
            }),
            (&Method::POST, ["letters", topic, "replay"]) => Ok(Self::Replay {
                topic: (*topic).to_owned(),
            }),
            (&Method::POST, ["transactions", "abort"]) => Ok(Self::Abort),
            _ => Err(no_path(path)),
        }
    }

    fn changes(&self) -> bool {
        matches!(self, Self::Replay { .. } | Self::Abort)
    }
}

fn limit_of(query: &str) -> Result<usize, Failed> {
    let mut limit = LIMIT;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = value.parse().ok();
        let number = number.filter(|number| (1..=LIMIT_MAX).contains(number));
        match (&*name, number) {
            ("limit", Some(number)) => limit = number,
            ("limit", None) => {
                let why = format!("limit={value} is not a number from 1 to {LIMIT_MAX}");
                return Err(Failed::bad(why));
            }
            _ => {
                let why = format!("there is no parameter {name:?}: there is limit");
                return Err(Failed::bad(why));
            }
        }
    }
    Ok(limit)
}

/// The choice of letters, as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Chosen {
    all: bool,
    reason: Option<String>,
    source: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    /// `own`, `now`, or milliseconds since 1970.
    time: Option<Value>,
}

impl Chosen {
    fn choice(&self) -> Result<LetterChoice, Failed> {
        let mut choice = LetterChoice::all();
        let mut is_chosen = self.all;
        if let Some(reason) = &self.reason {
            (choice, is_chosen) = (choice.reason(reason), true);
        }
        if let Some(source) = &self.source {
            (choice, is_chosen) = (choice.source(source), true);
        }
        if let Some(partition) = self.partition {
            (choice, is_chosen) = (choice.partition(partition), true);
        }
        if let Some(offset) = self.offset {
            (choice, is_chosen) = (choice.offsets(offset..=offset), true);
        }
        match is_chosen {
            true => Ok(choice),
            false => Err(Failed::bad(
                "no letters are chosen: give \"all\": true, or reason, source, partition, offset",
            )),
        }
    }

    fn time(&self, now: Timestamp) -> Result<LetterTime, Failed> {
        match &self.time {
            None => Ok(LetterTime::Own),
            Some(Value::String(word)) if word == "own" => Ok(LetterTime::Own),
            Some(Value::String(word)) if word == "now" => Ok(LetterTime::At(now)),
            Some(other) => match other.as_i64() {
                Some(millis) => Ok(LetterTime::At(Timestamp(millis))),
                None => Err(Failed::bad(format!(
                    "{other} is no time: give \"own\", \"now\", or milliseconds since 1970"
                ))),
            },
        }
    }
}

/// A transaction that is to end: one that a coordinator knows, or one that hangs in a partition.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Abort {
    Known {
        transactional_id: String,
    },
    Hanging {
        topic: String,
        partition: i32,
        producer_id: i64,
    },
}

impl Shared {
    /// Does what is asked for, if that is allowed.
    pub(super) async fn act(&self, request: Request<Body>) -> Result<Map<String, Value>, Failed> {
        let uri = request.uri();
        let act = Act::of(
            request.method(),
            uri.path(),
            uri.query().unwrap_or_default(),
        )?;
        if act.changes() && !self.may_change {
            return Err(Failed::new(
                StatusCode::FORBIDDEN,
                "nothing can be changed here: use `onceflow letters` and `onceflow txn`, or let the job's program serve with \
                 `HttpConfig::token` and `HttpConfig::allow_changes`",
            ));
        }
        let body = match act.changes() {
            true => whole_body(request.into_body()).await?,
            false => hyper::body::Bytes::new(),
        };
        timeout(WAIT, self.carry_out(act, &body)).await.unwrap_or_else(|_| {
            let why = "the log did not answer within 60 s; it may still do what was asked for: look again";
            Err(Failed::new(StatusCode::GATEWAY_TIMEOUT, why))
        })
    }

    async fn carry_out(&self, act: Act, body: &[u8]) -> Result<Map<String, Value>, Failed> {
        match act {
            Act::Topics => self.with_letters(|letters| topics(&letters)).await,
            Act::Newest { topic, limit } => {
                let job = self.queries()?.job().to_owned();
                let look = move |letters: Letters| newest(&letters, &job, &topic, limit);
                self.with_letters(look).await
            }
            Act::Replay { topic } => {
                let chosen: Chosen = parse(body)?;
                let choice = chosen.choice()?;
                let now = self.transport().env().clock.wall();
                let time = chosen.time(now)?;
                let replay = move |letters: Letters| {
                    let asked = letters.replay(&topic, &choice, time)?;
                    Ok(object(json!({
                        "asked": asked.count,
                        "asked_before": asked.asked_before,
                        "of_others": asked.of_others,
                    })))
                };
                self.with_letters(replay).await
            }
            Act::Abort => self.abort(parse(body)?).await,
        }
    }

    async fn abort(&self, wanted: Abort) -> Result<Map<String, Value>, Failed> {
        let admin = Admin::new(Arc::clone(self.transport()));
        let bad = |e: NameError| Failed::bad(e.to_string());
        let (aborted, told) = match wanted {
            Abort::Known { transactional_id } => {
                let id = TransactionalId::new(&transactional_id).map_err(bad)?;
                let aborted = admin.abort_transaction(&id).await;
                (aborted, json!({ "aborted": transactional_id }))
            }
            Abort::Hanging {
                topic,
                partition,
                producer_id,
            } => {
                let topic = TopicName::new(&topic).map_err(bad)?;
                let place = TopicPartition::new(topic, partition);
                let producer = ProducerId(producer_id);
                let aborted = admin.abort_hanging_transaction(&place, producer).await;
                let place = place.to_string();
                (
                    aborted,
                    json!({ "aborted": producer_id, "partition": place }),
                )
            }
        };
        aborted.map_err(|e| of_the_log(&e))?;
        Ok(object(told))
    }

    /// Has a thread that may wait look at the letters of the job.
    async fn with_letters<T: Send + 'static>(
        &self,
        look: impl FnOnce(Letters) -> Result<T, JobError> + Send + 'static,
    ) -> Result<T, Failed> {
        let transport = Arc::clone(self.transport());
        let job = self.queries()?.job().to_owned();
        let turn = Arc::clone(&self.acting).acquire_owned().await;
        let work = move || {
            // It is given back once the work is done, however long who asked has waited.
            let _turn = turn;
            look(Letters::on(transport, &job)?)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(JobError::Letters { why, .. })) => Err(Failed::new(StatusCode::CONFLICT, why)),
            Ok(Err(error)) => Err(Failed::new(
                StatusCode::SERVICE_UNAVAILABLE,
                error.to_string(),
            )),
            Err(_) => Err(Failed::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the letters could not be looked at",
            )),
        }
    }
}

fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Failed> {
    let parsed = serde_json::from_slice(body);
    parsed.map_err(|e| Failed::bad(format!("the body is not what is wanted here: {e}")))
}

fn of_the_log(error: &ClientError) -> Failed {
    let status = match error.kind() {
        ErrorKind::Retriable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    Failed::new(status, error.to_string())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn topics(letters: &Letters) -> Result<Map<String, Value>, JobError> {
    let topics = letters.topics()?;
    let names: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
    Ok(object(json!({ "topics": names })))
}

fn newest(
    letters: &Letters,
    job: &str,
    topic: &str,
    limit: usize,
) -> Result<Map<String, Value>, JobError> {
    let newest = letters.newest(topic, limit)?;
    let newest: Vec<Value> = newest.iter().map(|letter| shown(letter, job)).collect();
    Ok(object(json!({ "topic": topic, "letters": newest })))
}

/// A letter as JSON. Times are milliseconds since 1970.
fn shown(letter: &Letter, job: &str) -> Value {
    let headers = letter.headers.headers();
    let headers = headers.map(|(name, value)| json!([name, bytes(value)]));
    let time = Some(letter.time).filter(|time| *time != Timestamp::NONE);
    json!({
        "partition": letter.partition,
        "offset": letter.offset.0,
        "kind": match letter.kind {
            LetterKind::Dead => "dead",
            LetterKind::Late => "late",
            LetterKind::Failed => "failed",
        },
        "job": letter.job,
        "is_of_another": letter.job.as_ref().is_some_and(|it| it != job),
        "source": letter.source,
        "source_offset": letter.source_offset.map(|it| it.0),
        "reason": letter.reason,
        "idempotency_key": letter.effect,
        "time": time.map(|time| time.0),
        "written": letter.written.0,
        "attempts": letter.attempts,
        "state": match letter.state {
            LetterState::Waiting => "waiting",
            LetterState::Asked => "asked",
            LetterState::Replayed => "replayed",
        },
        "headers": headers.collect::<Vec<_>>(),
        "key": bytes(letter.key.as_deref()),
        "value": bytes(letter.value.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_asked_for() {
        let of = |method: &Method, path: &str, query: &str| Act::of(method, path, query).ok();
        assert_eq!(of(&Method::GET, "/letters", ""), Some(Act::Topics));
        let newest = |limit| Act::Newest {
            topic: "dead".to_owned(),
            limit,
        };
        assert_eq!(of(&Method::GET, "/letters/dead", ""), Some(newest(LIMIT)));
        assert_eq!(
            of(&Method::GET, "/letters/dead", "limit=3"),
            Some(newest(3))
        );
        for query in ["limit=0", "limit=201", "limit=x", "count=3"] {
            assert_eq!(of(&Method::GET, "/letters/dead", query), None, "{query}");
        }
        for path in ["/letters/dead/replay", "/transactions/abort"] {
            assert_eq!(of(&Method::GET, path, ""), None, "a look changes nothing");
            assert!(of(&Method::POST, path, "").is_some_and(|act| act.changes()));
        }
        assert!(Act::is_at("/letters") && !Act::is_at("/lettersx") && !Act::is_at("/"));
    }

    #[test]
    fn nothing_is_chosen_by_silence() {
        let choice = |text: &str| parse::<Chosen>(text.as_bytes()).and_then(|it| it.choice());
        assert!(choice("{}").is_err());
        assert!(choice("{\"all\": false}").is_err());
        assert!(choice("{\"al\": true}").is_err());
        assert!(choice("{\"all\": true}").is_ok() && choice("{\"offset\": 3}").is_ok());
    }
}
