//! `judge`: what to do after a request failed: ask the same again, ask somebody else, or give up. No I/O.

use crate::client::ClientError;
use crate::protocol::{ErrorCode, ErrorKind};

/// Permission to repeat a request whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing, or the same thing again: it is sent again.
    Always,
    /// It may have taken effect, and would do so again: its caller is told that the outcome is unknown.
    IfRefused,
}

/// Next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The request is sent again after a pause, to whoever is responsible by then.
    Again,
    /// As [`Next::Again`], but only for a while: what is missing may be on its way, or never come.
    AgainForAWhile,
    /// The caller is told.
    GiveUp,
}

/// Decides what comes after `error`.
pub(super) fn judge(error: &ClientError, repeat: Repeat) -> Next {
    match error {
        ClientError::Connect {
            kind: ErrorKind::Retriable,
            ..
        } => Next::Again,
        ClientError::Unanswered {
            kind: ErrorKind::Retriable,
            ..
        } if repeat == Repeat::Always => Next::Again,
        ClientError::Refused { code, .. } => judge_code(*code, repeat),
        _ => Next::GiveUp,
    }
}

fn judge_code(code: ErrorCode, repeat: Repeat) -> Next {
    match code {
        ErrorCode::NotLeaderOrFollower
        | ErrorCode::LeaderNotAvailable
        | ErrorCode::ReplicaNotAvailable
        | ErrorCode::BrokerNotAvailable
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownLeaderEpoch
        | ErrorCode::OffsetNotAvailable
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator
        | ErrorCode::NotController
        | ErrorCode::ThrottlingQuotaExceeded
        | ErrorCode::KafkaStorageError => Next::Again,
        // The broker gave up waiting for others: the request may have taken effect.
        ErrorCode::RequestTimedOut | ErrorCode::NetworkException if repeat == Repeat::Always => {
            Next::Again
        }
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::UnknownTopicId
        | ErrorCode::InconsistentTopicId => Next::AgainForAWhile,
        _ => Next::GiveUp,
    }
}

/// Whether a request that changes something may have done so although it was refused with `code`: the broker lost its
/// place, its disk, its replicas or its way after it had written what it was to write.
///
/// Source: `TransactionCoordinator.endTransaction` and `TransactionStateManager.appendTransactionToLog` of Kafka 4, which
/// tell failed and late appends by these codes. An unexpected error is also Kafka's answer to a commit that comes while
/// it prepares to fence who asks.
pub(super) fn hides_an_effect(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownServerError
            | ErrorCode::RequestTimedOut
            | ErrorCode::NetworkException
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::KafkaStorageError
    )
}

/// The error with Kafka's number `code`; `None` for 0. Numbers that we don't know count as unexpected.
pub(super) fn error_of(code: i16) -> Option<ErrorCode> {
    match code {
        0 => None,
        code => Some(ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)),
    }
}

/// A refusal, in Kafka's words and the broker's own.
pub(super) fn refused(
    request: &'static str,
    code: ErrorCode,
    about: &str,
    words: Option<String>,
) -> ClientError {
    let words = words.filter(|words| !words.is_empty() && *words != code.to_string());
    let about = match about {
        "" => String::new(),
        about => format!("{about}: "),
    };
    let advice = advice(request, code).map_or_else(String::new, |advice| format!("; {advice}"));
    let message = match words {
        Some(words) => format!("{about}{code} ({words}){advice}"),
        None => format!("{about}{code}{advice}"),
    };
    ClientError::Refused {
        request,
        code,
        message,
        kind: code.kind(),
    }
}

/// Advises the cluster's operator on a refusal: which right is missing on what.
fn advice(request: &str, code: ErrorCode) -> Option<String> {
    let (operation, resource) = match code {
        ErrorCode::TopicAuthorizationFailed => (topic_right(request), "topic"),
        ErrorCode::GroupAuthorizationFailed => (group_right(request), "group"),
        ErrorCode::TransactionalIdAuthorizationFailed => match request {
            "FindCoordinator" | "DescribeTransactions" => ("Describe", "transactional-id"),
            _ => ("Write", "transactional-id"),
        },
        ErrorCode::ClusterAuthorizationFailed => match request {
            "CreateTopics" => ("Create", "cluster"),
            "InitProducerId" => ("IdempotentWrite", "cluster"),
            _ => ("Describe", "cluster"),
        },
        _ => return None,
    };
    Some(format!(
        "this user lacks the right {operation} (kafka-acls.sh --add --allow-principal User:… --operation {operation} --{resource} …)"
    ))
}

/// The right on a topic that a request needs.
fn topic_right(request: &str) -> &'static str {
    match request {
        "Produce" | "AddPartitionsToTxn" => "Write",
        "Fetch" | "OffsetCommit" | "TxnOffsetCommit" | "DescribeProducers" => "Read",
        "CreateTopics" => "Create",
        "DeleteTopics" | "DeleteRecords" => "Delete",
        "CreatePartitions" => "Alter",
        "DescribeConfigs" => "DescribeConfigs",
        "IncrementalAlterConfigs" => "AlterConfigs",
        _ => "Describe",
    }
}

/// The right on a group that a request needs.
fn group_right(request: &str) -> &'static str {
    match request {
        "FindCoordinator" | "OffsetFetch" | "DescribeGroups" | "ConsumerGroupDescribe" => {
            "Describe"
        }
        "DeleteGroups" => "Delete",
        _ => "Read",
    }
}
