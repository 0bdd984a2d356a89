//! Answers to questions over HTTP: paths, parameters, statuses, and who may ask.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming as Body};
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::QueryError;
use super::act::Act;
use super::failed::Failed;
use super::http::{SLOW_CLIENT, Shared};
use super::question::{Checked, Question};
use super::records;
use super::shown::{Sent, whole};
use super::subject::Subject;
use crate::net::Address;
use crate::runtime::task::committed::{Epoch, Kind};
use crate::types::{Offset, TopicName, TopicPartition};

/// The longest body of a question.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Wait of a question for its answer where nobody says how long.
const WAIT: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_secs(300);
/// The most questions that are answered of one epoch.
const QUESTIONS_MAX: usize = 1_000;

/// The parameters of a URL that belong to no question.
struct Terms {
    at_least: Epoch,
    wait: Duration,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
}

/// Takes the parameters of a URL apart.
fn read_parameters(text: &str) -> Result<(Question, Terms), Failed> {
    let mut question = Question::default();
    let mut terms = Terms {
        at_least: Epoch::default(),
        wait: WAIT,
        topic: None,
        partition: None,
        offset: None,
    };
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let not = |what: &str| Failed::bad(format!("{name}={value} is not {what}"));
        match &*name {
            "at_least" => terms.at_least = value.parse().map_err(|_| not("an epoch"))?,
            "wait" => {
                let seconds = value.parse::<f64>().ok();
                let wait = seconds.and_then(|it| Duration::try_from_secs_f64(it).ok());
                let wait = wait.filter(|wait| *wait <= WAIT_MAX);
                terms.wait = wait.ok_or_else(|| not("a number of seconds from 0 to 300"))?;
            }
            "topic" => terms.topic = Some(value.into_owned()),
            "partition" => {
                terms.partition = Some(value.parse().map_err(|_| not("a partition"))?);
            }
            "offset" => terms.offset = Some(value.parse().map_err(|_| not("an offset"))?),
            _ => match question.take(&name, &value) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(Failed::bad(format!(
                        "there is no parameter {name:?}: there are key, place, time, from, to, after, limit, reverse, at_least and wait"
                    )));
                }
                Err(refused) => return Err(Failed::bad(refused.0)),
            },
        }
    }
    Ok((question, terms))
}

#[cfg(feature = "metrics")]
const METRICS: &str = "GET /metrics, ";
#[cfg(not(feature = "metrics"))]
const METRICS: &str = "";

/// The requests that a log without a job answers.
#[cfg(feature = "cli")]
const LOG_PATHS: [&str; 6] = [
    "GET /",
    "GET /status",
    "POST /transactions/abort",
    "GET /topics",
    "GET /records/TOPIC",
    "GET /records/TOPIC/follow",
];

/// Lists the paths.
fn paths() -> String {
    format!(
        "GET /, GET /status, {METRICS}GET /stores/NAME, GET /windows/NAME, GET /processed, POST /read, GET /letters, \
         GET /letters/TOPIC, POST /letters/TOPIC/replay, POST /transactions/abort, GET /topics, GET /records/TOPIC, \
         GET /records/TOPIC/follow"
    )
}

