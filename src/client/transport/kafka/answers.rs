//! `Answer`: what all responses have in common: a pause that is asked for, and the first error in them.

use super::judge::error_of;
use crate::protocol::ErrorCode;
use crate::protocol::wire::messages as wire;

/// The first error of a response, with the broker's words if it has some.
pub(super) type Fault = (ErrorCode, Option<String>);

/// A response.
pub(super) trait Answer {
    /// For how many milliseconds nothing is to be sent.
    fn throttle_ms(&self) -> i32;

    /// The first error in it.
    fn fault(&self) -> Option<Fault>;
}

fn fault(code: i16, words: Option<&String>) -> Option<Fault> {
    error_of(code).map(|code| (code, words.cloned()))
}

/// For each response: where its errors are.
macro_rules! answers {
    ($($type:path, |$response:ident| $fault:expr;)*) => { $(
        impl Answer for $type {
            fn throttle_ms(&self) -> i32 {
                self.throttle_time_ms
            }

            fn fault(&self) -> Option<Fault> {
                let $response = self;
                $fault
            }
        }
    )* };
}

/// A request among brokers, whose answer asks for no pause.
impl Answer for wire::write_txn_markers::WriteTxnMarkersResponse {
    fn throttle_ms(&self) -> i32 {
        0
    }

    fn fault(&self) -> Option<Fault> {
        let topics = self.markers.iter().flat_map(|marker| &marker.topics);
        let mut partitions = topics.flat_map(|topic| &topic.partitions);
        partitions.find_map(|partition| fault(partition.error_code, None))
    }
}

answers! {
    // Of these the caller looks at each error itself.
    wire::produce::ProduceResponse, |_r| None;
    wire::offset_for_leader_epoch::OffsetForLeaderEpochResponse, |_r| None;
    wire::metadata::MetadataResponse, |r| fault(r.error_code, None);
    wire::fetch::FetchResponse, |r| fault(r.error_code, None);
    wire::offset_fetch::OffsetFetchResponse, |r| {
        let single = r.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
        let grouped = r.groups.iter().flat_map(|g| {
            let partitions = g.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
            std::iter::once(g.error_code).chain(partitions)
        });
        let codes = std::iter::once(r.error_code).chain(single).chain(grouped);
        codes.into_iter().find_map(|code| fault(code, None))
    };
    wire::list_offsets::ListOffsetsResponse, |r| {
        r.topics.iter().flat_map(|t| &t.partitions).find_map(|p| fault(p.error_code, None))
    };
    wire::find_coordinator::FindCoordinatorResponse, |r| {
        fault(r.error_code, r.error_message.as_ref()).or_else(|| {
            r.coordinators.iter().find_map(|c| fault(c.error_code, c.error_message.as_ref()))
        })
    };
    wire::init_producer_id::InitProducerIdResponse, |r| fault(r.error_code, None);
    wire::end_txn::EndTxnResponse, |r| fault(r.error_code, None);
    wire::add_offsets_to_txn::AddOffsetsToTxnResponse, |r| fault(r.error_code, None);
    wire::add_partitions_to_txn::AddPartitionsToTxnResponse, |r| {
        let results = || r.results_by_topic.iter().flat_map(|t| &t.results_by_partition);
        // A partition that was not tried says nothing about why.
        let own = |code: i16| code != ErrorCode::OperationNotAttempted.code();
        results().filter(|p| own(p.partition_error_code)).find_map(|p| fault(p.partition_error_code, None))
            .or_else(|| results().find_map(|p| fault(p.partition_error_code, None)))
    };
    wire::txn_offset_commit::TxnOffsetCommitResponse, |r| {
        let parts = r.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
        parts.into_iter().find_map(|(t, p)| fault(p.error_code, Some(&t.name)))
    };
    wire::offset_commit::OffsetCommitResponse, |r| {
        let parts = r.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (t, p)));
        parts.into_iter().find_map(|(t, p)| fault(p.error_code, Some(&t.name)))
    };
    wire::create_topics::CreateTopicsResponse, |r| {
        r.topics.iter().find_map(|t| fault(t.error_code, t.error_message.as_ref()))
    };
    wire::delete_topics::DeleteTopicsResponse, |r| {
        r.responses.iter().find_map(|t| fault(t.error_code, t.error_message.as_ref()))
    };
    wire::create_partitions::CreatePartitionsResponse, |r| {
        r.results.iter().find_map(|t| fault(t.error_code, t.error_message.as_ref()))
    };
    wire::delete_records::DeleteRecordsResponse, |r| {
        r.topics.iter().flat_map(|t| &t.partitions).find_map(|p| fault(p.error_code, None))
    };
    wire::describe_configs::DescribeConfigsResponse, |r| {
        r.results.iter().find_map(|t| fault(t.error_code, t.error_message.as_ref()))
    };
    wire::incremental_alter_configs::IncrementalAlterConfigsResponse, |r| {
        r.responses.iter().find_map(|t| fault(t.error_code, t.error_message.as_ref()))
    };
    wire::describe_log_dirs::DescribeLogDirsResponse, |r| {
        fault(r.error_code, None).or_else(|| r.results.iter().find_map(|d| fault(d.error_code, None)))
    };
    wire::describe_producers::DescribeProducersResponse, |r| {
        let partitions = r.topics.iter().flat_map(|t| &t.partitions);
        partitions.into_iter().find_map(|p| fault(p.error_code, p.error_message.as_ref()))
    };
    wire::list_transactions::ListTransactionsResponse, |r| fault(r.error_code, None);
    wire::describe_transactions::DescribeTransactionsResponse, |r| {
        r.transaction_states.iter().find_map(|t| fault(t.error_code, None))
    };
    wire::consumer_group_heartbeat::ConsumerGroupHeartbeatResponse, |r| {
        fault(r.error_code, r.error_message.as_ref())
    };
    wire::consumer_group_describe::ConsumerGroupDescribeResponse, |r| {
        r.groups.iter().find_map(|g| fault(g.error_code, g.error_message.as_ref()))
    };
    wire::describe_groups::DescribeGroupsResponse, |r| {
        r.groups.iter().find_map(|g| fault(g.error_code, g.error_message.as_ref()))
    };
    wire::list_groups::ListGroupsResponse, |r| fault(r.error_code, None);
    // A member that is given its id joins with it.
    wire::join_group::JoinGroupResponse, |r| {
        fault(r.error_code, None).filter(|(code, _)| *code != ErrorCode::MemberIdRequired)
    };
    wire::sync_group::SyncGroupResponse, |r| fault(r.error_code, None);
    wire::heartbeat::HeartbeatResponse, |r| fault(r.error_code, None);
    wire::leave_group::LeaveGroupResponse, |r| fault(r.error_code, None);
    wire::delete_groups::DeleteGroupsResponse, |r| r.results.iter().find_map(|g| fault(g.error_code, None));
}
