//! Random requests to our broker and to a real Kafka, side by side: whatever a client can see must be the same, or be on
//! the list of differences with a reason (`accepted.rs`).
//!
//! A seed makes a round: a topic with settings, and up to two dozen requests about it, many of them wrong. Each is sent
//! to both brokers, and the answers are compared; in the end everything that readers see. A round that differs is made
//! smaller and printed with its seed. `ONCEFLOW_DIFFERENTIAL_SEED=n` plays that round alone, with
//! `ONCEFLOW_DIFFERENTIAL_SECONDS` it and those that follow;
//! `ONCEFLOW_DIFFERENTIAL_SECONDS=n` plays for so long (`make differential`: ten minutes).

mod accepted;
mod ask;
mod ask_administration;
mod ask_records;
mod ask_transactions;
mod batches;
mod dice;
mod generate;
mod named;
mod run;
mod seen;
mod side;
mod steps;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onceflow::broker::{Broker, BrokerConfig};
use onceflow::client::wait;
use onceflow::server::{Server, ServerConfig};
use onceflow::testing::Env;
use onceflow::types::Durability;

use self::run::Pair;
use super::world;

const SEED_VARIABLE: &str = "ONCEFLOW_DIFFERENTIAL_SEED";
const SECONDS_VARIABLE: &str = "ONCEFLOW_DIFFERENTIAL_SECONDS";
/// Longest time for rounds unless the environment says otherwise.
const SECONDS: u64 = 75;
/// The seeds of the rounds that every run plays, so that what it finds does not depend on the day. Random ones are played
/// where the environment says for how long.
const FIXED_SEEDS: RangeInclusive<u64> = 1..=100;
/// The most rounds that differ before the run ends: enough to look at.
const FAILURES_MAX: usize = 60;

/// Seeds of rounds that differed once; they are played first.
const KEPT_SEEDS: &[u64] = &[
    1_795_771_153_161_113,
    1_795_771_153_161_222,
    1_795_771_153_161_318,
    1_795_771_153_161_475,
    1_795_771_153_161_784,
    1_795_771_153_162_421,
    1_795_771_153_162_422,
    1_795_772_099_907_012,
    1_795_772_099_907_054,
    1_795_772_099_907_474,
    1_795_772_099_907_777,
    1_795_772_099_907_840,
    1_795_787_437_933_005,
    1_795_787_437_933_240,
];

#[test]
fn random_requests_are_answered_as_kafka_answers_them() {
    if !world::has_kafka() {
        return;
    }
    let served = Served::start();
    let base_time = now() - side::NOW_AFTER;
    let mut pair = Pair::new(&world::kafka(), &served.address(), base_time);
    let failures = play_all(&mut pair);
    for it in accepted::all() {
        let kinds = pair.met.get(it.name);
        let times: usize = kinds.into_iter().flat_map(BTreeMap::values).sum();
        println!("accepted {times} times: {} ({})", it.name, it.reason);
        for (kind, times) in kinds.into_iter().flatten() {
            println!("    {times} times: {kind}");
        }
    }
    served.stop();
    assert!(
        failures.is_empty(),
        "our broker and Kafka differ:\n{}",
        failures.join("\n")
    );
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// Plays the rounds of all seeds and gives what differed.
fn play_all(pair: &mut Pair) -> Vec<String> {
    let variable = |name| {
        std::env::var(name)
            .ok()
            .map(|value| value.parse::<u64>().unwrap())
    };
    let one = variable(SEED_VARIABLE);
    let seconds = variable(SECONDS_VARIABLE);
    let first = now().unsigned_abs() * 1000;
    let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let kept = KEPT_SEEDS.iter().copied().chain(FIXED_SEEDS);
    let seeds: Box<dyn Iterator<Item = u64>> = match (one, seconds) {
        (Some(seed), None) => Box::new(std::iter::once(seed)),
        (Some(seed), Some(_)) => Box::new(seed..),
        (None, None) => Box::new(kept),
        (None, Some(_)) => Box::new(kept.chain(first..)),
    };
    let seeds = seeds.take_while(|_| Instant::now() < deadline);
    let (mut failures, mut rounds) = (Vec::new(), 0);
    for seed in seeds {
        rounds += 1;
        let round = generate::round(seed);
        let Some(difference) = pair.play(&round) else {
            continue;
        };
        let (round, difference) = pair.shrink(round, difference);
        let mut text = format!("{SEED_VARIABLE}={seed}\n  topic: {:?}\n", round.settings);
        for step in &round.steps {
            text += &format!("  step: {step:?}\n");
        }
        println!("{text}{difference}");
        failures.push(format!("{text}{difference}"));
        if failures.len() == FAILURES_MAX {
            break;
        }
    }
    println!("{rounds} rounds were played: kept seeds, {FIXED_SEEDS:?}, then from {first} on");
    failures
}

/// Our own broker, over TCP.
struct Served {
    broker: Broker,
    server: Server,
    _directory: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let env = Env::real();
        let config = BrokerConfig {
            durability: Durability::Process,
            ..BrokerConfig::default()
        };
        let data = directory.path().join("data");
        let broker = Broker::open(env.clone(), &data, config).unwrap();
        let config = ServerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..ServerConfig::default()
        };
        let server = Server::start(&env, &broker, &data, config).unwrap();
        Self {
            broker,
            server,
            _directory: directory,
        }
    }

    fn address(&self) -> String {
        self.server.address().to_string()
    }

    fn stop(self) {
        wait(self.server.stop());
        self.broker.close().unwrap();
    }
}
