//! Traces of a job for OpenTelemetry: spans of cycles, commits and starts, sent by OTLP over HTTP (feature `otel`).
//!
//! A thread of its own looks at what the job counts anyway, four times a second, and sends what has ended since: the job does nothing for it,
//! and nothing waits for the collector. What cannot be sent is lost, and said once.
//!
//! Reading order: `spans.rs` (decides), this file.

mod spans;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status as Ended, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_http::{Bytes, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::spans::{Collector, Span, Told};
use super::job::Running;
use super::query::Queries;
use crate::env::{Env, JoinHandle, warn};
use crate::runtime::{HttpClient, HttpRequest};

/// The pause between two looks. The job remembers 200 cycles: those of a job that commits more often are counted, not told.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The longest that one sending may take.
const SEND_MAX: Duration = Duration::from_secs(10);
/// The spans of one request.
const SPANS_A_REQUEST: usize = 512;
/// The path of traces behind an endpoint that names none.
const TRACES_PATH: &str = "/v1/traces";
/// An answer of a collector is no longer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where traces are sent.
#[derive(Debug, Clone)]
pub struct Otlp {
    endpoint: String,
    headers: Vec<(String, String)>,
    service: Option<String>,
}

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// The endpoint or a header makes no sense.
    #[error("traces cannot be sent to {endpoint}: {why}")]
    Invalid {
        /// The endpoint.
        endpoint: String,
        /// The fault in it.
        why: String,
    },
    /// The system gives no threads.
    #[error("no thread can be started for traces")]
    Thread(#[source] std::io::Error),
}

impl Otlp {
    /// Sends to a collector's HTTP endpoint: `http://127.0.0.1:4318`, or a whole URL with its path.
    #[must_use]
    pub fn to(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            headers: Vec::new(),
            service: None,
        }
    }

    /// Sends this header with each request; a token, for one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The service's name (`service.name`); without it, that of the job.
    #[must_use]
    pub fn service_name(self, name: &str) -> Self {
        Self {
            service: Some(name.to_owned()),
            ..self
        }
    }

    fn url(&self) -> String {
        let endpoint = self.endpoint.trim_end_matches('/');
        let behind = endpoint
            .split_once("://")
            .map_or(endpoint, |(_, behind)| behind);
        match behind.contains('/') {
            true => self.endpoint.clone(),
            false => format!("{endpoint}{TRACES_PATH}"),
        }
    }

    fn exporter(&self, job: &str) -> Result<SpanExporter, OtlpError> {
        let invalid = |why: String| OtlpError::Invalid {
            endpoint: self.endpoint.clone(),
            why,
        };
        if !["http://", "https://"]
            .iter()
            .any(|scheme| self.endpoint.starts_with(scheme))
        {
            return Err(invalid(
                "it begins neither with http:// nor with https://".to_owned(),
            ));
        }
        let built = SpanExporter::builder()
            .with_http()
            .with_http_client(Client(HttpClient::new(1, None).keeping(ANSWER_BYTES_MAX)))
            .with_endpoint(self.url())
            .with_headers(self.headers.iter().cloned().collect())
            .with_timeout(SEND_MAX)
            .build();
        let mut exporter = built.map_err(|e: ExporterBuildError| invalid(e.to_string()))?;
        let name = self.service.clone().unwrap_or_else(|| job.to_owned());
        exporter.set_resource(&Resource::builder().with_service_name(name).build());
        Ok(exporter)
    }
}

/// The crate's requests over our own client.
struct Client(HttpClient);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl opentelemetry_http::HttpClient for Client {
    fn send_bytes<'s, 'f>(
        &'s self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let headers = head.headers.iter().filter_map(|(name, value)| {
                Some((name.to_string(), value.to_str().ok()?.to_owned()))
            });
            let request = HttpRequest {
                method: head.method.to_string(),
                url: head.uri.to_string(),
                headers: headers.collect(),
                body: body.to_vec(),
            };
            let answer = self.0.send(&request).await.map_err(|e| e.to_string())?;
            let mut response = Response::new(Bytes::copy_from_slice(answer.body_bytes()));
            *response.status_mut() = answer.status.try_into()?;
            Ok(response)
        })
    }
}

