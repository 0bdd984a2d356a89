//! Which batches share a request: order within a partition, one batch of each, one id and `acks`, bounds.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::outbox::{Outbox, REQUESTS_IN_FLIGHT_MAX, Waiting};
use crate::protocol::messages::{Acks, ProduceRequest};
use crate::types::{TopicName, TopicPartition, TransactionalId};

/// A batch of `bytes` for a partition, of one of two transactional ids.
fn batch(partition: i32, id: bool, bytes: usize, number: usize) -> Waiting<usize> {
    Waiting {
        request: ProduceRequest {
            partition: TopicPartition::new(TopicName::new("t").unwrap(), partition),
            records: Bytes::from(vec![0; bytes]).into(),
            acks: Acks::All,
            transactional_id: Some(TransactionalId::new(if id { "a" } else { "b" }).unwrap()),
        },
        answer: number,
    }
}

fn numbers(request: &[Waiting<usize>]) -> Vec<usize> {
    request.iter().map(|batch| batch.answer).collect()
}

#[test]
fn waiting_batches_of_several_partitions_leave_together_one_of_each() {
    let mut outbox = Outbox::new();
    for (number, partition) in [0, 1, 0, 2, 1].into_iter().enumerate() {
        outbox.push(batch(partition, true, 10, number));
    }
    assert_eq!(numbers(&outbox.next_request()), [0, 1, 3]);
    assert_eq!(numbers(&outbox.next_request()), [2, 4]);
    assert!(outbox.next_request().is_empty());
}

#[test]
fn a_request_has_one_transactional_id_and_nobody_overtakes_in_a_partition() {
    let mut outbox = Outbox::new();
    outbox.push(batch(0, true, 10, 0));
    outbox.push(batch(1, false, 10, 1));
    // Of the first one's id, but behind another one of its partition.
    outbox.push(batch(1, true, 10, 2));
    outbox.push(batch(2, true, 10, 3));
    assert_eq!(numbers(&outbox.next_request()), [0, 3]);
    assert_eq!(numbers(&outbox.next_request()), [1]);
    assert_eq!(numbers(&outbox.next_request()), [2]);
}

#[test]
fn requests_are_bounded_in_number_and_bytes_but_for_one_batch() {
    let mut outbox = Outbox::new();
    for number in 0..REQUESTS_IN_FLIGHT_MAX + 1 {
        outbox.push(batch(i32::try_from(number).unwrap(), true, 5 << 20, number));
    }
    for number in 0..REQUESTS_IN_FLIGHT_MAX {
        assert_eq!(numbers(&outbox.next_request()), [number]);
    }
    assert!(
        outbox.next_request().is_empty(),
        "all requests are under way"
    );
    outbox.request_is_over();
    assert_eq!(numbers(&outbox.next_request()), [REQUESTS_IN_FLIGHT_MAX]);
}

proptest! {
    #[test]
    fn every_batch_leaves_once_and_in_its_partitions_order(
        batches in prop::collection::vec((0..4_i32, any::<bool>(), 0..(3_usize << 20)), 0..40),
    ) {
        let mut outbox = Outbox::new();
        for (number, (partition, id, bytes)) in batches.iter().enumerate() {
            outbox.push(batch(*partition, *id, *bytes, number));
        }
        let mut last = [None; 4];
        let mut left = 0;
        loop {
            let request = outbox.next_request();
            if request.is_empty() {
                break;
            }
            outbox.request_is_over();
            let mut partitions = std::collections::HashSet::new();
            for batch in &request {
                let partition = usize::try_from(batch.request.partition.partition).unwrap();
                prop_assert!(partitions.insert(partition), "two batches of one partition");
                prop_assert_eq!(&batch.request.transactional_id, &request[0].request.transactional_id);
                prop_assert!(last[partition] < Some(batch.answer));
                last[partition] = Some(batch.answer);
                left += 1;
            }
        }
        prop_assert_eq!(left, batches.len());
    }
}
