//! Kafka's error codes, and what a caller may do about each.

/// Way out of an error for a caller (every layer's error has a `kind()`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The same call may succeed later.
    Retriable,
    /// The open transaction must be aborted; then the producer may go on.
    Abortable,
    /// Somebody else owns the identity now: stop.
    Fenced,
    /// Stored bytes are damaged.
    Corrupt,
    /// Neither retrying nor aborting helps.
    Fatal,
}

macro_rules! error_codes {
    ($($name:ident = $code:literal, $kind:ident, $message:literal;)*) => {
        /// An error of Kafka's protocol, with Kafka's number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $message] #[error($message)] $name = $code,)*
        }

        impl ErrorCode {
            /// Kafka's number of this error.
            #[must_use]
            pub fn code(self) -> i16 {
                self as i16
            }

            /// The error with Kafka's number `code`; `None` for 0 (no error) and for numbers not listed.
            #[must_use]
            pub fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Returns what a caller may do.
            #[must_use]
            pub fn kind(self) -> ErrorKind {
                match self {
                    $(Self::$name => ErrorKind::$kind,)*
                }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, Fatal, "the broker met an unexpected error: see its log";
    OffsetOutOfRange = 1, Fatal, "the offset is outside the partition: seek to its start or end";
    CorruptMessage = 2, Corrupt, "a record batch failed its checksum or structure checks";
    UnknownTopicOrPartition = 3, Retriable, "no such topic or partition: create it first";
    InvalidFetchSize = 4, Fatal, "the fetch size is not valid";
    LeaderNotAvailable = 5, Retriable, "the partition has no leader now";
    NotLeaderOrFollower = 6, Retriable, "this broker does not lead the partition";
    RequestTimedOut = 7, Retriable, "the request timed out";
    BrokerNotAvailable = 8, Fatal, "the broker is not available";
    ReplicaNotAvailable = 9, Retriable, "the replica is not available";
    MessageTooLarge = 10, Fatal, "the batch is larger than max.message.bytes of its topic";
    StaleControllerEpoch = 11, Fatal, "the request comes from an older controller";
    OffsetMetadataTooLarge = 12, Fatal, "the metadata of a position is longer than 4096 bytes";
    NetworkException = 13, Retriable, "the connection broke before the answer";
    CoordinatorLoadInProgress = 14, Retriable, "the coordinator is loading";
    CoordinatorNotAvailable = 15, Retriable, "the coordinator is not available";
    NotCoordinator = 16, Retriable, "this broker does not coordinate that id";
    InvalidTopicException = 17, Fatal, "the topic name is not valid, or the topic is internal";
    RecordListTooLarge = 18, Fatal, "the batch is larger than a segment";
    NotEnoughReplicas = 19, Retriable, "too few replicas in sync";
    NotEnoughReplicasAfterAppend = 20, Retriable, "the batch was written, to fewer replicas than required";
    InvalidRequiredAcks = 21, Fatal, "acks must be 0, 1 or all";
    IllegalGeneration = 22, Abortable, "the group has a newer generation";
    InconsistentGroupProtocol = 23, Fatal, "the group speaks another protocol than this member";
    InvalidGroupId = 24, Fatal, "the group id is not valid";
    UnknownMemberId = 25, Abortable, "the group does not know this member";
    InvalidSessionTimeout = 26, Fatal, "the session timeout is outside group.min.session.timeout.ms and group.max.session.timeout.ms";
    RebalanceInProgress = 27, Abortable, "the group is rebalancing: join it again";
    InvalidCommitOffsetSize = 28, Fatal, "the committed position is too large to be stored";
    TopicAuthorizationFailed = 29, Fatal, "not allowed to use the topic: ask for the right to";
    GroupAuthorizationFailed = 30, Fatal, "not allowed to use this group";
    ClusterAuthorizationFailed = 31, Fatal, "not allowed to do this to the cluster: ask for the right to";
    InvalidTimestamp = 32, Fatal, "a record's timestamp is outside the topic's bounds";
    UnsupportedSaslMechanism = 33, Fatal, "the broker does not offer this SASL mechanism";
    IllegalSaslState = 34, Fatal, "the request does not fit the state of the login";
    UnsupportedVersion = 35, Fatal, "the version is not supported";
    TopicAlreadyExists = 36, Fatal, "a topic of that name exists";
    InvalidPartitions = 37, Fatal, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, Fatal, "the replication factor is not valid: the embedded log keeps one copy";
    InvalidReplicaAssignment = 39, Fatal, "the assignment of replicas is not valid";
    InvalidConfig = 40, Fatal, "a topic setting is not valid";
    NotController = 41, Retriable, "this broker is not the controller";
    InvalidRequest = 42, Fatal, "the request is not valid";
    UnsupportedForMessageFormat = 43, Fatal, "the broker's message format does not support this";
    PolicyViolation = 44, Fatal, "the request breaks a policy";
    OutOfOrderSequenceNumber = 45, Abortable, "a batch of this producer is missing before this one";
    DuplicateSequenceNumber = 46, Abortable, "the batch was written before";
    InvalidProducerEpoch = 47, Abortable, "the producer epoch is older than the one the partition knows";
    InvalidTxnState = 48, Fatal, "the transaction is in a state that does not allow this";
    InvalidProducerIdMapping = 49, Fatal, "the producer id is not the one of this transactional id";
    InvalidTransactionTimeout = 50, Fatal, "the transaction timeout is not positive or above transaction.max.timeout.ms";
    ConcurrentTransactions = 51, Retriable, "the transactional id has another transition in flight";
    TransactionCoordinatorFenced = 52, Fenced, "the marker comes from an older coordinator";
    TransactionalIdAuthorizationFailed = 53, Fatal, "not allowed to use the transactional id: ask for the right to";
    SecurityDisabled = 54, Fatal, "the broker has no access rules switched on";
    OperationNotAttempted = 55, Fatal, "not attempted, since another part of the request failed";
    KafkaStorageError = 56, Retriable, "the log cannot write or read its files: see the broker's log, and reopen it";
    LogDirNotFound = 57, Fatal, "no such log directory";
    SaslAuthenticationFailed = 58, Fatal, "the login failed: check user and password";
    UnknownProducerId = 59, Abortable, "the partition does not know this producer";
    ReassignmentInProgress = 60, Fatal, "the partition is being moved";
    DelegationTokenAuthDisabled = 61, Fatal, "delegation tokens are switched off";
    DelegationTokenNotFound = 62, Fatal, "no such delegation token";
    DelegationTokenOwnerMismatch = 63, Fatal, "the delegation token belongs to somebody else";
    DelegationTokenRequestNotAllowed = 64, Fatal, "delegation tokens are not given out on this connection";
    DelegationTokenAuthorizationFailed = 65, Fatal, "not allowed to use the delegation token";
    DelegationTokenExpired = 66, Fatal, "the delegation token has expired";
    InvalidPrincipalType = 67, Fatal, "the type of principal is not supported";
    NonEmptyGroup = 68, Fatal, "the group has members";
    GroupIdNotFound = 69, Fatal, "no such group";
    FetchSessionIdNotFound = 70, Retriable, "the broker does not know the fetch session";
    InvalidFetchSessionEpoch = 71, Retriable, "the fetch session is at another epoch";
    ListenerNotFound = 72, Retriable, "the leader has no such listener";
    TopicDeletionDisabled = 73, Fatal, "deleting topics is switched off";
    FencedLeaderEpoch = 74, Retriable, "the leader epoch is older than the broker's: refresh the metadata";
    UnknownLeaderEpoch = 75, Retriable, "the leader epoch is newer than the broker's";
    UnsupportedCompressionType = 76, Fatal, "the compression type is not supported";
    StaleBrokerEpoch = 77, Fatal, "the broker has registered again since";
    OffsetNotAvailable = 78, Retriable, "the new leader does not know its end yet";
    MemberIdRequired = 79, Retriable, "the member has an id now, and joins with it";
    PreferredLeaderNotAvailable = 80, Retriable, "the preferred leader is not available";
    GroupMaxSizeReached = 81, Fatal, "the group has as many members as group.max.size allows";
    FencedInstanceId = 82, Fenced, "another member has this group.instance.id";
    EligibleLeadersNotAvailable = 83, Retriable, "no replica may become leader now";
    ElectionNotNeeded = 84, Retriable, "the partition has its leader already";
    NoReassignmentInProgress = 85, Fatal, "the partition is not being moved";
    GroupSubscribedToTopic = 86, Fatal, "the group reads this topic: its positions cannot be deleted";
    InvalidRecord = 87, Fatal, "a record breaks a rule of its topic or of the format";
    UnstableOffsetCommit = 88, Retriable, "an open transaction holds offsets of this group: retry when it ended";
    ThrottlingQuotaExceeded = 89, Retriable, "over the quota: try again later";
    ProducerFenced = 90, Fenced, "a newer producer has this transactional id";
    ResourceNotFound = 91, Fatal, "no such resource";
    DuplicateResource = 92, Fatal, "the request names the same resource twice";
    UnacceptableCredential = 93, Fatal, "the credential is not acceptable";
    InconsistentVoterSet = 94, Fatal, "the voters do not agree";
    InvalidUpdateVersion = 95, Fatal, "the version to be set is not valid";
    FeatureUpdateFailed = 96, Fatal, "the features were not changed";
    PrincipalDeserializationFailure = 97, Fatal, "the forwarded principal cannot be read";
    SnapshotNotFound = 98, Fatal, "no such snapshot";
    PositionOutOfRange = 99, Fatal, "the position is outside the snapshot";
    UnknownTopicId = 100, Retriable, "no topic has this id: refresh the metadata";
    DuplicateBrokerRegistration = 101, Fatal, "a broker with this id is registered";
    BrokerIdNotRegistered = 102, Fatal, "no broker with this id is registered";
    InconsistentTopicId = 103, Retriable, "the partition belongs to a topic of another id: refresh the metadata";
    InconsistentClusterId = 104, Fatal, "the request is meant for another cluster";
    TransactionalIdNotFound = 105, Fatal, "no such transactional id";
    FetchSessionTopicIdError = 106, Retriable, "the fetch session names topics in another way";
    IneligibleReplica = 107, Fatal, "the replica may not join";
    NewLeaderElected = 108, Fatal, "the partition has a new leader";
    OffsetMovedToTieredStorage = 109, Retriable, "the offset is in remote storage";
    FencedMemberEpoch = 110, Abortable, "the group has another epoch of this member: give the partitions up and join again";
    UnreleasedInstanceId = 111, Retriable, "another member has this group.instance.id and has not left";
    UnsupportedAssignor = 112, Fatal, "the group has no such assignor";
    StaleMemberEpoch = 113, Retriable, "the member has a newer epoch";
    MismatchedEndpointType = 114, Fatal, "the request was sent to another kind of endpoint";
    UnsupportedEndpointType = 115, Fatal, "the kind of endpoint is not known";
    UnknownControllerId = 116, Fatal, "no such controller";
    UnknownSubscriptionId = 117, Fatal, "the telemetry subscription has changed";
    TelemetryTooLarge = 118, Fatal, "the telemetry is larger than the broker takes";
    InvalidRegistration = 119, Fatal, "the broker's registration is not valid";
    TransactionAbortable = 120, Abortable, "the transaction must be aborted";
    InvalidRecordState = 121, Fatal, "the record cannot be acknowledged in its state";
    ShareSessionNotFound = 122, Retriable, "the broker does not know the share session";
    InvalidShareSessionEpoch = 123, Retriable, "the share session is at another epoch";
    FencedStateEpoch = 124, Fatal, "the share coordinator has a newer state";
    InvalidVoterKey = 125, Fatal, "the voter key is not the one stored";
    DuplicateVoter = 126, Fatal, "the voter is there already";
    VoterNotFound = 127, Fatal, "no such voter";
    InvalidRegularExpression = 128, Fatal, "the regular expression is not valid";
    RebootstrapRequired = 129, Fatal, "the client must start over from its bootstrap servers";
    StreamsInvalidTopology = 130, Fatal, "the streams topology is not valid";
}
