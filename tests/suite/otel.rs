//! Traces as a collector of OpenTelemetry gets them: requests of HTTP on a local port, decoded by the messages of OTLP itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Otlp, Running};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;

use crate::jobs::support::{Place, until};

/// A request: its first line and headers in lower case, and its message.
struct Got {
    head: String,
    message: ExportTraceServiceRequest,
}

/// A collector on a port of its own. Its thread ends with the process.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    status: Arc<AtomicU16>,
}

impl Collector {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            got: Arc::default(),
            status: Arc::new(AtomicU16::new(200)),
        };
        let own = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = own.clone();
                std::thread::spawn(move || own.serve(stream));
            }
        });
        collector
    }

    /// Answers requests on one connection until it is closed.
    fn serve(&self, stream: TcpStream) {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while let Some((head, body)) = read_request(&mut reader) {
            let message =
                ExportTraceServiceRequest::decode(&body[..]).expect("it is a message of OTLP");
            let status = self.status.load(Ordering::Acquire);
            if status == 200 {
                self.got.lock().push(Got { head, message });
            }
            let answer = ExportTraceServiceResponse::default().encode_to_vec();
            let head = format!(
                "HTTP/1.1 {status} Told\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            if writer
                .write_all(&[head.as_bytes(), &answer].concat())
                .is_err()
            {
                return;
            }
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock();
        let resources = got.iter().flat_map(|got| &got.message.resource_spans);
        let scopes = resources.flat_map(|it| &it.scope_spans);
        scopes.flat_map(|it| it.spans.clone()).collect()
    }

    /// Each request is one that a collector takes, and names the job.
    fn check_requests(&self) {
        let got = self.got.lock();
        for request in &*got {
            assert!(
                request.head.starts_with("post /v1/traces http/1.1\r\n"),
                "{}",
                request.head
            );
            assert!(
                request
                    .head
                    .contains("content-type: application/x-protobuf"),
                "{}",
                request.head
            );
            assert!(
                request.head.contains("authorization: bearer abc"),
                "{}",
                request.head
            );
            for resource in &request.message.resource_spans {
                let of_service = resource.resource.as_ref().unwrap().attributes.iter();
                let name = of_service.filter(|it| it.key == "service.name");
                let name = name.filter_map(|it| it.value.clone()?.value).next();
                assert_eq!(name, Some(Value::StringValue("counted".to_owned())));
            }
        }
    }

    fn count(&self, name: &str) -> usize {
        self.spans().iter().filter(|span| span.name == name).count()
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length?.trim().parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// A job that counts numbers, a few in each cycle.
fn start(log: &Log) -> Running {
    let job = Job::new("counted");
    job.source(values("n", 0..u64::MAX))
        .key_by(|n| n % 8)
        .count("counts")
        .changes()
        .sink(topic("counts"));
    let commit = Commit::every(Duration::from_millis(20));
    job.exactly_once(commit).start(log).unwrap()
}

fn attributes(span: &Span) -> BTreeMap<String, Value> {
    let attributes = span.attributes.iter();
    let told = attributes.filter_map(|it| Some((it.key.clone(), it.value.clone()?.value?)));
    told.collect()
}

/// Each span has its place in another one, in time, too; the names of all.
fn check_nesting(spans: &[Span]) -> BTreeSet<&str> {
    let by_id: BTreeMap<_, _> = spans
        .iter()
        .map(|span| (span.span_id.clone(), span))
        .collect();
    assert_eq!(by_id.len(), spans.len(), "each has an id of its own");
    let mut names = BTreeSet::new();
    for span in spans {
        names.insert(&span.name[..]);
        assert!(
            span.start_time_unix_nano <= span.end_time_unix_nano,
            "{span:?}"
        );
        let job = Value::StringValue("counted".to_owned());
        assert_eq!(attributes(span).get("onceflow.job"), Some(&job));
        let parent = by_id.get(&span.parent_span_id);
        let wanted = match &span.name[..] {
            "cycle" | "recovery" => None,
            "commit" => Some("cycle"),
            "fence" | "open" | "replay" => Some("recovery"),
            // Both a start and a commit have one.
            "positions" => Some(parent.map_or("no span", |parent| &parent.name[..])),
            _ => Some("commit"),
        };
        assert_eq!(parent.map(|parent| &parent.name[..]), wanted, "{span:?}");
        if let Some(parent) = parent {
            assert_eq!(parent.trace_id, span.trace_id);
            assert!(
                parent.start_time_unix_nano <= span.start_time_unix_nano,
                "{span:?}"
            );
            assert!(
                span.end_time_unix_nano <= parent.end_time_unix_nano,
                "{span:?}"
            );
        }
    }
    names
}

#[test]
fn a_collector_gets_cycles_commits_with_their_phases_and_the_start() {
    let collector = Collector::listen();
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let otlp = Otlp::to(&collector.url()).header("authorization", "Bearer abc");
    let traces = running.export_traces(&otlp).unwrap();
    until("some cycles are told", || collector.count("cycle") >= 10);
    drop(traces);
    let told = collector.count("cycle");
    wait(running.stop()).unwrap();
    assert_eq!(collector.count("cycle"), told, "nobody tells any more");
    collector.check_requests();
    let spans = collector.spans();
    let names = check_nesting(&spans);
    for name in [
        "cycle", "commit", "flush", "sync", "decide", "recovery", "open",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    assert_eq!(
        spans.iter().filter(|span| span.name == "recovery").count(),
        1
    );
    let cycle = spans.iter().find(|span| span.name == "cycle").unwrap();
    let told = attributes(cycle);
    assert!(
        matches!(told.get("onceflow.records"), Some(Value::IntValue(1..))),
        "{told:?}"
    );
    assert!(told.contains_key("onceflow.close_reason"), "{told:?}");
}

#[test]
fn a_collector_that_refuses_or_is_gone_disturbs_no_job() {
    let collector = Collector::listen();
    collector.status.store(400, Ordering::Release);
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let refused = running.export_traces(&Otlp::to(&collector.url())).unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = running
        .export_traces(&Otlp::to(&format!("http://{nobody}")))
        .unwrap();
    let commits = running.progress().commits;
    until("it commits on", || {
        running.progress().commits > commits + 30
    });
    collector.status.store(200, Ordering::Release);
    until("it takes them again", || collector.count("cycle") > 0);
    drop((refused, gone));
    wait(running.stop()).unwrap();
    let running = start(&log);
    let error = running
        .export_traces(&Otlp::to("127.0.0.1:4318"))
        .unwrap_err();
    assert!(error.to_string().contains("begins neither"), "{error}");
    wait(running.stop()).unwrap();
}
