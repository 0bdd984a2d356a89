//! The table of Kafka's APIs: their numbers, their messages, and the versions that we know, serve and speak.

use std::ops::RangeInclusive;

use super::messages;
use super::schema::Message;

/// A request, with its response.
pub trait Request: Message {
    /// Which API.
    const API: ApiKey;
    /// Its response.
    type Response: Message;
}

/// Hands the table to the macro `$table`, row by row:
/// `flexible` is the first version with the flexible encoding, `known` the versions that can be read and written,
/// `served` those that our broker offers, `spoken` those that our client may choose.
macro_rules! with_apis {
    ($table:ident) => {
        $table! {
            #[doc = "Appends record batches to partitions."]
            Produce = 0, produce::{ProduceRequest, ProduceResponse},
                flexible 9, known 3..=13, served 0..=12, spoken 3..=12;
            #[doc = "Reads record batches from partitions."]
            Fetch = 1, fetch::{FetchRequest, FetchResponse},
                flexible 12, known 4..=18, served 4..=16, spoken 4..=17;
            #[doc = "Finds offsets by time, or the first and last of a partition."]
            ListOffsets = 2, list_offsets::{ListOffsetsRequest, ListOffsetsResponse},
                flexible 6, known 1..=10, served 1..=10, spoken 1..=10;
            #[doc = "Names the brokers, the topics and who leads each partition."]
            Metadata = 3, metadata::{MetadataRequest, MetadataResponse},
                flexible 9, known 0..=13, served 0..=13, spoken 0..=13;
            #[doc = "Commits a group's positions outside any transaction."]
            OffsetCommit = 8, offset_commit::{OffsetCommitRequest, OffsetCommitResponse},
                flexible 8, known 2..=9, served 2..=9, spoken 2..=9;
            #[doc = "Reads a group's committed positions."]
            OffsetFetch = 9, offset_fetch::{OffsetFetchRequest, OffsetFetchResponse},
                flexible 6, known 1..=9, served 1..=9, spoken 1..=9;
            #[doc = "Finds the broker that coordinates a group or a transactional id."]
            FindCoordinator = 10, find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse},
                flexible 3, known 0..=6, served 0..=5, spoken 0..=6;
            #[doc = "Joins a group of the classic protocol."]
            JoinGroup = 11, join_group::{JoinGroupRequest, JoinGroupResponse},
                flexible 6, known 0..=9, served 0..=9, spoken 0..=9;
            #[doc = "Tells the coordinator that a member of a classic group lives."]
            Heartbeat = 12, heartbeat::{HeartbeatRequest, HeartbeatResponse},
                flexible 4, known 0..=4, served 0..=4, spoken 0..=4;
            #[doc = "Takes members out of a classic group."]
            LeaveGroup = 13, leave_group::{LeaveGroupRequest, LeaveGroupResponse},
                flexible 4, known 0..=5, served 0..=5, spoken 0..=5;
            #[doc = "Hands out the assignments of a classic group's generation."]
            SyncGroup = 14, sync_group::{SyncGroupRequest, SyncGroupResponse},
                flexible 4, known 0..=5, served 0..=5, spoken 0..=5;
            #[doc = "Describes classic groups with their members."]
            DescribeGroups = 15, describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse},
                flexible 5, known 0..=6, served 0..=6, spoken 0..=6;
            #[doc = "Lists the groups of a broker."]
            ListGroups = 16, list_groups::{ListGroupsRequest, ListGroupsResponse},
                flexible 3, known 0..=5, served 0..=5, spoken 0..=5;
            #[doc = "Chooses a SASL mechanism."]
            SaslHandshake = 17, sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse},
                flexible i16::MAX, known 0..=1, served 0..=1, spoken 0..=1;
            #[doc = "Says which requests, versions and features a broker knows."]
            ApiVersions = 18, api_versions::{ApiVersionsRequest, ApiVersionsResponse},
                flexible 3, known 0..=4, served 0..=4, spoken 0..=4;
            #[doc = "Creates topics."]
            CreateTopics = 19, create_topics::{CreateTopicsRequest, CreateTopicsResponse},
                flexible 5, known 2..=7, served 2..=7, spoken 2..=7;
            #[doc = "Deletes topics."]
            DeleteTopics = 20, delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse},
                flexible 4, known 1..=6, served 1..=6, spoken 1..=6;
            #[doc = "Moves partitions' first offsets forward."]
            DeleteRecords = 21, delete_records::{DeleteRecordsRequest, DeleteRecordsResponse},
                flexible 2, known 0..=2, served 0..=2, spoken 0..=2;
            #[doc = "Gives a producer its identity, and fences earlier holders of a transactional id."]
            InitProducerId = 22, init_producer_id::{InitProducerIdRequest, InitProducerIdResponse},
                flexible 2, known 0..=5, served 0..=5, spoken 0..=5;
            #[doc = "Finds where a leader epoch ends in a partition."]
            OffsetForLeaderEpoch = 23, offset_for_leader_epoch::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse},
                flexible 4, known 2..=4, served 2..=4, spoken 2..=4;
            #[doc = "Adds partitions to a transaction (before transactions v2)."]
            AddPartitionsToTxn = 24, add_partitions_to_txn::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse},
                flexible 3, known 0..=3, served 0..=3, spoken 0..=3;
            #[doc = "Adds a group to a transaction (before transactions v2)."]
            AddOffsetsToTxn = 25, add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse},
                flexible 3, known 0..=4, served 0..=4, spoken 0..=4;
            #[doc = "Commits or aborts a transaction."]
            EndTxn = 26, end_txn::{EndTxnRequest, EndTxnResponse},
                flexible 3, known 0..=5, served 0..=5, spoken 0..=5;
            #[doc = "Ends a transaction in single partitions, for an operator."]
            WriteTxnMarkers = 27, write_txn_markers::{WriteTxnMarkersRequest, WriteTxnMarkersResponse},
                flexible 1, known 1..=1, served 1..=1, spoken 1..=1;
            #[doc = "Commits a group's positions inside a transaction."]
            TxnOffsetCommit = 28, txn_offset_commit::{TxnOffsetCommitRequest, TxnOffsetCommitResponse},
                flexible 3, known 0..=5, served 0..=5, spoken 0..=5;
            #[doc = "Lists access rules."]
            DescribeAcls = 29, describe_acls::{DescribeAclsRequest, DescribeAclsResponse},
                flexible 2, known 1..=3, served 1..=3, spoken 1..=3;
            #[doc = "Adds access rules."]
            CreateAcls = 30, create_acls::{CreateAclsRequest, CreateAclsResponse},
                flexible 2, known 1..=3, served 1..=3, spoken 1..=3;
            #[doc = "Removes access rules."]
            DeleteAcls = 31, delete_acls::{DeleteAclsRequest, DeleteAclsResponse},
                flexible 2, known 1..=3, served 1..=3, spoken 1..=3;
            #[doc = "Shows settings of topics and brokers."]
            DescribeConfigs = 32, describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse},
                flexible 4, known 1..=4, served 1..=4, spoken 1..=4;
            #[doc = "Replaces all settings of topics."]
            AlterConfigs = 33, alter_configs::{AlterConfigsRequest, AlterConfigsResponse},
                flexible 2, known 0..=2, served 0..=2, spoken 0..=2;
            #[doc = "Shows the log directories with the sizes of their partitions."]
            DescribeLogDirs = 35, describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse},
                flexible 2, known 1..=4, served 1..=4, spoken 1..=4;
            #[doc = "Carries one message of a SASL conversation."]
            SaslAuthenticate = 36, sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse},
                flexible 2, known 0..=2, served 0..=2, spoken 0..=2;
            #[doc = "Adds partitions to topics."]
            CreatePartitions = 37, create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse},
                flexible 2, known 0..=3, served 0..=3, spoken 0..=3;
            #[doc = "Deletes groups."]
            DeleteGroups = 42, delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse},
                flexible 2, known 0..=2, served 0..=2, spoken 0..=2;
            #[doc = "Changes single settings."]
            IncrementalAlterConfigs = 44, incremental_alter_configs::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse},
                flexible 1, known 0..=1, served 0..=1, spoken 0..=1;
            #[doc = "Deletes a group's positions."]
            OffsetDelete = 47, offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse},
                flexible i16::MAX, known 0..=0, served 0..=0, spoken 0..=0;
            #[doc = "Shows which SCRAM credentials users have."]
            DescribeUserScramCredentials = 50, describe_user_scram_credentials::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse},
                flexible 0, known 0..=0, served 0..=0, spoken 0..=0;
            #[doc = "Sets and deletes users' SCRAM credentials."]
            AlterUserScramCredentials = 51, alter_user_scram_credentials::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse},
                flexible 0, known 0..=0, served 0..=0, spoken 0..=0;
            #[doc = "Names the cluster and its brokers."]
            DescribeCluster = 60, describe_cluster::{DescribeClusterRequest, DescribeClusterResponse},
                flexible 0, known 0..=2, served 0..=2, spoken 0..=2;
            #[doc = "Shows the active producers of partitions."]
            DescribeProducers = 61, describe_producers::{DescribeProducersRequest, DescribeProducersResponse},
                flexible 0, known 0..=0, served 0..=0, spoken 0..=0;
            #[doc = "Describes transactional ids."]
            DescribeTransactions = 65, describe_transactions::{DescribeTransactionsRequest, DescribeTransactionsResponse},
                flexible 0, known 0..=0, served 0..=0, spoken 0..=0;
            #[doc = "Lists transactional ids."]
            ListTransactions = 66, list_transactions::{ListTransactionsRequest, ListTransactionsResponse},
                flexible 0, known 0..=2, served 0..=2, spoken 0..=2;
            #[doc = "Joins, keeps up and leaves a group of the consumer protocol (KIP-848)."]
            ConsumerGroupHeartbeat = 68, consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse},
                flexible 0, known 0..=1, served 0..=1, spoken 0..=1;
            #[doc = "Describes consumer-protocol groups (KIP-848)."]
            ConsumerGroupDescribe = 69, consumer_group_describe::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse},
                flexible 0, known 0..=1, served 0..=1, spoken 0..=1;
            #[doc = "Describes topics page by page."]
            DescribeTopicPartitions = 75, describe_topic_partitions::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse},
                flexible 0, known 0..=0, served 0..=0, spoken 0..=0;
        }
    };
}

