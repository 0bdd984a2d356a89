//! Effects that are requests of HTTP, at a server that fails, delays, drops connections, and goes away.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onceflow::client::wait;
use onceflow::operators::HttpTarget;
use onceflow::prelude::*;

use super::support::{assert_told, clicks, tells};
use crate::jobs::support::{Place, committed, run, until};
use crate::time::support::{Click, feed, left_in_store, ms, topic_of_clicks};

/// The server's way with a request, once it has noted it.
#[derive(Debug, Clone)]
enum Reaction {
    Answer(u16, &'static str, &'static str),
    /// Closes the connection after these bytes.
    Drop(&'static str),
    Stall(Duration),
}

#[derive(Debug, Clone)]
struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    at: Instant,
}

impl Request {
    fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }

    fn click(&self) -> Click {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Says what is done with a click that came so many times.
type Script = fn(&Click, usize) -> Reaction;

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    done: Mutex<Vec<(String, i64, String)>>,
    connections: Mutex<Vec<TcpStream>>,
    connections_count: AtomicUsize,
    open: AtomicUsize,
    open_most: AtomicUsize,
    is_gone: AtomicBool,
}

/// A server, which is gone when it is dropped.
struct Server {
    port: u16,
    seen: Arc<Seen>,
    accepts: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn begin(script: Script) -> Self {
        Self::again(script, 0, Arc::default())
    }

    fn again(script: Script, port: u16, seen: Arc<Seen>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        seen.is_gone.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&seen);
        let accepts = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.is_gone.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                let copy = stream.try_clone().unwrap();
                shared.connections.lock().unwrap().push(copy);
                shared.connections_count.fetch_add(1, Ordering::SeqCst);
                let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
                shared.open_most.fetch_max(open, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A connection may end at any byte.
                    let _ = serve(&stream, &shared, script);
                    let _ = stream.shutdown(Shutdown::Both);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            seen,
            accepts: Some(accepts),
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/clicks", self.port)
    }

    /// Goes away: every connection breaks.
    fn kill(mut self) -> (u16, Arc<Seen>) {
        self.end();
        (self.port, Arc::clone(&self.seen))
    }

    fn end(&mut self) {
        self.seen.is_gone.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(accepts) = self.accepts.take() {
            accepts.join().unwrap();
        }
        for connection in self.seen.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(stream: &TcpStream, seen: &Seen, script: Script) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let click = request.click();
        let times = {
            let mut requests = seen.requests.lock().unwrap();
            requests.push(request.clone());
            let same = requests.iter().filter(|it| it.key() == request.key());
            same.count()
        };
        let (user, number) = click.clone();
        let done = (user, number, request.key().to_owned());
        let mut stream = stream;
        match script(&click, times) {
            Reaction::Stall(time) => {
                std::thread::sleep(time);
                return Ok(());
            }
            Reaction::Drop(bytes) => return stream.write_all(bytes.as_bytes()),
            Reaction::Answer(status, headers, body) => {
                if status / 100 == 2 {
                    seen.done.lock().unwrap().push(done);
                }
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} Some\r\n{headers}content-length: {length}\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes())?;
            }
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let at = Instant::now();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |it| it.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let line = line.trim_end().to_owned();
    Ok(Some(Request {
        line,
        headers,
        body,
        at,
    }))
}

/// Every way to answer, at the first time; then the request is carried out, or refused for good.
fn moody((_, number): &Click, times: usize) -> Reaction {
    match (number % 9, times) {
        (1, 1) => Reaction::Answer(503, "", "busy"),
        (2, 1) => Reaction::Answer(429, "retry-after: 0\r\n", ""),
        (3, _) => Reaction::Answer(404, "", "no such user"),
        (4, 1) => Reaction::Drop(""),
        (5, 1) => Reaction::Stall(ms(1_300)),
        (6, _) => Reaction::Answer(204, "", ""),
        (7, 1) => Reaction::Drop("HTTP/1.1 200 OK\r\ncontent-le"),
        (8, 1) => Reaction::Answer(408, "connection: close\r\n", ""),
        _ => Reaction::Answer(200, "", "thank you"),
    }
}

fn policy() -> EffectPolicy {
    EffectPolicy::parallel(8)
        .timeout(ms(1_000))
        .pause(ms(1), ms(10))
}

