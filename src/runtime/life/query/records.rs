//! Records over HTTP: the topics of the log, a page of one, and what became of a record.
//!
//! ```text
//! GET  /topics                                              the topics of the log
//! GET  /records/TOPIC?partition=…&from=…|time=…&limit=…     a page of a partition: `from` is an offset, -N or beginning
//! GET  /records/TOPIC/follow?partition=…&offset=…&job=…     the transaction in which a job consumed a record, and what it wrote;
//!                                                           topic=… (several) says which topics are searched, limit=… how many records are shown
//! ```
//! The looks are those of `client/records/`, which the command `onceflow records` asks, too.

use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::answers::no_path;
use super::failed::Failed;
use super::http::Shared;
use crate::client::records::{
    Follow, From as Begin, LIMIT, LIMIT_MAX, LookError, ROWS, ROWS_MAX, Records,
};
use crate::client::{ClientError, ErrorKind, wait};
use crate::types::{GroupId, Offset, Timestamp, TopicName, TopicPartition};

/// The longest that a look may take.
const WAIT: Duration = Duration::from_secs(60);

/// The things that can be asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Topics,
    Browse { topic: String },
    Follow { topic: String },
}

/// Whether something of this file is at a path.
pub(super) fn is_at(path: &str) -> bool {
    let first = path.split('/').nth(1);
    matches!(first, Some("topics" | "records"))
}

impl Asked {
    fn of(method: &Method, path: &str) -> Result<Self, Failed> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (method, &parts[..]) {
            (&Method::GET, ["topics"]) => Ok(Self::Topics),
            (&Method::GET, ["records", topic]) => Ok(Self::Browse {
                topic: (*topic).to_owned(),
            }),
            (&Method::GET, ["records", topic, "follow"]) => Ok(Self::Follow {
                topic: (*topic).to_owned(),
            }),
            _ => Err(no_path(path)),
        }
    }
}

/// The parameters of a look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Terms {
    partition: Option<i32>,
    from: Option<Begin>,
    limit: Option<usize>,
    offset: Option<i64>,
    job: Option<String>,
    topics: Vec<String>,
}

impl Terms {
    fn of(query: &str) -> Result<Self, Failed> {
        let mut terms = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let not = |what: &str| Failed::bad(format!("{name}={value} is not {what}"));
            match &*name {
                "partition" => {
                    let partition = value.parse().map_err(|_| not("a partition"))?;
                    terms.partition = Some(partition);
                }
                "from" => {
                    let from = from_of(&value);
                    terms.from =
                        Some(from.ok_or_else(|| not("an offset, -N (the last N), or beginning"))?);
                }
                "time" => {
                    let millis = value
                        .parse()
                        .map_err(|_| not("a time in milliseconds since 1970"))?;
                    terms.from = Some(Begin::Time(Timestamp(millis)));
                }
                "limit" => {
                    terms.limit = Some(value.parse().map_err(|_| not("a number of records"))?)
                }
                "offset" => terms.offset = Some(value.parse().map_err(|_| not("an offset"))?),
                "job" => terms.job = Some(value.into_owned()),
                "topic" => terms.topics.push(value.into_owned()),
                _ => {
                    return Err(Failed::bad(format!(
                        "there is no parameter {name:?}: there are partition, from, time, limit; to follow a record partition, offset, job, topic, \
                         limit"
                    )));
                }
            }
        }
        Ok(terms)
    }

    fn limit(&self, default: usize, max: usize) -> Result<usize, Failed> {
        match self.limit.unwrap_or(default) {
            limit if (1..=max).contains(&limit) => Ok(limit),
            limit => Err(Failed::bad(format!("limit={limit} is not from 1 to {max}"))),
        }
    }

    fn place(&self, topic: &str) -> Result<TopicPartition, Failed> {
        let topic = TopicName::new(topic).map_err(|e| Failed::bad(e.to_string()))?;
        Ok(TopicPartition::new(topic, self.partition.unwrap_or(0)))
    }

    /// The record to follow; `own` is the job that answers.
    fn follow(&self, topic: &str, own: Option<&str>) -> Result<Follow, Failed> {
        let bad = |e: crate::types::NameError| Failed::bad(e.to_string());
        let Some(offset) = self.offset else {
            return Err(Failed::bad(
                "say which record: partition=NUMBER&offset=NUMBER",
            ));
        };
        let Some(job) = self.job.as_deref().or(own) else {
            return Err(Failed::bad("say which job consumed the record: job=NAME"));
        };
        let topics = self.topics.iter().map(|topic| TopicName::new(topic));
        Ok(Follow {
            job: GroupId::new(job).map_err(bad)?,
            place: self.place(topic)?,
            offset: Offset(offset),
            topics: topics.collect::<Result<_, _>>().map_err(bad)?,
            limit: self.limit(ROWS, ROWS_MAX)?,
        })
    }
}

fn from_of(text: &str) -> Option<Begin> {
    if text == "beginning" {
        return Some(Begin::Beginning);
    }
    let number: i64 = text.parse().ok()?;
    Some(match number {
        0.. => Begin::At(Offset(number)),
        _ => Begin::Last(number.saturating_neg()),
    })
}

