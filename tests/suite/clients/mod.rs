//! One suite for every way to a log: function calls into the embedded one, TCP to it, and TCP to a real Apache Kafka.
//!
//! Every world has a topic, a group and transactional ids of its own, so that tests share a cluster.

#![allow(
    clippy::let_underscore_future,
    reason = "what becomes of a record is often looked at elsewhere"
)]

mod administration;
#[cfg(feature = "server")]
mod differential;
mod forged;
mod reading;
mod subscribing;
mod transactions;
mod visible;
mod world;
mod writing;

use std::time::Duration;

use onceflow::client::ErrorKind;
use onceflow::client::consumer::{Consumer, ConsumerConfig, ConsumerRecords, OffsetReset};
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::{ClientError, CommitOutcome, TransactionalWriter, wait};
use onceflow::internals::protocol::messages::{CommittedOffset, GroupMember};
use onceflow::types::{Isolation, Offset};

use self::world::{Backend, World, group, id, partition, topic};

/// Long enough for a loaded machine; nothing waits so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same tests, for each backend.
macro_rules! suite {
    ($($file:ident: $($test:ident),* $(,)?;)*) => {
        mod embedded {
            $($(#[test] fn $test() { super::$file::$test(super::Backend::Embedded); })*)*
        }

        #[cfg(feature = "server")]
        mod served {
            $($(#[test] fn $test() { super::$file::$test(super::Backend::Served); })*)*
        }

        mod on_kafka {
            $($(#[test] fn $test() {
                if super::world::has_kafka() {
                    super::$file::$test(super::Backend::Kafka);
                }
            })*)*
        }
    };
}

suite! {
    administration:
        topics_are_created_described_altered_grown_and_deleted,
        settings_are_set_reset_and_checked,
        offsets_are_listed_and_records_deleted,
        groups_are_listed_described_and_deleted,
        transactions_and_producers_are_described;
    forged:
        x1_the_newest_record_is_named_whatever_the_batchs_header_says,
        x2_a_batch_that_nobody_could_read_is_refused,
        x2_records_that_cannot_be_decompressed_are_refused,
        x2_a_headers_name_that_is_not_utf_8_is_read_as_in_java,
        x13_records_too_far_from_the_clock_are_refused,
        x13_a_time_before_1970_is_before_every_record,
        x13_a_repeated_batch_is_checked_against_the_clock_like_any_other,
        x14_bytes_behind_a_gzip_member_are_left_alone;
    reading:
        a_poll_returns_at_most_max_poll_records_and_the_next_one_goes_on,
        a_seek_into_the_middle_of_a_batch_begins_exactly_there,
        beginning_end_and_times_can_be_sought_and_looked_up,
        a_paused_partition_is_silent_and_keeps_its_place,
        a_new_assignment_keeps_the_positions_of_what_stays,
        a_poll_waits_for_records_and_a_dropped_poll_loses_none,
        without_a_position_the_reset_policy_decides,
        a_group_goes_on_where_it_committed,
        s14_a_position_that_retention_overtook_is_an_error_and_not_a_jump,
        a_position_beyond_the_end_is_an_error_too,
        an_unreadable_value_names_its_place_and_can_be_read_as_bytes,
        codecs_of_ones_choice_write_and_read,
        a_partition_reader_reads_batches_in_place_and_waits_for_more,
        a_missing_partition_says_so;
    subscribing:
        x19_positions_are_moved_from_outside_only_without_members,
        members_share_the_partitions_and_take_over_when_one_leaves,
        with_auto_commit_no_record_is_read_twice_through_orderly_rebalances,
        c29_a_member_that_left_cannot_commit_positions_in_a_transaction;
    transactions:
        records_are_visible_after_the_commit_and_never_after_an_abort,
        c11_the_second_holder_of_an_id_fences_the_first_and_ends_its_transaction,
        c12_nothing_of_a_zombie_becomes_visible,
        positions_move_with_the_transaction_or_not_at_all,
        c27_committed_waits_while_a_transaction_holds_a_position,
        c16_the_same_end_asked_twice_gets_the_same_answer,
        c17_a_commit_whose_future_was_dropped_is_finished,
        c22_a_transaction_that_timed_out_is_known_to_be_aborted_and_the_producer_goes_on,
        an_operators_abort_is_told_to_the_producer,
        a_transaction_left_open_is_rolled_back_when_the_broker_opens_again,
        a_writers_batches_and_positions_become_visible_together,
        c12_a_zombie_writer_is_refused,
        read_committed_shows_committed_records_only_in_order_and_from_any_offset,
        a_timeout_over_the_brokers_limit_is_refused;
    visible:
        x7_lookups_by_time_name_records_that_readers_see,
        x12_uncommitted_records_are_visible_as_soon_as_they_are_acknowledged,
        x14_a_producer_that_a_partition_does_not_know_begins_with_any_sequence,
        x14_a_transaction_with_an_epoch_of_its_own_begins_with_sequence_0,
        x16_records_are_deleted_before_an_offset_of_the_partition_or_all_of_them;
    writing:
        records_come_back_as_they_were_sent_under_every_compression,
        empty_and_10_mb_values_come_back_whole,
        s15_a_record_over_the_topics_limit_leaves_the_transaction_usable,
        batches_are_kept_within_the_topics_limit,
        a_limit_lowered_behind_the_producers_back_is_reported_by_the_record,
        many_senders_lose_and_duplicate_nothing,
        a_new_writer_goes_on_over_a_restart_of_the_broker;
}

fn quick() -> ProducerConfig {
    ProducerConfig::default().linger(Duration::ZERO)
}

fn earliest() -> ConsumerConfig {
    ConsumerConfig::default().auto_offset_reset(OffsetReset::Earliest)
}

fn record<'a>(value: &'a str) -> ProducerRecord<'a, str, str> {
    ProducerRecord::new(&topic()).partition(0).value(value)
}

fn send(producer: &Producer<str, str>, value: &str) -> i64 {
    let sent = wait(async { producer.send(record(value)).await?.await });
    sent.unwrap().offset.unwrap().0
}

fn position(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(offset),
        leader_epoch: -1,
        metadata: String::new(),
    }
}

fn offsets_and_values(records: &ConsumerRecords<str, str>) -> Vec<(i64, String)> {
    let pair = |r: onceflow::client::consumer::ConsumerRecord<'_, str, str>| {
        (r.offset().0, r.value().unwrap().unwrap().into_owned())
    };
    records.iter().map(pair).collect()
}
