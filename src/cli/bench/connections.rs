//! The broker on TCP under many connections: 1,000 that idle, 64 that work, and one beside attackers.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::future::{join_all, select};

use super::report::Figure;
use super::{Bench, millis, per_second, percentile};
use crate::broker::{Broker, BrokerConfig};
use crate::env::{Env, OpenMode};
use crate::net::{Address, ConnectTimeouts, FrameReader, FrameWriter, connect};
use crate::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use crate::protocol::messages::NewTopic;
use crate::protocol::wire::messages::api_versions::ApiVersionsRequest;
use crate::protocol::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use crate::protocol::wire::messages::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use crate::protocol::wire::{Request, decode_response, encode_request};
use crate::server::{Server, ServerConfig};
use crate::types::{Durability, TopicName};

/// Connections that do nothing.
const IDLE: u64 = 1_000;
/// Most bytes of one of them, with the client's end: the baseline of its figure.
const IDLE_BYTES_MAX: f64 = 32768.0;
/// Connections that write and read, one request after the other.
const BUSY: usize = 64;
/// Connections that attack, beside one that writes and reads.
const ATTACKERS: usize = 8;
/// Rounds of all busy connections together; the one beside attackers does a 32nd of them.
const ROUNDS: u64 = 64_000;
/// The kernel's words about a process.
const STATUS_BYTES_MAX: usize = 64 << 10;
const RECORD_BYTES: usize = 16 << 10;
const TOPIC: &str = "connections";

/// Measures a server that many are connected to.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    let config = BrokerConfig {
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    let data = bench.directory.join("connections");
    let broker = Broker::open(bench.env.clone(), &data, config)?;
    broker.create_topic(&NewTopic {
        name: TopicName::new(TOPIC)?,
        partitions_count: 1,
        configs: Default::default(),
    })?;
    let config = ServerConfig::on("127.0.0.1:0")?;
    let server = Server::start(bench.env, &broker, &data, config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        let figures = measure_all(bench, &server.address()).await;
        server.stop().await;
        figures
    });
    broker.close()?;
    figures
}

async fn measure_all(bench: &Bench<'_>, address: &Address) -> anyhow::Result<Vec<Figure>> {
    let env = bench.env;
    let rounds = bench.scaled(ROUNDS);
    let few = rounds.div_ceil(32);
    let alone = work(env, address, BUSY, rounds).await?;
    let calm = work(env, address, 1, few).await?;
    let before = resident_bytes(env)?;
    let idle = connect_idle(address, bench.scaled(IDLE)).await?;
    let grown = resident_bytes(env)?.saturating_sub(before);
    let beside_idle = work(env, address, BUSY, rounds).await?;
    let attacked = beside_attackers(env, address, few).await?;
    let idle_bytes = grown / idle.len().max(1) as u64;
    drop(idle);
    Ok(vec![
        Figure::new("connections.rounds", beside_idle.rate(), "1/s").against(alone.rate()),
        Figure::new("connections.p99", beside_idle.p99(), "ms").against(alone.p99()),
        Figure::new("connections.least_share", beside_idle.least_share(), "x")
            .against(alone.least_share()),
        Figure::new("connections.idle", exact(idle_bytes.max(1)), "bytes").against(IDLE_BYTES_MAX),
        Figure::new("connections.attacked_p99", attacked.p99(), "ms").against(calm.p99()),
    ])
}

/// Work of some connections.
struct Worked {
    /// Rounds of each.
    counts: Vec<u64>,
    /// Of each round, sorted.
    latencies: Vec<Duration>,
    elapsed: Duration,
}

#[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
fn exact(count: u64) -> f64 {
    count as f64
}

impl Worked {
    fn rate(&self) -> f64 {
        per_second(self.counts.iter().sum(), self.elapsed)
    }

    fn p99(&self) -> f64 {
        millis(percentile(&self.latencies, 99.0))
    }

    /// The rounds of the connection that got on least, against the mean.
    fn least_share(&self) -> f64 {
        let least = self.counts.iter().min().copied().unwrap_or_default();
        let sum: u64 = self.counts.iter().sum();
        exact(least * self.counts.len() as u64) / exact(sum.max(1))
    }
}