impl Shared {
    /// Answers what is asked of the log's topics.
    pub(super) async fn records(
        &self,
        method: &Method,
        path: &str,
        query: &str,
    ) -> Result<Map<String, Value>, Failed> {
        let terms = Terms::of(query)?;
        let answer = async {
            match Asked::of(method, path)? {
                Asked::Topics => self.topics().await,
                Asked::Browse { topic } => {
                    let place = terms.place(&topic)?;
                    let limit = terms.limit(LIMIT, LIMIT_MAX)?;
                    let from = terms
                        .from
                        .unwrap_or(Begin::Last(i64::try_from(limit).unwrap_or(i64::MAX)));
                    self.with_records(move |records| wait(records.browse(&place, from, limit)))
                        .await
                }
                Asked::Follow { topic } => {
                    let follow = terms.follow(&topic, self.job_name())?;
                    self.with_records(move |records| wait(records.follow(&follow)))
                        .await
                }
            }
        };
        timeout(WAIT, answer).await.unwrap_or_else(|_| {
            Err(Failed::new(
                StatusCode::GATEWAY_TIMEOUT,
                "the log did not answer within 60 s: ask again, or name the topics that are to be searched",
            ))
        })
    }

    async fn topics(&self) -> Result<Map<String, Value>, Failed> {
        let topics = self.transport().topics().await.map_err(LookError::from)?;
        let topics = topics.iter().map(|topic| {
            json!({
                "topic": topic.name.as_str(),
                "partitions": topic.partitions_count,
                "is_internal": topic.is_internal,
            })
        });
        let topics: Value = topics.collect();
        Ok(Map::from_iter([("topics".to_owned(), topics)]))
    }

    /// Has a thread that may wait look into topics; one looks at a time.
    async fn with_records(
        &self,
        look: impl FnOnce(Records) -> Result<Value, LookError> + Send + 'static,
    ) -> Result<Map<String, Value>, Failed> {
        let records = Records::new(Arc::clone(self.transport()));
        let turn = Arc::clone(&self.acting).acquire_owned().await;
        let work = move || {
            // It is given back once the work is done, however long who asked has waited.
            let _turn = turn;
            look(records)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(Value::Object(told))) => Ok(told),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(_)) | Err(_) => Err(Failed::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the topic could not be looked at",
            )),
        }
    }
}

impl From<LookError> for Failed {
    fn from(error: LookError) -> Self {
        let status = match &error {
            LookError::NoTopic(_) | LookError::NoPartition { .. } | LookError::NotRead { .. } => {
                StatusCode::NOT_FOUND
            }
            LookError::Deleted { .. } | LookError::NotWritten { .. } => StatusCode::NOT_FOUND,
            LookError::TooMany { .. } => StatusCode::BAD_REQUEST,
            LookError::Client(error) => status_of(error),
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

fn status_of(error: &ClientError) -> StatusCode {
    match error.kind() {
        ErrorKind::Retriable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_asked_for() {
        let of = |method: &Method, path: &str| Asked::of(method, path).ok();
        let topic = || "lines".to_owned();
        assert_eq!(of(&Method::GET, "/topics"), Some(Asked::Topics));
        assert_eq!(
            of(&Method::GET, "/records/lines"),
            Some(Asked::Browse { topic: topic() })
        );
        assert_eq!(
            of(&Method::GET, "/records/lines/follow"),
            Some(Asked::Follow { topic: topic() })
        );
        for path in ["/records", "/records/lines/else", "/topics/lines"] {
            assert_eq!(of(&Method::GET, path), None, "{path}");
        }
        assert_eq!(
            of(&Method::POST, "/records/lines"),
            None,
            "a look changes nothing"
        );
        assert!(is_at("/records/lines") && is_at("/topics") && !is_at("/stores/records"));
    }

    #[test]
    fn parameters_say_where_a_page_begins() {
        let of = |query: &str| {
            Terms::of(query)
                .map(|terms| (terms.partition, terms.from))
                .ok()
        };
        assert_eq!(of(""), Some((None, None)));
        assert_eq!(
            of("partition=2&from=7"),
            Some((Some(2), Some(Begin::At(Offset(7)))))
        );
        assert_eq!(of("from=-20"), Some((None, Some(Begin::Last(20)))));
        assert_eq!(of("from=beginning"), Some((None, Some(Begin::Beginning))));
        assert_eq!(of("time=5"), Some((None, Some(Begin::Time(Timestamp(5))))));
        for query in [
            "from=soon",
            "time=noon",
            "partition=x",
            "limit=-1",
            "key=3",
            "offset=",
        ] {
            assert_eq!(of(query), None, "{query}");
        }
        let limited = Terms::of("limit=501")
            .ok()
            .map(|terms| terms.limit(LIMIT, LIMIT_MAX).is_err());
        assert_eq!(limited, Some(true));
    }

    #[test]
    fn a_record_is_followed_for_a_job_that_is_named_or_answers() {
        let follow = |query: &str, own| {
            Terms::of(query)
                .and_then(|terms| terms.follow("lines", own))
                .ok()
        };
        let followed = follow("partition=1&offset=4&topic=a&topic=b", Some("shop")).unwrap();
        assert_eq!(
            (followed.job.as_str(), followed.offset),
            ("shop", Offset(4))
        );
        assert_eq!((followed.place.partition, followed.topics.len()), (1, 2));
        let other = follow("offset=4&job=other", Some("shop")).unwrap();
        assert_eq!(other.job.as_str(), "other");
        assert!(follow("offset=4", None).is_none() && follow("job=shop", None).is_none());
    }
}
