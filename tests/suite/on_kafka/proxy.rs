//! `Proxy`: stands between clients and a broker, and drops, delays, repeats, reorders or forges what it is told to.
//!
//! Requests are told apart by their API. Answers go to the client in the order of its requests, whatever the order in
//! which the broker saw them; those to copies go to nobody.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::support::raw::{exchange, read_frame, write_frame};

/// Kafka's numbers of the requests that rules are made for.
pub(super) const PRODUCE: i16 = 0;
pub(super) const METADATA: i16 = 3;
pub(super) const INIT_PRODUCER_ID: i16 = 22;
pub(super) const END_TXN: i16 = 26;
pub(super) const TXN_OFFSET_COMMIT: i16 = 28;

/// Long enough for a loaded machine; nothing waits so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Wait of a request that is to be overtaken for another.
const OVERTAKING_MAX: Duration = Duration::from_millis(50);

/// Fate of a request.
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
    /// It, and all behind it, arrive so much later.
    Delay(Duration),
    /// It arrives twice.
    Repeat,
    /// The next request of its connection arrives before it.
    Overtake,
    /// It does not arrive; the client gets [`Proxy::forge`]'s answer.
    Forge,
}

/// Makes the bytes of an answer from those of the request.
type Forgery = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

#[derive(Default)]
struct Rules {
    /// The next requests of an API meet these fates, in this order.
    next: VecDeque<(i16, Fate)>,
    held: Vec<Vec<u8>>,
    forgery: Option<Forgery>,
    /// One in so many requests of jobs meets a fate by chance; 0: none.
    one_in: u64,
    chance: u64,
    /// Requests that have met their fates, by rules and by chance.
    met: BTreeMap<&'static str, usize>,
}

impl Rules {
    fn fate(&mut self, api: i16, request: &[u8]) -> Fate {
        let place = self.next.iter().position(|(next, _)| *next == api);
        let ruled = place.and_then(|place| self.next.remove(place));
        let fate = ruled.map_or_else(|| self.by_chance(api), |(_, fate)| fate);
        if ruled.is_some() || fate != Fate::Pass {
            *self.met.entry(name_of(fate)).or_default() += 1;
        }
        if fate == Fate::Hold {
            self.held.push(request.to_vec());
        }
        fate
    }

    /// Copies of other requests than these are no network's doing: two of InitProducerId fence each other.
    fn by_chance(&mut self, api: i16) -> Fate {
        if self.one_in == 0 {
            return Fate::Pass;
        }
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let drawn = self.chance >> 33;
        let may_be_copied = [PRODUCE, END_TXN, TXN_OFFSET_COMMIT].contains(&api);
        // Those that write are rarer, and more is at stake.
        let one_in = match may_be_copied {
            true => self.one_in.div_ceil(4),
            false => self.one_in,
        };
        if !drawn.is_multiple_of(one_in) {
            return Fate::Pass;
        }
        match drawn / one_in % 5 {
            0 => Fate::Drop,
            1 => Fate::LoseAnswer,
            2 if may_be_copied => Fate::Repeat,
            3 if may_be_copied => Fate::Overtake,
            _ => Fate::Delay(Duration::from_millis(drawn / one_in / 5 % 200)),
        }
    }
}

fn name_of(fate: Fate) -> &'static str {
    match fate {
        Fate::Pass => "passed",
        Fate::Drop => "dropped",
        Fate::LoseAnswer => "lost its answer",
        Fate::Hold => "held",
        Fate::Delay(_) => "delayed",
        Fate::Repeat => "repeated",
        Fate::Overtake => "overtaken",
        Fate::Forge => "forged",
    }
}

/// State of all connections of a proxy.
#[derive(Default)]
struct Shared {
    rules: Mutex<Rules>,
    /// Nothing passes, in either direction.
    is_cut: AtomicBool,
    /// Connections refused while the network was cut.
    refused: AtomicUsize,
    upstream: Mutex<Option<String>>,
}

impl Shared {
    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }
}

/// A proxy in front of one broker.
pub(super) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens; the broker behind it is named later, for it must know the proxy's address first.
    pub(super) fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let proxy = Self {
            port,
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Some(broker) = shared.upstream.lock().clone() else {
                    continue;
                };
                if shared.is_cut() {
                    shared.refused.fetch_add(1, Ordering::AcqRel);
                    continue;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A connection that breaks is what this is about.
                    drop(Connection::serve(client, &broker, shared));
                });
            }
        });
        proxy
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn lead_to(&self, broker: String) {
        *self.shared.upstream.lock() = Some(broker);
    }

    /// The next requests of `api` meet `fates`, in this order.
    pub(super) fn expect(&self, api: i16, fates: impl IntoIterator<Item = Fate>) {
        let mut rules = self.shared.rules.lock();
        rules.next.extend(fates.into_iter().map(|fate| (api, fate)));
    }

    /// The next requests of these APIs do not arrive, and are answered with what `forgery` makes of them.
    pub(super) fn forge(
        &self,
        apis: impl IntoIterator<Item = i16>,
        forgery: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) {
        let mut rules = self.shared.rules.lock();
        rules.forgery = Some(Box::new(forgery));
        let fates = apis.into_iter().map(|api| (api, Fate::Forge));
        rules.next.extend(fates);
    }

    /// Rules for requests that did not come are no more.
    pub(super) fn forget(&self) {
        self.shared.rules.lock().next.clear();
    }

    /// From now on one in so many requests is dropped, delayed, repeated, overtaken or loses its answer; 0: none is.
    pub(super) fn disturb(&self, one_in: u64, seed: u64) {
        let mut rules = self.shared.rules.lock();
        (rules.one_in, rules.chance) = (one_in, seed);
    }

    /// Counts the requests with a fate.
    pub(super) fn met(&self) -> usize {
        self.shared.rules.lock().met.values().sum()
    }

    /// Counts the requests by fate.
    pub(super) fn met_by_fate(&self) -> BTreeMap<&'static str, usize> {
        self.shared.rules.lock().met.clone()
    }

    /// Sends on what is held, and returns the error code at byte `at` of each answer's body.
    pub(super) fn release(&self, at: usize) -> Vec<i16> {
        let held = std::mem::take(&mut self.shared.rules.lock().held);
        let broker = self.shared.upstream.lock().clone().unwrap();
        let mut codes = Vec::new();
        for frame in held {
            let answer = exchange(&broker, &frame).unwrap();
            let code = answer[at..at + 2].try_into().unwrap();
            codes.push(i16::from_be_bytes(code));
        }
        codes
    }

    /// Counts the attempts to connect while the network was cut.
    pub(super) fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Acquire)
    }

    /// Cuts the network, or mends it.
    pub(super) fn set_cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::Release);
    }
}

