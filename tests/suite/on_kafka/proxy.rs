//! `Proxy`: stands between clients and a broker, and drops, holds back or repeats what it is told to, frame by frame.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Kafka's numbers of the requests that rules are made for.
pub(super) const PRODUCE: i16 = 0;
pub(super) const END_TXN: i16 = 26;
pub(super) const TXN_OFFSET_COMMIT: i16 = 28;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It passes.
    Pass,
    /// It never arrives, and its connection is cut.
    Drop,
    /// It arrives, but its answer does not: the connection is cut instead.
    LoseAnswer,
    /// It is kept, and arrives when [`Proxy::release`] says so, on a connection of its own. The client waits in vain.
    Hold,
}

#[derive(Default)]
struct Rules {
    /// The next requests of an API meet these fates, in this order.
    next: VecDeque<(i16, Fate)>,
    held: Vec<Vec<u8>>,
    /// How many requests of rules have met their fates.
    met: usize,
}

/// A proxy in front of one broker.
pub(super) struct Proxy {
    port: u16,
    rules: Arc<Mutex<Rules>>,
    /// Nothing passes, in either direction.
    is_cut: Arc<AtomicBool>,
    /// Connections refused while the network was cut.
    refused: Arc<AtomicUsize>,
    upstream: Arc<Mutex<Option<String>>>,
}

impl Proxy {
    /// Listens; the broker behind it is named later, for it must know the proxy's address first.
    pub(super) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            rules: Arc::default(),
            is_cut: Arc::default(),
            refused: Arc::default(),
            upstream: Arc::default(),
        };
        let (rules, is_cut) = (Arc::clone(&proxy.rules), Arc::clone(&proxy.is_cut));
        let (upstream, refused) = (Arc::clone(&proxy.upstream), Arc::clone(&proxy.refused));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Some(broker) = upstream.lock().clone() else {
                    continue;
                };
                if is_cut.load(Ordering::Acquire) {
                    refused.fetch_add(1, Ordering::AcqRel);
                    continue;
                }
                let (rules, is_cut) = (Arc::clone(&rules), Arc::clone(&is_cut));
                std::thread::spawn(move || {
                    // A connection that breaks is what this is about.
                    drop(connect(client, &broker, &rules, &is_cut));
                });
            }
        });
        proxy
    }

    /// The setting that makes the broker tell its clients of the proxy instead of itself.
    pub(super) fn advertised(&self) -> (String, String) {
        let address = format!("PLAINTEXT://{}", self.address());
        ("advertised.listeners".to_owned(), address)
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn lead_to(&self, broker: String) {
        *self.upstream.lock() = Some(broker);
    }

    /// The next requests of `api` meet `fates`, in this order.
    pub(super) fn expect(&self, api: i16, fates: impl IntoIterator<Item = Fate>) {
        let mut rules = self.rules.lock();
        rules.next.extend(fates.into_iter().map(|fate| (api, fate)));
    }

    /// How many requests have met the fates that were ordered for them.
    pub(super) fn met(&self) -> usize {
        self.rules.lock().met
    }

    /// Sends on what is held, and returns the error code at byte `at` of each answer's body.
    pub(super) fn release(&self, at: usize) -> Vec<i16> {
        let held = std::mem::take(&mut self.rules.lock().held);
        let broker = self.upstream.lock().clone().unwrap();
        let mut codes = Vec::new();
        for frame in held {
            let mut stream = TcpStream::connect(&broker).unwrap();
            write_frame(&mut stream, &frame).unwrap();
            let answer = read_frame(&mut stream).unwrap();
            let code = answer[at..at + 2].try_into().unwrap();
            codes.push(i16::from_be_bytes(code));
        }
        codes
    }

    /// How often somebody tried to connect while the network was cut.
    pub(super) fn refused(&self) -> usize {
        self.refused.load(Ordering::Acquire)
    }

    /// Cuts the network, or mends it.
    pub(super) fn set_cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Release);
    }
}

fn connect(
    client: TcpStream,
    broker: &str,
    rules: &Arc<Mutex<Rules>>,
    is_cut: &Arc<AtomicBool>,
) -> io::Result<()> {
    let broker = TcpStream::connect(broker)?;
    for stream in [&client, &broker] {
        stream.set_nodelay(true)?;
    }
    // Answers that are lost: how many came before, and whether the next one is.
    let loses = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = (broker.try_clone()?, client.try_clone()?);
    let (lost, cut) = (Arc::clone(&loses), Arc::clone(is_cut));
    std::thread::spawn(move || {
        while let Ok(answer) = read_frame(&mut from) {
            let ends = lost.load(Ordering::Acquire) || cut.load(Ordering::Acquire);
            if ends || write_frame(&mut to, &answer).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Both));
        drop(from.shutdown(Shutdown::Both));
    });
    let result = pass_requests(
        client.try_clone()?,
        broker.try_clone()?,
        rules,
        is_cut,
        &loses,
    );
    if !loses.load(Ordering::Acquire) {
        drop(client.shutdown(Shutdown::Both));
    }
    result
}

fn pass_requests(
    mut client: TcpStream,
    mut broker: TcpStream,
    rules: &Mutex<Rules>,
    is_cut: &AtomicBool,
    loses: &AtomicBool,
) -> io::Result<()> {
    loop {
        let request = read_frame(&mut client)?;
        if is_cut.load(Ordering::Acquire) {
            return Ok(());
        }
        let api = i16::from_be_bytes([request[0], request[1]]);
        match fate(rules, api, &request) {
            Fate::Pass => write_frame(&mut broker, &request)?,
            Fate::Drop => return Ok(()),
            Fate::LoseAnswer => {
                loses.store(true, Ordering::Release);
                return write_frame(&mut broker, &request);
            }
            // The client hears nothing more on this connection.
            Fate::Hold => loop {
                read_frame(&mut client)?;
            },
        }
    }
}

fn fate(rules: &Mutex<Rules>, api: i16, request: &[u8]) -> Fate {
    let mut rules = rules.lock();
    let place = rules.next.iter().position(|(next, _)| *next == api);
    let Some((_, fate)) = place.and_then(|place| rules.next.remove(place)) else {
        return Fate::Pass;
    };
    rules.met += 1;
    if fate == Fate::Hold {
        rules.held.push(request.to_vec());
    }
    fate
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut frame = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let size = u32::try_from(frame.len()).unwrap();
    stream.write_all(&[&size.to_be_bytes()[..], frame].concat())
}

/// Waits until `condition` holds.
pub(super) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
