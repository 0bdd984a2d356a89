//! Leader epochs: each opening has its own, so that a reader sees what a power loss took.

use super::support::*;
use crate::env::simulated::{PowerLoss, SimulatedWorld};
use crate::log::names;
use crate::log::*;
use crate::types::{Durability, Offset};

fn checkpoint(place: &Place) -> String {
    let bytes = place
        .env
        .files
        .read(&place.dir.join(names::LEADER_EPOCHS), 1 << 16);
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// A log of three openings, with the epochs 0, 3 and 4; the second one wrote nothing.
fn of_three_epochs(place: &mut Place) -> PartitionLog {
    let mut log = place.create();
    for value in ["a", "b", "c"] {
        log.put(plain(&[value])).unwrap();
    }
    for epoch in [2, 3, 4] {
        log.close().unwrap();
        place.config.leader_epoch = epoch;
        log = place.open();
        if epoch != 2 {
            log.put(transactional(
                1,
                i16::try_from(epoch).unwrap(),
                0,
                &["d", "e"],
            ))
            .unwrap();
            let after = producer(1, i16::try_from(epoch + 1).unwrap());
            log.append_marker(after, commit()).unwrap();
        }
    }
    log
}

#[test]
fn every_opening_stamps_its_own_epoch_and_each_is_read_back() {
    let mut place = Place::new(&SimulatedWorld::new(2));
    let mut log = of_three_epochs(&mut place);
    log.sync();
    let epochs: Vec<_> = (0..10).map(|at| log.leader_epoch_at(Offset(at))).collect();
    assert_eq!(epochs, [0, 0, 0, 3, 3, 3, 4, 4, 4, 4]);
    assert_eq!(log.uncommitted().len(), 7);
    let ends: Vec<_> = (0..6).map(|epoch| log.leader_epoch_end(epoch)).collect();
    let end = |epoch, offset| Some((epoch, Offset(offset)));
    assert_eq!(
        ends,
        [end(0, 3), end(0, 3), end(0, 3), end(3, 6), end(4, 9), None]
    );
    log.close().unwrap();
    assert_eq!(checkpoint(&place), "0\n3\n0 0\n3 3\n4 6\n");
}

#[test]
fn f6_lost_epochs_are_found_again_in_the_batches() {
    let mut place = Place::new(&SimulatedWorld::new(2));
    of_three_epochs(&mut place).close().unwrap();
    let text = checkpoint(&place);
    for entry in place.env.files.read_dir(&place.dir).unwrap() {
        let is_kept = entry.name.ends_with(".log") || entry.name == names::METADATA;
        if !is_kept {
            place
                .env
                .files
                .remove_file(&place.dir.join(entry.name))
                .unwrap();
        }
    }
    drop(place.open());
    assert_eq!(checkpoint(&place), text);
}

#[test]
fn a_reader_of_records_that_a_power_loss_took_is_told_where_they_began() {
    let world = SimulatedWorld::new(2);
    let mut place = Place::new(&world);
    place.config.durability = Durability::Process;
    let mut log = place.create();
    log.put(plain(&["kept"])).unwrap();
    log.sync();
    log.put(plain(&["seen", "seen, too"])).unwrap();
    assert_eq!(
        log.high_watermark(),
        Offset(3),
        "readers were shown three records"
    );
    let mut place = place.on(&world.after_power_loss(PowerLoss::STRICT));
    place.config.leader_epoch = 1;
    let mut log = place.open();
    assert_eq!(log.leader_epoch_end(0), Some((0, Offset(1))));
    log.put(plain(&["other", "other", "other"])).unwrap();
    // Now offset 3 exists again, and only the epoch tells that what was read before it is gone.
    assert_eq!(log.high_watermark(), Offset(4));
    assert_eq!(log.leader_epoch_end(0), Some((0, Offset(1))));
    assert_eq!(log.leader_epoch_at(Offset(1)), 1);
}

#[test]
fn f7_a_batch_of_an_epoch_that_is_still_to_come_is_damaged() {
    let mut place = Place::new(&SimulatedWorld::new(2));
    let mut log = of_three_epochs(&mut place);
    log.sync();
    drop(log);
    place.config.leader_epoch = 3;
    let marks = RecoveryMarks {
        durable_end: Offset(9),
        ..RecoveryMarks::default()
    };
    for entry in place.env.files.read_dir(&place.dir).unwrap() {
        if entry.name.ends_with(".manifest") || entry.name.ends_with(".snapshot") {
            place
                .env
                .files
                .remove_file(&place.dir.join(entry.name))
                .unwrap();
        }
    }
    let error = place.open_with(marks).unwrap_err();
    assert!(error.to_string().contains("leader epoch 4"), "{error}");
}