/// Where the answers go.
#[derive(Default)]
struct Answers {
    /// The correlation ids that the client waits for, in the order of its requests.
    wanted: VecDeque<[u8; 4]>,
    /// Answers that came before an earlier request's.
    early: BTreeMap<[u8; 4], Vec<u8>>,
    /// The next answer is not passed on; the connection ends.
    is_losing: bool,
}

impl Answers {
    /// Takes `answer`; returns what may go to the client now.
    fn take(&mut self, answer: Vec<u8>) -> Vec<Vec<u8>> {
        let id: [u8; 4] = answer[..4].try_into().unwrap();
        // A copy's answer is nobody's.
        if self.wanted.contains(&id) {
            self.early.insert(id, answer);
        }
        let mut due = Vec::new();
        while let Some(id) = self.wanted.front()
            && let Some(answer) = self.early.remove(id)
        {
            self.wanted.pop_front();
            due.push(answer);
        }
        due
    }
}

/// One client's connection, and the proxy's own to the broker.
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    answers: Arc<Mutex<Answers>>,
    shared: Arc<Shared>,
}

impl Connection {
    fn serve(client: TcpStream, broker: &str, shared: Arc<Shared>) -> io::Result<()> {
        let broker = TcpStream::connect(broker)?;
        for stream in [&client, &broker] {
            stream.set_nodelay(true)?;
        }
        let answers = Arc::<Mutex<Answers>>::default();
        let mut back = Self {
            client: client.try_clone()?,
            broker: broker.try_clone()?,
            answers: Arc::clone(&answers),
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || {
            drop(back.pass_answers());
            drop(back.client.shutdown(Shutdown::Both));
            drop(back.broker.shutdown(Shutdown::Both));
        });
        let mut there = Self {
            client,
            broker,
            answers,
            shared,
        };
        let result = there.pass_requests();
        if !there.answers.lock().is_losing {
            drop(there.client.shutdown(Shutdown::Both));
            drop(there.broker.shutdown(Shutdown::Both));
        }
        result
    }

    fn pass_answers(&mut self) -> io::Result<()> {
        loop {
            let answer = read_frame(&mut self.broker)?;
            if self.answers.lock().is_losing || self.shared.is_cut() {
                return Ok(());
            }
            self.deliver(answer)?;
        }
    }

    /// The lock is held while the answers are written, so that they keep their order.
    fn deliver(&self, answer: Vec<u8>) -> io::Result<()> {
        let mut answers = self.answers.lock();
        for answer in answers.take(answer) {
            write_frame(&mut &self.client, &answer)?;
        }
        Ok(())
    }

    fn pass_requests(&mut self) -> io::Result<()> {
        loop {
            let request = read_frame(&mut self.client)?;
            if self.shared.is_cut() {
                return Ok(());
            }
            let api = i16::from_be_bytes([request[0], request[1]]);
            let fate = self.shared.rules.lock().fate(api, &request);
            self.want(&request);
            match fate {
                Fate::Pass => self.pass(&request)?,
                Fate::Drop => return Ok(()),
                Fate::LoseAnswer => {
                    self.answers.lock().is_losing = true;
                    return self.pass(&request);
                }
                // The client hears nothing more on this connection.
                Fate::Hold => loop {
                    read_frame(&mut self.client)?;
                },
                Fate::Delay(time) => {
                    std::thread::sleep(time);
                    self.pass(&request)?;
                }
                Fate::Repeat => {
                    self.pass(&request)?;
                    self.pass(&request)?;
                }
                Fate::Overtake => self.let_overtake(&request)?,
                Fate::Forge => {
                    let rules = self.shared.rules.lock();
                    let answer = rules.forgery.as_ref().map(|forge| forge(&request));
                    drop(rules);
                    self.deliver(answer.expect("`forge` was called"))?;
                }
            }
        }
    }

    fn want(&self, request: &[u8]) {
        let id: [u8; 4] = request[4..8].try_into().unwrap();
        self.answers.lock().wanted.push_back(id);
    }

    fn pass(&self, request: &[u8]) -> io::Result<()> {
        write_frame(&mut &self.broker, request)
    }

    /// The next request goes first, if it comes soon.
    fn let_overtake(&mut self, request: &[u8]) -> io::Result<()> {
        self.client.set_read_timeout(Some(OVERTAKING_MAX))?;
        let is_followed = matches!(self.client.peek(&mut [0]), Ok(1));
        self.client.set_read_timeout(None)?;
        if is_followed {
            let next = read_frame(&mut self.client)?;
            self.want(&next);
            self.pass(&next)?;
        }
        self.pass(request)
    }
}

/// Waits until `condition` holds.
pub(super) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
