//! Batches that an older release took unseen, and whose records nobody can read: the job's poison policy decides about them
//! as about records.

use onceflow::internals::protocol::batch::HEADER_BYTES;
use onceflow::prelude::*;
use onceflow::types::TopicName;

use super::support::{OFTEN, Place, committed, committed_values, fill_topic, run};
use crate::support::records::forged;

/// A topic of three batches; of the second one, offsets 2 to 4, the last two records cannot be read.
fn with_a_bad_batch(place: &Place) -> (Log, Vec<u8>) {
    let log = place.log();
    for values in [&["1", "2"][..], &["3", "4", "5"], &["6", "7"]] {
        fill_topic(&log, "in", 1, values);
    }
    log.close().unwrap();
    let path = place.path("data/log/in-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let begin = size_of_batch(&bytes);
    let end = begin + size_of_batch(&bytes[begin..]);
    let record_bytes = usize::from(bytes[begin + HEADER_BYTES] >> 1) + 1;
    let bad = forged(&bytes[begin..end], |batch| {
        // The second record's length becomes negative.
        batch[HEADER_BYTES + record_bytes] = 0x7f;
    });
    bytes[begin..end].copy_from_slice(&bad);
    std::fs::write(&path, &bytes).unwrap();
    (place.log(), bad.to_vec())
}

fn size_of_batch(bytes: &[u8]) -> usize {
    let counted = i32::from_be_bytes(bytes[8..12].try_into().unwrap());
    12 + usize::try_from(counted).unwrap()
}

fn numbers() -> Job {
    let job = Job::new("numbers");
    job.source(topic::<str>("in").until_end())
        .try_map(|value: &str| value.parse::<u64>())
        .sink(topic("out"));
    job
}

#[test]
fn x2_without_dead_letters_the_job_names_the_batch_that_nobody_can_read() {
    let place = Place::new();
    let (log, _) = with_a_bad_batch(&place);
    let error = run(numbers().exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    let JobError::Poison { split, offset, why } = &error else {
        panic!("{error}")
    };
    assert_eq!((split.as_str(), offset.0), ("in-0", 3));
    assert!(why.contains("offsets 3 to 4"), "{why}");
}

#[test]
fn x2_with_dead_letters_the_job_goes_on_behind_a_batch_that_nobody_can_read() {
    let place = Place::new();
    let (log, bad) = with_a_bad_batch(&place);
    let launch = || {
        let dead = PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap());
        let launch = numbers().exactly_once(Commit::every(OFTEN));
        launch.on_poison(dead)
    };
    run(launch(), &log).unwrap();
    run(launch(), &log).unwrap();
    assert_eq!(committed_values::<u64>(&log, "out"), [1, 2, 3, 6, 7]);
    let letters = committed(&log, "dead");
    assert_eq!(letters.len(), 1, "once, also after another run");
    assert_eq!(letters[0].header("onceflow.offset"), "3");
    // The log stamps its place into a batch; all else is as it was sent.
    assert_eq!(letters[0].value.as_deref(), Some(&bad[..]));
}
