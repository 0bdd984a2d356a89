//! The journal of positions: rot in it is told from a torn tail (F9).

use super::faults::prepared;
use super::support::{
    Producer, committed, group, open_simulated, partition, position, try_open_simulated,
};
use crate::broker::Broker;
use crate::env::simulated::SimulatedWorld;
use crate::env::{OpenMode, block_on};
use crate::log::dump;
use crate::protocol::ErrorKind;
use crate::protocol::messages::OffsetCommitRequest;

const DIR: &str = "/data/log/__consumer_offsets-0";
const JOURNAL: &str = "/data/log/__consumer_offsets-0/00000000000000000000.log";

fn commit(broker: &Broker, offset: i64) {
    let request = OffsetCommitRequest {
        group: group("g"),
        member: Default::default(),
        offsets: vec![(partition("source", 0), position(offset))],
    };
    block_on(broker.offset_commit(request)).unwrap();
}

/// The bytes of each batch of the journal.
fn sizes(world: &SimulatedWorld) -> Vec<u64> {
    let mut sizes = Vec::new();
    dump(&world.env(), DIR.as_ref(), &mut |dumped| {
        sizes.push(dumped.batch.bytes().len() as u64);
        true
    })
    .unwrap();
    sizes
}

fn length(world: &SimulatedWorld) -> u64 {
    let file = world.env().files.open(JOURNAL.as_ref(), OpenMode::Read);
    file.unwrap().length_bytes().unwrap()
}

/// Flips a bit of each part of each batch; returns the batches of which a damage was not refused with its place.
fn batches_that_were_cut(world: &SimulatedWorld) -> Vec<usize> {
    let mut cut = Vec::new();
    let mut position = 0;
    for (index, size) in sizes(world).into_iter().enumerate() {
        for at in [position, position + 17, position + 62, position + size - 1] {
            let after = world.after_kill();
            after.flip_bit(JOURNAL.as_ref(), at, 3).unwrap();
            let before = length(&after);
            match try_open_simulated(&after) {
                Ok(_) => cut.push(index),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    let place = format!("byte {position}");
                    assert!(error.message.contains(&place), "{at}: {error}");
                    assert_eq!(length(&after), before, "it was cut");
                }
            }
        }
        position += size;
    }
    cut.dedup();
    cut
}

#[test]
fn f9_rot_in_the_positions_is_refused_as_soon_as_a_later_record_says_that_they_were_durable() {
    let (world, broker) = prepared(9);
    let mut producer = Producer::new(&broker, "p");
    for offset in 1..5 {
        commit(&broker, 2 * offset);
        producer.send_offset("g", &partition("source", 0), 2 * offset + 1);
        producer.commit();
    }
    commit(&broker, 10);
    commit(&broker, 11);
    // No checkpoint was written: only the journals themselves can tell.
    drop((broker, producer));
    let last = sizes(&world).len() - 1;
    assert!(last >= 12);
    assert_eq!(batches_that_were_cut(&world.after_kill()), [last]);
}

#[test]
fn f9_f3_a_tail_of_positions_that_was_never_synced_is_cut_though_whole_records_follow() {
    let (world, broker) = prepared(3);
    commit(&broker, 7);
    let before: u64 = sizes(&world).iter().sum();
    // Positions of an open transaction, of which nobody was told that they are durable.
    let producer = Producer::new(&broker, "p");
    for offset in 0..3 {
        producer.send_offset("g", &partition("source", offset), 8);
    }
    assert!(length(&world) > before);
    drop((broker, producer));
    let after = world.after_kill();
    after.flip_bit(JOURNAL.as_ref(), before + 62, 3).unwrap();
    let broker = open_simulated(&after);
    assert_eq!(committed(&broker, "g", &partition("source", 0)), Some(7));
    commit(&broker, 9);
    assert_eq!(committed(&broker, "g", &partition("source", 0)), Some(9));
}
