//! [`Registry`]: requests to a schema registry, with retry.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::channel::oneshot;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::super::http_client::{HttpAnswer, HttpClient, HttpFailure, HttpRequest};
use super::codec::Registered;
use super::wire::{CompatibilityAnswer, ErrorAnswer, IdAnswer, SchemaAnswer, escape};
use crate::client::wait;
use crate::codec::{CodecError, SchemaFormat};
use crate::env::Env;
use crate::net::{OwnRuntime, Pem};

/// A request without an answer for so long has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before the second try; each one behind it is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The time that a start tries, unless told.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// The time that a record waits for its schema, unless told.
const RECORD_PATIENCE: Duration = Duration::from_secs(300);
/// An answer is refused if it is longer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests that are under way at once.
const CONNECTIONS_MAX: usize = 2;

/// A schema that a registry keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schema {
    /// Its number at the registry, if the answer has it.
    pub id: Option<u32>,
    /// Its version within the subject, if it was asked for by subject.
    pub version: Option<u32>,
    /// `AVRO`, `PROTOBUF` or `JSON`.
    pub schema_type: String,
    /// The schema itself.
    pub text: String,
}

/// A client of a schema registry with the interface of Confluent's. Its copies share connections. Its methods wait for the answer: they
/// are not for use inside an async task.
///
/// ```no_run
/// use onceflow::codec::JsonSchema;
/// use onceflow::prelude::*;
/// use onceflow::runtime::registry::Registry;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order { id: u64 }
///
/// let registry = Registry::new("http://localhost:8081")?.basic_auth("job", "secret");
/// let schema = r#"{"type": "object", "properties": {"id": {"type": "integer"}}}"#;
/// let orders = registry.codec("orders-value", JsonSchema::new(schema)?);
///
/// let job = Job::new("orders");
/// job.source(topic::<Order>("orders").codec(orders)).sink(topic("copies"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    settings: Arc<Settings>,
    /// Made at the first request.
    connected: Arc<OnceLock<Connected>>,
}

#[derive(Clone)]
struct Settings {
    url: String,
    authorization: Option<String>,
    authorities: Option<Pem>,
    start_patience: Duration,
    record_patience: Duration,
}

struct Connected {
    http: HttpClient,
    runtime: OwnRuntime,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password is no part of it.
        f.debug_tuple("Registry").field(&self.settings.url).finish()
    }
}

/// A method and a path behind the registry's own, with a body that is JSON.
struct Question {
    method: &'static str,
    path: String,
    body: Option<serde_json::Value>,
}

/// The reason why a question has no answer.
enum NoAnswer {
    /// It may have one later.
    Passing(String),
    /// The registry does not know what is asked about.
    Unknown(String),
    /// The registry says no.
    Refused { status: u16, words: String },
}

impl Registry {
    /// The registry at this URL, such as `http://localhost:8081`, or with a path where the interface is not at the root. Nothing is asked yet.
    ///
    /// # Errors
    /// [`CodecError::RegistryRefused`] if it is no URL of HTTP.
    pub fn new(url: &str) -> Result<Self, CodecError> {
        let url = url.trim_end_matches('/');
        let is_http = url.starts_with("http://") || url.starts_with("https://");
        if !is_http || url.contains('@') {
            // What stands before the @ may be a password.
            return Err(CodecError::RegistryRefused {
                registry: url.rsplit('@').next().unwrap_or_default().to_owned(),
                why: "its URL begins with http:// or https:// and has no name or password: give those to `basic_auth`".to_owned(),
            });
        }
        Ok(Self::with(Settings {
            url: url.to_owned(),
            authorization: None,
            authorities: None,
            start_patience: START_PATIENCE,
            record_patience: RECORD_PATIENCE,
        }))
    }