/// Has `count` connections write a record and read one until together they have done so `rounds` times.
async fn work(env: &Env, address: &Address, count: usize, rounds: u64) -> anyhow::Result<Worked> {
    let left = std::cell::Cell::new(rounds);
    // All are there before the first one begins, so that each has its share.
    let clients = join_all((0..count).map(|_| Client::connect(address))).await;
    let begin = env.clock.now();
    let workers = clients.into_iter().map(|client| async {
        let mut client = client?;
        let mut latencies = Vec::new();
        while let Some(still) = left.get().checked_sub(1) {
            left.set(still);
            let asked = env.clock.now();
            client.round(env).await?;
            latencies.push(env.clock.now().since(asked));
        }
        anyhow::Ok(latencies)
    });
    let done = join_all(workers).await;
    let elapsed = env.clock.now().since(begin);
    let (mut counts, mut latencies) = (Vec::new(), Vec::new());
    for done in done {
        let done = done?;
        counts.push(done.len() as u64);
        latencies.extend(done);
    }
    latencies.sort_unstable();
    Ok(Worked {
        counts,
        latencies,
        elapsed,
    })
}

/// One connection works while others send what the server must refuse, on a new connection each time.
async fn beside_attackers(env: &Env, address: &Address, rounds: u64) -> anyhow::Result<Worked> {
    let attack = |_| async {
        loop {
            let Ok(mut client) = Client::connect(address).await else {
                continue;
            };
            // A request whose list has more elements than there are bytes.
            let body = [0, 3, 0, 4, 0, 0, 0, 7, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff];
            let body = [Bytes::copy_from_slice(&body)];
            if client.writer.write(&body).await.is_ok() {
                // Whatever comes, it is the end of the connection.
                let _end = client.reader.next().await;
            }
        }
    };
    let attackers = Box::pin(join_all((0..ATTACKERS).map(attack)));
    let worker = Box::pin(work(env, address, 1, rounds));
    match select(worker, attackers).await {
        futures::future::Either::Left((worked, _)) => worked,
        futures::future::Either::Right(_) => anyhow::bail!("attackers never end"),
    }
}

/// Connections that were of use once.
async fn connect_idle(address: &Address, count: u64) -> anyhow::Result<Vec<Client>> {
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(address).await?;
        client.ask(0, &ApiVersionsRequest::default()).await?;
        idle.push(client);
    }
    Ok(idle)
}

/// Returns the memory of this process, clients and server.
fn resident_bytes(env: &Env) -> anyhow::Result<u64> {
    // The file says that it has no bytes, so it is read by its place.
    let file = env
        .files
        .open(Path::new("/proc/self/status"), OpenMode::Read)?;
    let mut status = vec![0; STATUS_BYTES_MAX];
    let read = file.read_full_at(&mut status, 0)?;
    status.truncate(read);
    let status = String::from_utf8(status)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.context("the system does not say how much memory is resident")?;
    let kilobytes: u64 = kilobytes.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}

/// A client in frames.
struct Client {
    reader: FrameReader,
    writer: FrameWriter,
}

impl Client {
    async fn connect(address: &Address) -> anyhow::Result<Self> {
        let connection = connect(address, None, ConnectTimeouts::default()).await?;
        let (reader, writer) = connection.split(16 << 20);
        Ok(Self { reader, writer })
    }

    async fn ask<R: Request>(&mut self, version: i16, request: &R) -> anyhow::Result<R::Response> {
        let frame = encode_request(version, 1, Some("bench"), request)?;
        self.writer.write(&frame.chunks).await?;
        let answer = self.reader.next().await?;
        let answer = answer.context("the server hung up")?;
        Ok(decode_response::<R>(version, answer)?.1)
    }

    /// Writes a record, and reads one.
    async fn round(&mut self, env: &Env) -> anyhow::Result<()> {
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(env.clock.wall(), None, Some(&vec![b'x'; RECORD_BYTES]));
        let produce = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![TopicProduceData {
                name: TOPIC.to_owned(),
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(builder.finish(BatchProducer::Plain).freeze()),
                }],
                ..TopicProduceData::default()
            }],
            ..ProduceRequest::default()
        };
        let produced = self.ask(9, &produce).await?;
        let first = produced.responses.into_iter().next();
        let first = first.and_then(|topic| topic.partition_responses.into_iter().next());
        let first = first.context("a produce request answers for its partition")?;
        anyhow::ensure!(first.error_code == 0, "refused with {}", first.error_code);
        let fetch = FetchRequest {
            min_bytes: 1,
            max_bytes: 1 << 20,
            topics: vec![FetchTopic {
                topic: TOPIC.to_owned(),
                partitions: vec![FetchPartition {
                    fetch_offset: first.base_offset,
                    partition_max_bytes: 1,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let fetched = self.ask(11, &fetch).await?;
        anyhow::ensure!(
            fetched.error_code == 0,
            "refused with {}",
            fetched.error_code
        );
        Ok(())
    }
}