#[test]
fn o6_o11_requests_are_made_again_or_never_by_their_status_in_order_under_one_key() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let all = clicks(0, 90, 13);
    feed(&log, "in", 0, &all);
    let server = Server::begin(moody);
    let base = server.url();
    let target = HttpTarget::post(&base)
        .url(move |effect: &Effect<String, Click>| {
            format!("{base}/{}?n={}", effect.key, effect.value.1)
        })
        .header("Authorization", "Bearer 7f3a")
        .connections_max(4);
    run(tells(target, policy(), false).workers(2), &log).unwrap();
    let requests = server.seen.requests.lock().unwrap().clone();
    let mut bodies = BTreeMap::new();
    let mut told = Vec::new();
    for request in &requests {
        let (user, number) = request.click();
        assert_eq!(
            request.line,
            format!("POST /clicks/{user}?n={number} HTTP/1.1")
        );
        assert_eq!(request.headers["authorization"], "Bearer 7f3a");
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(
            request.headers["host"],
            format!("127.0.0.1:{}", server.port)
        );
        let body = bodies.entry(request.key().to_owned());
        let first = body.or_insert_with(|| request.body.clone());
        assert_eq!(first, &request.body, "one key, one body");
        told.push((user, number, request.key().to_owned()));
    }
    let keys = assert_told(&told, &all);
    let done = server.seen.done.lock().unwrap().clone();
    let fine: Vec<Click> = all.iter().filter(|it| it.1 % 9 != 3).cloned().collect();
    assert_told(&done, &fine);
    let mut dead = BTreeSet::new();
    for seen in committed(&log, "dead") {
        let click = seen.value::<Click>();
        let why = seen.header("onceflow.failed");
        assert!(why.contains("answered 404: no such user"), "{why}");
        assert_eq!(seen.header("onceflow.effect"), keys[&click]);
        assert!(dead.insert(click.1));
    }
    assert!(
        dead.into_iter()
            .eq((0..90).filter(|number| number % 9 == 3))
    );
    let most = server.seen.open_most.load(Ordering::SeqCst);
    // A connection that the server has not closed yet was given up by the client.
    assert!(most <= 16, "{most} connections at a time");
    let connections = server.seen.connections_count.load(Ordering::SeqCst);
    assert!(
        connections < requests.len() / 2,
        "{connections} for {}",
        requests.len()
    );
    assert_eq!(left_in_store(&log, "tells", "tell"), 0);
}

fn asks_for_a_second(_: &Click, times: usize) -> Reaction {
    match times {
        1 => Reaction::Answer(429, "retry-after: 1\r\n", "slowly"),
        _ => Reaction::Answer(200, "", ""),
    }
}

#[test]
fn o11_a_server_that_asks_for_a_pause_gets_it() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &clicks(0, 1, 1));
    let server = Server::begin(asks_for_a_second);
    run(tells(HttpTarget::post(server.url()), policy(), false), &log).unwrap();
    let requests = server.seen.requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= ms(990), "{pause:?}");
}

fn fine(_: &Click, _: usize) -> Reaction {
    Reaction::Answer(200, "", "")
}

#[test]
fn o6_o11_o12_a_server_that_goes_away_and_comes_back_gets_every_request_in_order() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let mut all = Vec::new();
    let mut feed_some = || {
        let some = clicks(i64::try_from(all.len()).unwrap(), 200, 7);
        feed(&log, "in", 0, &some);
        all.extend(some);
        all.len()
    };
    let mut server = Server::begin(fine);
    let target = HttpTarget::post(server.url());
    feed_some();
    let running = tells(target, policy(), true).start(&log).unwrap();
    for _ in 0..4 {
        let before = server.seen.done.lock().unwrap().len();
        feed_some();
        until("some are told", || {
            server.seen.done.lock().unwrap().len() > before + 20
        });
        let (port, seen) = server.kill();
        let commits = running.commits();
        feed_some();
        until("commits go on without the server", || {
            running.commits() > commits && running.progress().undelivered_effects >= 200
        });
        server = Server::again(fine, port, seen);
    }
    until("all are told", || {
        running.progress().undelivered_effects == 0
    });
    let count = feed_some();
    until("the last ones, too", || {
        let done = server.seen.done.lock().unwrap();
        let numbers: BTreeSet<i64> = done.iter().map(|(_, number, _)| *number).collect();
        numbers.len() == count && running.progress().undelivered_effects == 0
    });
    wait(running.stop()).unwrap();
    let done = server.seen.done.lock().unwrap().clone();
    assert_told(&done, &all);
    assert_eq!(committed(&log, "dead").len(), 0);
}