impl Shared {
    pub(super) async fn respond(self: &Arc<Self>, request: Request<Body>) -> Response<Sent> {
        let answered = match self.admit(&request) {
            Ok(()) => match self.show(&request).await {
                Some(Ok(shown)) => return shown,
                Some(Err(failed)) => Err(failed),
                None if Act::is_at(request.uri().path()) => self.act(request).await,
                None if records::is_at(request.uri().path()) => {
                    let (uri, query) = (request.uri(), request.uri().query());
                    self.records(request.method(), uri.path(), query.unwrap_or_default())
                        .await
                }
                None => self.answer(request).await,
            },
            Err(failed) => Err(failed),
        };
        let (status, told) = match answered {
            Ok(told) => (StatusCode::OK, told),
            Err(Failed { status, told }) => (status, told),
        };
        let mut text = Value::Object(told).to_string();
        text.push('\n');
        let mut response = Response::new(whole(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let fixed = hyper::header::HeaderValue::from_static;
        headers.insert(CONTENT_TYPE, fixed("application/json"));
        headers.insert(CACHE_CONTROL, fixed("no-store"));
        match status {
            StatusCode::UNAUTHORIZED => drop(headers.insert(WWW_AUTHENTICATE, fixed("Bearer"))),
            StatusCode::METHOD_NOT_ALLOWED => drop(headers.insert(ALLOW, fixed("GET, POST"))),
            _ => {}
        }
        response
    }

    async fn answer(&self, request: Request<Body>) -> Result<Map<String, Value>, Failed> {
        let (question, terms) = read_parameters(request.uri().query().unwrap_or_default())?;
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let wait = terms.wait;
        let answer = async {
            match (&method, &*path, path.split_at(path.len().min(1)).1) {
                (&Method::GET, "/", _) => Ok(self.about()),
                (&Method::GET, "/processed", _) => self.processed(&terms).await,
                (&Method::GET, _, rest) => {
                    let mut question = question;
                    match rest.split_once('/') {
                        Some(("stores", name)) => question.store = name.to_owned(),
                        Some(("windows", name)) => {
                            question.store = name.to_owned();
                            question.windows = true;
                        }
                        _ => return Err(no_path(&path)),
                    }
                    let mut answers = self.read(&terms, &[question]).await?;
                    let mut answer = answers.1.pop().unwrap_or_default();
                    answer.insert("epoch".to_owned(), answers.0.0.into());
                    Ok(answer)
                }
                (&Method::POST, "/read", _) => {
                    let questions = read_body(request.into_body()).await?;
                    let (epoch, answers) = self.read(&terms, &questions).await?;
                    let answers: Value = answers.into_iter().map(Value::Object).collect();
                    let told = [("epoch", epoch.0.into()), ("answers", answers)];
                    Ok(told
                        .map(|(name, value)| (name.to_owned(), value))
                        .into_iter()
                        .collect())
                }
                (&Method::POST, ..) => Err(no_path(&path)),
                _ => Err(Failed::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    format!("there is no such request: {}", paths()),
                )),
            }
        };
        timeout(wait, answer).await.unwrap_or_else(|_| {
            Err(Failed::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "there was no answer within {} s: the job starts, or the epoch or the record that is waited for is not committed; ask \
                     again, with a longer `wait`",
                    wait.as_secs_f64()
                ),
            ))
        })
    }

    /// Whether somebody may ask.
    fn admit(&self, request: &Request<Body>) -> Result<(), Failed> {
        let Some(token) = &self.token else {
            // A web page of elsewhere, whose name leads here, cannot name this machine.
            let host = request.headers().get(HOST);
            let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
            return match !self.is_loopback || names_loopback(host) {
                true => Ok(()),
                false => Err(Failed::new(
                    StatusCode::FORBIDDEN,
                    "without a token only those are answered who ask 127.0.0.1 or localhost",
                )),
            };
        };
        // The files of the page say nothing of the job; they ask for the token.
        if self.has_file(request) {
            return Ok(());
        }
        let given = request.headers().get(AUTHORIZATION);
        let given = given.and_then(|given| given.as_bytes().strip_prefix(b"Bearer "));
        match given.map(|given| digest(&SHA256, given)) {
            Some(given) if given.as_ref() == token.as_ref() => Ok(()),
            _ => Err(Failed::new(
                StatusCode::UNAUTHORIZED,
                "send the token, as `Authorization: Bearer TOKEN`",
            )),
        }
    }

    /// The job and its stores.
    fn about(&self) -> Map<String, Value> {
        let queries = match &self.subject {
            Subject::Job(queries) => queries,
            #[cfg(feature = "cli")]
            Subject::Log(log) => {
                let told = [
                    ("log", log.name().into()),
                    ("paths", LOG_PATHS.iter().copied().collect()),
                    ("may_change", self.may_change.into()),
                ];
                return told
                    .map(|(name, value): (&str, Value)| (name.to_owned(), value))
                    .into_iter()
                    .collect();
            }
        };
        let declared = &queries.declared;
        let stores = declared.stores.iter().map(|(name, schema)| {
            let face = declared.faces.get(name);
            let kind = face.map(|face| match face.kind {
                Kind::Values => "values",
                Kind::Timed => "with time",
                Kind::Ordered(_) => "in order",
            });
            json!({
                "name": name,
                "kind": kind,
                "key": schema.key.as_str(),
                "value": schema.value.as_str(),
                "has_windows": face.is_some_and(|face| face.windows.is_some()),
            })
        });
        let told = [
            ("job", declared.job.as_str().into()),
            ("stores", stores.collect()),
            ("paths", paths().split(", ").collect()),
            ("may_change", self.may_change.into()),
        ];
        told.map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }

    async fn processed(&self, terms: &Terms) -> Result<Map<String, Value>, Failed> {
        let (Some(topic), Some(partition), Some(offset)) =
            (&terms.topic, terms.partition, terms.offset)
        else {
            return Err(Failed::bad(
                "say which record: topic=NAME&partition=NUMBER&offset=NUMBER",
            ));
        };
        let topic = TopicName::new(topic).map_err(|e| Failed::bad(e.to_string()))?;
        let place = TopicPartition::new(topic, partition);
        let epoch = self.queries()?.processed(&place, Offset(offset)).await?;
        Ok(Map::from_iter([("epoch".to_owned(), epoch.0.into())]))
    }

    /// Answers questions, all of one epoch.
    async fn read(
        &self,
        terms: &Terms,
        questions: &[Question],
    ) -> Result<(Epoch, Vec<Map<String, Value>>), Failed> {
        let queries = self.queries()?.at_least(terms.at_least);
        let checked = questions.iter().map(|question| queries.check(question));
        let checked: Vec<Checked<'_>> = checked.collect::<Result<_, QueryError>>()?;
        let answered = queries.read(|view| {
            let answers = checked.iter().map(|question| question.answer(view));
            answers.collect()
        });
        let answer = answered.await?;
        Ok((answer.epoch, answer.value))
    }
}

pub(super) fn no_path(path: &str) -> Failed {
    let why = format!("there is nothing at {path}: {}", paths());
    Failed::new(StatusCode::NOT_FOUND, why)
}

/// Whether a `Host` header names this machine from within.
fn names_loopback(host: &str) -> bool {
    let address: Option<Address> = host.parse().ok();
    let name = address.map_or_else(|| host.to_owned(), |address| address.host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The whole body of a request.
pub(super) async fn whole_body(body: Body) -> Result<Bytes, Failed> {
    let whole = timeout(SLOW_CLIENT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match whole {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        _ => Err(Failed::bad(
            "the body did not come whole within 10 s, or has more than 1 MiB",
        )),
    }
}

async fn read_body(body: Body) -> Result<Vec<Question>, Failed> {
    let questions: Vec<Question> = serde_json::from_slice(&whole_body(body).await?).map_err(|e| {
        Failed::bad(format!(
            "the body is not a list of questions, as [{{\"store\": \"counts\", \"key\": \"tea\"}}]: {e}"
        ))
    })?;
    match questions.len() {
        1..=QUESTIONS_MAX => Ok(questions),
        count => Err(Failed::bad(format!(
            "{count} questions were asked at once: ask 1 to {QUESTIONS_MAX}"
        ))),
    }
}