/// Sends the traces of a job until it is dropped. Made by [`Running::export_traces`].
pub struct Traces {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<Box<dyn JoinHandle>>,
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && let Err(why) = thread.join()
        {
            warn!(why, "the thread that sends traces failed");
        }
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl Running {
    /// Sends spans of the job's cycles, commits and starts to a collector of OpenTelemetry, by OTLP over HTTP, until the returned value is
    /// dropped; that waits until what has ended is sent, 10 s at most.
    ///
    /// ```no_run
    /// # fn run(running: &onceflow::runtime::Running) -> anyhow::Result<()> {
    /// use onceflow::runtime::Otlp;
    ///
    /// let traces = running.export_traces(&Otlp::to("http://127.0.0.1:4318"))?;
    /// # drop(traces);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the endpoint is none, or no thread can be started. A collector that does not answer is no error: what it misses is lost.
    pub fn export_traces(&self, otlp: &Otlp) -> Result<Traces, OtlpError> {
        let queries = self.query();
        let env = queries.watcher().transport().env().clone();
        let exporter = otlp.exporter(&queries.watcher().look_here().job)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OtlpError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let sender = Sender {
            env: env.clone(),
            queries,
            exporter,
            has_failed: false,
        };
        let body = move || runtime.block_on(sender.run(stopped));
        let thread = env.spawn.spawn("of-traces", Box::new(body));
        Ok(Traces {
            stop: Some(stop),
            thread: Some(thread.map_err(OtlpError::Thread)?),
        })
    }
}

struct Sender {
    env: Env,
    queries: Queries,
    exporter: SpanExporter,
    /// Whether it was said that something was lost.
    has_failed: bool,
}

impl Sender {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut collector = Collector::new(&self.queries.watcher().look_here());
        let mut is_over = false;
        while !is_over {
            is_over = timeout(LOOK_EVERY, &mut stopped).await.is_ok();
            let now = self.queries.watcher().look_here();
            let mut batch = Vec::new();
            for span in collector.step(&now) {
                let trace = TraceId::from_bytes(self.env.random.next_u128().to_be_bytes());
                self.add(&mut batch, &now.job, &span, (trace, SpanId::INVALID));
            }
            while !batch.is_empty() {
                let rest = batch.split_off(batch.len().min(SPANS_A_REQUEST));
                self.send(std::mem::replace(&mut batch, rest)).await;
            }
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let sent = timeout(SEND_MAX, self.exporter.export(batch)).await;
        let failure = match sent {
            Ok(Ok(())) => return self.has_failed = false,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("there was no answer within {} s", SEND_MAX.as_secs()),
        };
        if !self.has_failed {
            warn!(
                why = failure,
                "traces of the job are lost until the collector takes them again"
            );
        }
        self.has_failed = true;
    }

    /// Adds a span and those within it.
    fn add(
        &self,
        batch: &mut Vec<SpanData>,
        job: &str,
        span: &Span,
        (trace, parent): (TraceId, SpanId),
    ) {
        let id = SpanId::from_bytes(self.env.random.next_u64().to_be_bytes());
        let moment =
            |micros: i64| UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        let mut attributes = vec![KeyValue::new("onceflow.job", job.to_owned())];
        attributes.extend(span.attributes.iter().map(|(name, told)| {
            let value: Value = match told {
                Told::Number(number) => i64::try_from(*number).unwrap_or(i64::MAX).into(),
                Told::Text(text) => text.clone().into(),
            };
            KeyValue::new(*name, value)
        }));
        let status = match &span.failure {
            Some(why) => Ended::error(why.clone()),
            None => Ended::Unset,
        };
        batch.push(SpanData {
            span_context: SpanContext::new(
                trace,
                id,
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: span.name.into(),
            start_time: moment(span.begin_micros),
            end_time: moment(span.end_micros),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: scope(),
        });
        for within in &span.within {
            self.add(batch, job, within, (trace, id));
        }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("onceflow")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_path_gets_that_of_traces() {
        for (endpoint, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            (
                "https://a.example/otlp/v1/traces",
                "https://a.example/otlp/v1/traces",
            ),
        ] {
            assert_eq!(Otlp::to(endpoint).url(), url);
        }
        for endpoint in ["127.0.0.1:4318", "grpc://a", "http://a b"] {
            let refused = Otlp::to(endpoint).exporter("job").err();
            assert!(
                refused.is_some_and(|e| e.to_string().contains(endpoint)),
                "{endpoint}"
            );
        }
    }
}
