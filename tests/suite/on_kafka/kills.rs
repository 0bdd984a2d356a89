//! Word count and transfers on one broker and on three, through everything that can be killed or cut: what comes out is
//! exact at every moment, and equal to the model when Kafka's own console consumer reads it (I1, I2).

use std::time::Duration;

use super::arena::Arena;
use super::work::{Hands, Kind, Work};
use crate::support::peers;

/// All brokers are away for longer than the clients' patience (`default.api.timeout.ms`), and than a transaction may be open.
const OUTAGE: Duration = Duration::from_secs(60);
/// A job has done something since it was started, or a broker came back, once so many records came out.
const SOME_RECORDS: u64 = 600;

const WORDS: Work = Work {
    kind: Kind::Words,
    hands: Hands::One,
};
const TRANSFERS: Work = Work {
    kind: Kind::Transfers,
    hands: Hands::One,
};

/// The processes of both jobs die and are started again.
fn kill_jobs(arena: &mut Arena) {
    arena.wait_for_records(SOME_RECORDS);
    arena.kill_jobs();
    arena.let_live(&[None]);
}

/// A broker dies in the middle of a transaction of which it is a part, and comes back. Every other time the jobs die with it.
fn kill_broker(arena: &mut Arena, id: usize, topic: &str, with_jobs: bool) {
    arena.wait_for_open_transaction(topic);
    arena.kill_broker(id);
    if with_jobs {
        arena.kill_jobs();
    }
    arena.cluster.restart(id);
    if with_jobs {
        arena.let_live(&[None]);
    }
    arena.wait_for_records(SOME_RECORDS);
}

/// The network is cut until the coordinator has given up every transaction, and then mended.
fn cut_the_network(arena: &mut Arena) {
    arena.wait_for_open_transaction(&WORDS.output());
    arena.proxies.iter().for_each(|proxy| proxy.set_cut(true));
    arena.wait_for_closed_transactions();
    arena.proxies.iter().for_each(|proxy| proxy.set_cut(false));
    arena.wait_for_records(SOME_RECORDS);
}

/// One in so many requests is lost, delayed, repeated or overtaken, or its answer is lost.
fn disturb_the_network(arena: &mut Arena) {
    for (proxy, seed) in arena.proxies.iter().zip(1..) {
        proxy.disturb(40, seed);
    }
    // How many requests so many records take is the clients' affair.
    while arena.proxies.iter().map(|proxy| proxy.met()).sum::<usize>() <= 10 {
        arena.wait_for_records(4 * SOME_RECORDS);
    }
    arena.proxies.iter().for_each(|proxy| proxy.disturb(0, 0));
    for proxy in &arena.proxies {
        eprintln!("the network's doing: {:?}", proxy.met_by_fate());
    }
    arena.wait_for_records(SOME_RECORDS);
}

/// Processes that share each job's work in turn: they come, are killed, come again, and stay away.
const MEMBERS: [&[Option<&str>]; 7] = [
    &[Some("one")],
    &[Some("one"), Some("two")],
    &[Some("one"), Some("two"), Some("three")],
    &[Some("two"), Some("three")],
    &[Some("one"), Some("three")],
    &[Some("two")],
    &[Some("one"), Some("two")],
];

/// The jobs' work is shared by processes that come and die; brokers die meanwhile.
fn share_the_work(arena: &mut Arena) {
    let works = [Kind::Words, Kind::Transfers].map(|kind| Work {
        kind,
        hands: Hands::Several,
    });
    arena.open(works);
    for (round, members) in MEMBERS.into_iter().enumerate() {
        arena.let_live(members);
        arena.wait_for_records(SOME_RECORDS);
        if round == 2 {
            let id = arena.cluster.group_coordinator(&works[0].name());
            arena.kill_broker(id);
            arena.cluster.restart(id);
            arena.wait_for_records(SOME_RECORDS);
        }
    }
    arena.close();
}

#[test]
fn k1_k5_k6_c14_s17_jobs_on_one_broker_are_exact_through_kills_and_cuts() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let mut arena = Arena::new(1);
    arena.open([WORDS, TRANSFERS]);
    arena.let_live(&[None]);
    for round in 0..12 {
        kill_jobs(&mut arena);
        if round % 2 == 1 {
            kill_broker(&mut arena, 1, &WORDS.output(), round % 4 == 1);
        }
    }
    cut_the_network(&mut arena);
    disturb_the_network(&mut arena);
    arena.close();
    assert!(arena.job_kills >= 24 && arena.broker_kills >= 6);
}

#[test]
fn c29_c30_k9_processes_that_share_jobs_on_one_broker_are_exact_through_their_kills() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    share_the_work(&mut Arena::new(1));
}

#[test]
fn k1_k6_s17_jobs_on_three_brokers_are_exact_through_kills_of_leaders_and_coordinators() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let mut arena = Arena::new(3);
    arena.open([WORDS, TRANSFERS]);
    arena.let_live(&[None]);
    for round in 0..14 {
        kill_jobs(&mut arena);
        let work = [WORDS, TRANSFERS][round / 3 % 2];
        let id = match round % 3 {
            0 => arena.cluster.leader(&work.output(), 0),
            1 => {
                let id = format!("{}-{}", work.name(), round % 2);
                arena.cluster.transaction_coordinator(&id)
            }
            _ => arena.cluster.leader(&work.changelog(), 0),
        };
        kill_broker(&mut arena, id, &work.output(), round % 4 == 1);
    }
    // A rolling restart, in order.
    for id in 1..=3 {
        arena.cluster.stop(id);
        arena.cluster.restart(id);
        arena.wait_for_records(SOME_RECORDS);
    }
    cut_the_network(&mut arena);
    disturb_the_network(&mut arena);
    // All are away for a minute; processes that give up meanwhile are started again.
    arena.wait_for_open_transaction(&WORDS.output());
    (1..=3).for_each(|id| arena.kill_broker(id));
    std::thread::sleep(OUTAGE);
    arena.cluster.restart_all();
    arena.revive();
    arena.wait_for_records(SOME_RECORDS);
    arena.close();
    assert!(arena.job_kills >= 28 && arena.broker_kills >= 17);
}

#[test]
fn c29_c30_k9_processes_that_share_jobs_on_three_brokers_are_exact_through_their_kills() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    share_the_work(&mut Arena::new(3));
}