    fn with(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            connected: Arc::default(),
        }
    }

    /// Logs in with a name and a password.
    #[must_use]
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        let login = STANDARD.encode(format!("{user}:{password}"));
        Self::with(Settings {
            authorization: Some(format!("Basic {login}")),
            ..Arc::unwrap_or_clone(self.settings)
        })
    }

    /// Trusts these authorities with `https://`, instead of those that the system trusts.
    #[must_use]
    pub fn trust(self, authorities: Pem) -> Self {
        Self::with(Settings {
            authorities: Some(authorities),
            ..Arc::unwrap_or_clone(self.settings)
        })
    }

    /// The time that the start of a job, or a call of this client, tries while the registry does not answer. The default is 10 s.
    #[must_use]
    pub fn start_patience(self, patience: Duration) -> Self {
        Self::with(Settings {
            start_patience: patience,
            ..Arc::unwrap_or_clone(self.settings)
        })
    }

    /// The time that a record with a schema that was never seen waits while the registry does not answer, before it counts as one that cannot
    /// be read. The default is 5 minutes.
    #[must_use]
    pub fn record_patience(self, patience: Duration) -> Self {
        Self::with(Settings {
            record_patience: patience,
            ..Arc::unwrap_or_clone(self.settings)
        })
    }

    /// A codec for a topic whose values (or keys) have their schemas under a subject, such as `orders-value`.
    #[must_use]
    pub fn codec<F: SchemaFormat>(&self, subject: &str, format: F) -> Registered<F> {
        Registered::new(self.clone(), subject, format)
    }

    /// The schema with an id.
    ///
    /// # Errors
    /// [`CodecError::RegistryUnavailable`], or [`CodecError::RegistryRefused`] if there is none.
    pub fn schema(&self, id: u32) -> Result<Schema, CodecError> {
        self.ask(Question::of_id(id))
            .and_then(|answer| self.told(answer))
    }

    /// The newest schema of a subject; `None` if the registry does not have the subject.
    ///
    /// # Errors
    /// [`CodecError::RegistryUnavailable`] or [`CodecError::RegistryRefused`].
    pub fn latest(&self, subject: &str) -> Result<Option<Schema>, CodecError> {
        let question = Question {
            method: "GET",
            path: format!("/subjects/{}/versions/latest", escape(subject)),
            body: None,
        };
        match self.try_ask(question) {
            Ok(answer) => self.told(answer).map(Some),
            Err(NoAnswer::Unknown(_)) => Ok(None),
            Err(other) => Err(self.error(other)),
        }
    }

    /// The id of a schema of a subject: a new version of it, unless it has the schema already.
    ///
    /// # Errors
    /// [`CodecError::RegistryUnavailable`], or [`CodecError::RegistryRefused`] if it does not go together with earlier versions.
    pub fn register(
        &self,
        subject: &str,
        schema_type: &str,
        text: &str,
    ) -> Result<u32, CodecError> {
        let path = format!("/subjects/{}/versions", escape(subject));
        let answer: Result<IdAnswer, _> = self.try_ask(Question::with(path, schema_type, text));
        match answer {
            Ok(answer) => Ok(answer.id),
            Err(NoAnswer::Refused { status: 409, words }) => {
                let why = self
                    .incompatibilities(subject, schema_type, text)
                    .unwrap_or(words);
                Err(self.error(NoAnswer::Refused {
                    status: 409,
                    words: format!(
                        "the schema does not go together with the versions that {subject} has: {why}; change the schema, or the \
                         subject's compatibility"
                    ),
                }))
            }
            Err(other) => Err(self.error(other)),
        }
    }

    /// The id of a schema that a subject has already; `None` if it has not.
    ///
    /// # Errors
    /// [`CodecError::RegistryUnavailable`] or [`CodecError::RegistryRefused`].
    pub fn find(
        &self,
        subject: &str,
        schema_type: &str,
        text: &str,
    ) -> Result<Option<u32>, CodecError> {
        let path = format!("/subjects/{}", escape(subject));
        let answer: Result<IdAnswer, _> = self.try_ask(Question::with(path, schema_type, text));
        match answer {
            Ok(answer) => Ok(Some(answer.id)),
            Err(NoAnswer::Unknown(_)) => Ok(None),
            Err(other) => Err(self.error(other)),
        }
    }

    /// Whether a schema goes together with the newest of a subject, by the subject's own rule: no reasons against it. A subject that the
    /// registry does not have takes every schema.
    ///
    /// # Errors
    /// [`CodecError::RegistryUnavailable`] or [`CodecError::RegistryRefused`].
    pub fn reasons_against(
        &self,
        subject: &str,
        schema_type: &str,
        text: &str,
    ) -> Result<Vec<String>, CodecError> {
        let path = format!(
            "/compatibility/subjects/{}/versions/latest?verbose=true",
            escape(subject)
        );
        let answer: Result<CompatibilityAnswer, _> =
            self.try_ask(Question::with(path, schema_type, text));
        match answer {
            Ok(answer) if answer.is_compatible => Ok(Vec::new()),
            Ok(answer) => {
                let mut reasons = answer.messages;
                reasons.extend(answer.reason);
                if reasons.is_empty() {
                    reasons.push("it gives no reason".to_owned());
                }
                Ok(reasons)
            }
            Err(NoAnswer::Unknown(_)) => Ok(Vec::new()),
            Err(other) => Err(self.error(other)),
        }
    }

    /// The registry's reasons in a line, if it tells some.
    fn incompatibilities(&self, subject: &str, schema_type: &str, text: &str) -> Option<String> {
        let reasons = self.reasons_against(subject, schema_type, text).ok()?;
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    pub(super) fn url(&self) -> &str {
        &self.settings.url
    }

    fn told(&self, answer: SchemaAnswer) -> Result<Schema, CodecError> {
        schema_of(answer).map_err(|no| self.error(no))
    }

    /// Asks for the schema with an id without waiting for the answer, which `told` gets, in a thread of the client.
    pub(super) fn schema_later(
        &self,
        id: u32,
        told: impl FnOnce(Result<Schema, CodecError>) + Send + 'static,
    ) -> Result<(), CodecError> {
        let (this, patience) = (self.clone(), self.settings.record_patience);
        let connected = self.connected()?;
        connected.runtime.spawn(async move {
            let answer = this.exchange(&Question::of_id(id), patience).await;
            let schema = answer.and_then(schema_of);
            told(schema.map_err(|no| this.error(no)));
        });
        Ok(())
    }

    fn ask<A: DeserializeOwned + Send + 'static>(
        &self,
        question: Question,
    ) -> Result<A, CodecError> {
        self.try_ask(question).map_err(|no| self.error(no))
    }

    fn try_ask<A: DeserializeOwned + Send + 'static>(
        &self,
        question: Question,
    ) -> Result<A, NoAnswer> {
        let connected = self
            .connected()
            .map_err(|e| NoAnswer::Passing(e.to_string()))?;
        let (this, patience) = (self.clone(), self.settings.start_patience);
        let answer = run(connected, async move {
            this.exchange(&question, patience).await
        });
        answer.unwrap_or_else(|| Err(NoAnswer::Passing("its thread is gone".to_owned())))
    }

    fn connected(&self) -> Result<&Connected, CodecError> {
        if let Some(connected) = self.connected.get() {
            return Ok(connected);
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("of-registry");
        let runtime = builder.enable_all().build().map_err(|e| {
            self.error(NoAnswer::Passing(format!(
                "no thread could be started: {e}"
            )))
        })?;
        let http = HttpClient::new(CONNECTIONS_MAX, self.settings.authorities.clone());
        let connected = Connected {
            http: http.keeping(ANSWER_BYTES_MAX),
            runtime: runtime.into(),
        };
        Ok(self.connected.get_or_init(|| connected))
    }

    /// Asks until there is an answer, the registry says no, or `patience` is over.
    async fn exchange<A: DeserializeOwned>(
        &self,
        question: &Question,
        patience: Duration,
    ) -> Result<A, NoAnswer> {
        let clock = Env::real().clock;
        let (begin, mut pause) = (clock.now(), FIRST_PAUSE);
        loop {
            let answer = self.once(question).await;
            let left = patience.saturating_sub(clock.now().since(begin));
            match answer {
                Err(NoAnswer::Passing(_)) if !left.is_zero() => {}
                other => return other,
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn once<A: DeserializeOwned>(&self, question: &Question) -> Result<A, NoAnswer> {
        let http = &self
            .connected()
            .map_err(|e| NoAnswer::Passing(e.to_string()))?
            .http;
        let request = self.request(question);
        let sent = tokio::time::timeout(REQUEST_TIMEOUT, http.send(&request)).await;
        match sent {
            Ok(Ok(answer)) => read(&answer),
            Ok(Err(HttpFailure::NoRequest(why))) => Err(NoAnswer::Refused {
                status: 0,
                words: why,
            }),
            Ok(Err(HttpFailure::Connection(why))) => Err(NoAnswer::Passing(why)),
            Err(_) => Err(NoAnswer::Passing(format!(
                "there was no answer in {} s",
                REQUEST_TIMEOUT.as_secs()
            ))),
        }
    }

    fn request(&self, question: &Question) -> HttpRequest {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![
            header(
                "Accept",
                "application/vnd.schemaregistry.v1+json, application/json",
            ),
            header("Content-Type", "application/vnd.schemaregistry.v1+json"),
        ];
        if let Some(authorization) = &self.settings.authorization {
            headers.push(header("Authorization", authorization));
        }
        HttpRequest {
            method: question.method.to_owned(),
            url: format!("{}{}", self.settings.url, question.path),
            headers,
            body: question
                .body
                .as_ref()
                .map_or_else(Vec::new, |it| it.to_string().into_bytes()),
        }
    }

    fn error(&self, no: NoAnswer) -> CodecError {
        let registry = self.settings.url.clone();
        match no {
            NoAnswer::Passing(why) => CodecError::RegistryUnavailable {
                registry,
                why: format!(
                    "{why}; start it, or mend its URL or the network, and start the job again"
                ),
            },
            NoAnswer::Unknown(why) => CodecError::RegistryRefused { registry, why },
            NoAnswer::Refused { status, words } => {
                let advice = match status {
                    401 | 403 => " (give a name and a password that may do it to `basic_auth`)",
                    _ => "",
                };
                CodecError::RegistryRefused {
                    registry,
                    why: format!("{words}{advice}"),
                }
            }
        }
    }
}

/// Runs a future on the client's thread, and waits for it; `None` if that thread is gone.
fn run<A: Send + 'static>(
    connected: &Connected,
    future: impl Future<Output = A> + Send + 'static,
) -> Option<A> {
    let (done, answer) = oneshot::channel();
    connected.runtime.spawn(async move {
        // Nobody listens if the caller is gone.
        let _ = done.send(future.await);
    });
    wait(answer).ok()
}

impl Question {
    fn of_id(id: u32) -> Self {
        Self {
            method: "GET",
            path: format!("/schemas/ids/{id}"),
            body: None,
        }
    }

    fn with(path: String, schema_type: &str, text: &str) -> Self {
        // A registry of before Protobuf takes no type with Avro.
        let body = match schema_type {
            "AVRO" => json!({ "schema": text }),
            other => json!({ "schema": text, "schemaType": other }),
        };
        Self {
            method: "POST",
            path,
            body: Some(body),
        }
    }
}

/// The answer's meaning.
fn read<A: DeserializeOwned>(answer: &HttpAnswer) -> Result<A, NoAnswer> {
    let body = answer.body_bytes();
    let words = || {
        let said = serde_json::from_slice::<ErrorAnswer>(body);
        let said = said.map_or_else(
            |_| answer.body_start().chars().take(200).collect(),
            |it| it.message,
        );
        format!("{said} (status {})", answer.status)
    };
    match answer.status {
        200..300 if body.len() >= ANSWER_BYTES_MAX => Err(NoAnswer::Refused {
            status: answer.status,
            words: format!("its answer has more than {ANSWER_BYTES_MAX} bytes"),
        }),
        200..300 => serde_json::from_slice(body).map_err(|e| NoAnswer::Refused {
            status: answer.status,
            words: format!("its answer is not that of a schema registry ({e}): the URL may need a path, such as /apis/ccompat/v7"),
        }),
        404 => Err(NoAnswer::Unknown(words())),
        408 | 429 | 500.. => Err(NoAnswer::Passing(words())),
        status => Err(NoAnswer::Refused {
            status,
            words: words(),
        }),
    }
}

fn schema_of(answer: SchemaAnswer) -> Result<Schema, NoAnswer> {
    if !answer.references.is_empty() {
        return Err(NoAnswer::Refused {
            status: 200,
            words: "the schema refers to other subjects, which is not supported: register it in one piece".to_owned(),
        });
    }
    Ok(Schema {
        id: answer.id,
        version: answer.version,
        schema_type: answer.schema_type.unwrap_or_else(|| "AVRO".to_owned()),
        text: answer.schema,
    })
}
