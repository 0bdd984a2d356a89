//! Hostile clients: each attack is a test against a broker of its own, in its own process. After it the broker must be
//! alive, must not have panicked, must not have grown beyond its bounds, and must serve an honest client as before.

mod access;
mod decoding;
mod framing;
mod load;
mod names;
mod progress;
mod records;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic,
};
use onceflow::internals::protocol::wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic,
};
use onceflow::internals::protocol::wire::messages::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use onceflow::internals::protocol::wire::{Request, decode_response, encode_request};
use onceflow::types::Timestamp;
use tempfile::TempDir;

/// Nothing that must happen takes so long, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of all requests together (`queued.max.request.bytes`).
const REQUESTS_BYTES_MAX: u64 = 32 << 20;
/// Most bytes of all answers that wait for slow readers, beyond the least that each is given.
const ANSWERS_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of a connection that does nothing.
const CONNECTION_BYTES_MAX: u64 = 32 << 10;
/// Bytes for a reader, however little is left.
const ANSWER_BYTES_MIN: u64 = 256 << 10;

/// Returns the growth that attackers may cause by the broker's settings: all requests, all answers, and what each
/// connection and each slow reader is granted; and a tenth, for what an allocator loses.
fn growth_bytes_max(connections: usize, readers: usize) -> u64 {
    let connections = connections as u64 * CONNECTION_BYTES_MAX;
    let readers = readers as u64 * ANSWER_BYTES_MIN;
    (REQUESTS_BYTES_MAX + ANSWERS_BYTES_MAX + connections + readers) / 10 * 11
}

/// A broker under attack.
struct Target {
    directory: TempDir,
    child: Child,
    address: String,
    complaints: Arc<Mutex<Vec<String>>>,
    rss_before: u64,
    _out: BufReader<ChildStdout>,
}

impl Target {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), arguments)
    }

    fn start_in(directory: TempDir, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_onceflow"))
            .args([
                "broker",
                "--listen",
                "127.0.0.1:0",
                "--durability",
                "process",
                "--set",
                &format!("queued.max.request.bytes={REQUESTS_BYTES_MAX}"),
                "--set",
                &format!("queued.max.response.bytes={ANSWERS_BYTES_MAX}"),
            ])
            .args(arguments)
            .arg("--data")
            .arg(directory.path().join("data"))
            .env_remove("ONCEFLOW_DATA")
            .env("ONCEFLOW_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&complaints);
        let err = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ");
        let address = address.unwrap_or_else(|| panic!("{line:?}, {complaints:?}"));
        let mut target = Self {
            address: address.to_owned(),
            directory,
            child,
            complaints,
            rss_before: 0,
            _out: out,
        };
        if !arguments.contains(&"--sasl") {
            // What an honest client costs is not the attacker's.
            target.serve_an_honest_client();
        }
        target.rss_before = target.rss_bytes();
        target
    }

    fn connect(&self) -> Raw {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Raw { stream }
    }

    /// The memory that the process has in RAM.
    fn rss_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    fn growth_bytes(&self) -> u64 {
        self.rss_bytes().saturating_sub(self.rss_before)
    }

    /// Writes and reads a record as a client does; how long that took.
    fn serve_an_honest_client(&self) -> Duration {
        let mut client = self.connect();
        let begin = Instant::now();
        client.create_topic("honest");
        let produced = client.produce("honest", batch(&[b"honest"]));
        assert_eq!(produced, 0, "{:?}", self.complaints);
        let fetched = client.request(12, &fetch("honest", 0, 1 << 20)).unwrap();
        let partition = &fetched.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        assert!(!partition.records.is_empty());
        begin.elapsed()
    }

    /// The attack is over: all must be as it was.
    fn assert_unharmed(self) {
        self.assert_unharmed_beside(200, 0);
    }

    /// All must be as it was, after an attack over so many connections at a time, so many of which read.
    fn assert_unharmed_beside(mut self, connections: usize, readers: usize) {
        let (growth, most) = (self.growth_bytes(), growth_bytes_max(connections, readers));
        assert!(
            growth <= most,
            "it grew by {growth} bytes, more than {most}"
        );
        let took = self.serve_an_honest_client();
        assert!(took < PATIENCE / 3, "an honest client waited {took:?}");
        self.assert_alive_without_a_panic();
    }

    fn assert_alive_without_a_panic(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it died");
        let complaints = self.complaints.lock().unwrap();
        assert!(
            !complaints.iter().any(|line| line.contains("panicked")),
            "{complaints:?}"
        );
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may be gone already, which the tests look at before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that sends what it likes.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    fn send(&mut self, bytes: &[u8]) {
        // The broker may have hung up already: what it does is looked at elsewhere.
        let _ = self.stream.write_all(bytes);
    }

    fn send_frame(&mut self, body: &[u8]) {
        let size = i32::try_from(body.len()).unwrap();
        self.send(&[&size.to_be_bytes(), body].concat());
    }

    /// The next answer's body; `None` if the broker hung up.
    fn receive(&mut self) -> Option<Bytes> {
        let mut size = [0; 4];
        self.read_exact(&mut size)?;
        let mut body = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
        self.read_exact(&mut body)?;
        Some(body.into())
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) => {
                let is_late = matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
                assert!(!is_late, "no answer came, and no end either");
                None
            }
        }
    }

    /// The broker hung up, and answered nothing.
    fn is_cut(&mut self) -> bool {
        self.receive().is_none()
    }

    /// Nothing more comes from this side; the answers still do.
    fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn request<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        let frame = encode_request(version, 1, Some("hostile"), request).unwrap();
        self.send_frame(&frame.to_bytes());
        let answer = self.receive()?;
        Some(decode_response::<R>(version, answer).unwrap().1)
    }

    fn create_topic(&mut self, name: &str) -> i16 {
        let begin = Instant::now();
        loop {
            let request = MetadataRequest {
                topics: Some(vec![MetadataRequestTopic {
                    name: Some(name.to_owned()),
                    ..MetadataRequestTopic::default()
                }]),
                allow_auto_topic_creation: true,
                ..MetadataRequest::default()
            };
            let code = self.request(9, &request).unwrap().topics[0].error_code;
            // 5: its leader is being chosen.
            if code != 5 || begin.elapsed() > PATIENCE {
                return code;
            }
        }
    }

    /// Produces to partition 0; the error code.
    fn produce(&mut self, topic: &str, records: Bytes) -> i16 {
        let response = self.request(9, &produce(topic, records)).unwrap();
        response.responses[0].partition_responses[0].error_code
    }

    fn fetch(&mut self, topic: &str, offset: i64) -> FetchResponse {
        self.request(12, &fetch(topic, offset, 1 << 20)).unwrap()
    }
}

fn produce(topic: &str, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

fn fetch(topic: &str, offset: i64, max_bytes: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                fetch_offset: offset,
                partition_max_bytes: max_bytes,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// A sound batch of these values.
fn batch(values: &[&[u8]]) -> Bytes {
    compressed(values, Compression::None)
}

fn compressed(values: &[&[u8]], compression: Compression) -> Bytes {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_millis()).unwrap();
    let mut builder = BatchBuilder::new(compression, None);
    for value in values {
        builder.push(Timestamp(now), None, Some(value));
    }
    builder.finish(BatchProducer::Plain).freeze()
}

/// The head of a request without a client id.
fn head(api_key: i16, version: i16) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend(api_key.to_be_bytes());
    head.extend(version.to_be_bytes());
    head.extend(7i32.to_be_bytes());
    head.extend((-1i16).to_be_bytes());
    head
}
