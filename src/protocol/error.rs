//! Kafka's error codes, and what a caller may do about each.

/// What a caller does about an error (every layer's error has a `kind()`).
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

            /// What a caller may do about it.
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
    NotLeaderOrFollower = 6, Retriable, "this broker does not lead the partition";
    RequestTimedOut = 7, Retriable, "the request timed out";
    MessageTooLarge = 10, Fatal, "the batch is larger than max.message.bytes of its topic";
    OffsetMetadataTooLarge = 12, Fatal, "the metadata of a position is longer than 4096 bytes";
    CoordinatorLoadInProgress = 14, Retriable, "the coordinator is loading";
    CoordinatorNotAvailable = 15, Retriable, "the coordinator is not available";
    NotCoordinator = 16, Retriable, "this broker does not coordinate that id";
    InvalidTopicException = 17, Fatal, "the topic name is not valid, or the topic is internal";
    RecordListTooLarge = 18, Fatal, "the batch is larger than a segment";
    NotEnoughReplicas = 19, Retriable, "too few replicas in sync";
    InvalidRequiredAcks = 21, Fatal, "acks must be 0, 1 or all";
    IllegalGeneration = 22, Abortable, "the group has a newer generation";
    InconsistentGroupProtocol = 23, Fatal, "the group speaks another protocol than this member";
    InvalidGroupId = 24, Fatal, "the group id is not valid";
    UnknownMemberId = 25, Abortable, "the group does not know this member";
    InvalidSessionTimeout = 26, Fatal, "the session timeout is outside group.min.session.timeout.ms and group.max.session.timeout.ms";
    RebalanceInProgress = 27, Abortable, "the group is rebalancing: join it again";
    GroupAuthorizationFailed = 30, Fatal, "not allowed to use this group";
    InvalidTimestamp = 32, Fatal, "a record's timestamp is outside the topic's bounds";
    UnsupportedVersion = 35, Fatal, "the version is not supported";
    TopicAlreadyExists = 36, Fatal, "a topic of that name exists";
    InvalidPartitions = 37, Fatal, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, Fatal, "the replication factor is not valid: the embedded log keeps one copy";
    InvalidConfig = 40, Fatal, "a topic setting is not valid";
    InvalidRequest = 42, Fatal, "the request is not valid";
    PolicyViolation = 44, Fatal, "the request breaks a policy";
    OutOfOrderSequenceNumber = 45, Abortable, "a batch of this producer is missing before this one";
    DuplicateSequenceNumber = 46, Abortable, "the batch was written before";
    InvalidProducerEpoch = 47, Abortable, "the producer epoch is older than the one the partition knows";
    InvalidTxnState = 48, Fatal, "the transaction is in a state that does not allow this";
    InvalidProducerIdMapping = 49, Fatal, "the producer id is not the one of this transactional id";
    InvalidTransactionTimeout = 50, Fatal, "the transaction timeout is not positive or above transaction.max.timeout.ms";
    ConcurrentTransactions = 51, Retriable, "the transactional id has another transition in flight";
    TransactionCoordinatorFenced = 52, Fenced, "the marker comes from an older coordinator";
    KafkaStorageError = 56, Retriable, "the log cannot write or read its files: see the broker's log, and reopen it";
    UnknownProducerId = 59, Abortable, "the partition does not know this producer";
    NonEmptyGroup = 68, Fatal, "the group has members";
    GroupIdNotFound = 69, Fatal, "no such group";
    UnsupportedCompressionType = 76, Fatal, "the compression type is not supported";
    MemberIdRequired = 79, Retriable, "the member has an id now, and joins with it";
    GroupMaxSizeReached = 81, Fatal, "the group has as many members as group.max.size allows";
    FencedInstanceId = 82, Fenced, "another member has this group.instance.id";
    GroupSubscribedToTopic = 86, Fatal, "the group reads this topic: its positions cannot be deleted";
    InvalidRecord = 87, Fatal, "a record breaks a rule of its topic or of the format";
    UnstableOffsetCommit = 88, Retriable, "an open transaction holds offsets of this group: retry when it ended";
    ProducerFenced = 90, Fenced, "a newer producer has this transactional id";
    TransactionalIdNotFound = 105, Fatal, "no such transactional id";
    FencedMemberEpoch = 110, Abortable, "the group has another epoch of this member: give the partitions up and join again";
    UnreleasedInstanceId = 111, Retriable, "another member has this group.instance.id and has not left";
    UnsupportedAssignor = 112, Fatal, "the group has no such assignor";
    StaleMemberEpoch = 113, Retriable, "the member has a newer epoch";
    TransactionAbortable = 120, Abortable, "the transaction must be aborted";
}