macro_rules! apis {
    ($(#[doc = $doc:literal] $name:ident = $key:literal, $module:ident::{$request:ident, $response:ident},
        flexible $flexible:expr, known $known:expr, served $served:expr, spoken $spoken:expr;)*) => {
        /// One of Kafka's APIs, with Kafka's number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $(#[doc = $doc] $name = $key,)*
        }

        impl ApiKey {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The one with Kafka's number `key`.
            #[must_use]
            pub fn from_key(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name of it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Describes it, in a sentence.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$name => $doc,)*
                }
            }

            /// The first version with the flexible encoding.
            #[must_use]
            pub fn flexible_from(self) -> i16 {
                match self {
                    $(Self::$name => $flexible,)*
                }
            }

            /// The versions that can be read and written.
            #[must_use]
            pub fn known(self) -> RangeInclusive<i16> {
                match self {
                    $(Self::$name => $known,)*
                }
            }

            /// The versions that our broker offers. Produce is offered from 0 and answered from 3, as Kafka does:
            /// older librdkafka switches compression off where it does not see version 0.
            #[must_use]
            pub fn served(self) -> RangeInclusive<i16> {
                match self {
                    $(Self::$name => $served,)*
                }
            }

            /// The versions that our client may choose.
            #[must_use]
            pub fn spoken(self) -> RangeInclusive<i16> {
                match self {
                    $(Self::$name => $spoken,)*
                }
            }
        }

        $(impl Request for messages::$module::$request {
            const API: ApiKey = ApiKey::$name;
            type Response = messages::$module::$response;
        })*
    };
}

with_apis!(apis);

impl ApiKey {
    /// Kafka's number of it.
    #[must_use]
    pub fn key(self) -> i16 {
        self as i16
    }

    /// The newest version that both we speak and a peer offers (`min` to `max`); `None` if there is none.
    #[must_use]
    pub fn choose(self, min: i16, max: i16) -> Option<i16> {
        let spoken = self.spoken();
        let version = max.min(*spoken.end());
        (version >= min && version >= *spoken.start()).then_some(version)
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
pub(super) use with_apis;
