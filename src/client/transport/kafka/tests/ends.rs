//! Fate of a transaction whose end was refused: what may have had its effect is never told as if it had none,
//! and who takes an id over gets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fake::Fake;
use crate::client::transport::Transport;
use crate::client::{ClientError, TransactionalWriter, wait};
use crate::protocol::messages::{EndTxnRequest, TransactionResult};
use crate::protocol::wire::ApiKey;
use crate::protocol::wire::messages::end_txn as wire;
use crate::protocol::wire::messages::init_producer_id::{
    InitProducerIdRequest, InitProducerIdResponse,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{ProducerEpoch, ProducerId, ProducerIdentity, TransactionalId};

/// Commits; returns the outcome and the attempts, if the coordinator refuses it with `codes` first.
fn commit(
    codes: &'static [ErrorCode],
    protocol: &str,
) -> (Result<ProducerIdentity, ClientError>, usize) {
    let count = AtomicUsize::new(0);
    let fake = Fake::new(move |asked| {
        (asked.api == ApiKey::EndTxn).then(|| {
            let code = codes.get(count.fetch_add(1, Ordering::SeqCst));
            let request: wire::EndTxnRequest = asked.request();
            let response = wire::EndTxnResponse {
                error_code: code.map_or(0, |code| code.code()),
                producer_id: request.producer_id,
                producer_epoch: request.producer_epoch + 1,
                ..wire::EndTxnResponse::default()
            };
            asked.answer::<wire::EndTxnRequest>(&response)
        })
    });
    let settings = [
        ("retry.backoff.ms", "1"),
        ("transaction.protocol", protocol),
    ];
    let kafka = fake.connect(&settings);
    let outcome = wait(kafka.end_txn(EndTxnRequest {
        transactional_id: TransactionalId::new("id").unwrap(),
        producer: ProducerIdentity {
            id: ProducerId(7),
            epoch: ProducerEpoch(3),
        },
        result: TransactionResult::Commit,
    }));
    (outcome, fake.asked(ApiKey::EndTxn).len())
}

fn refused(codes: &'static [ErrorCode], protocol: &str) -> ClientError {
    commit(codes, protocol).0.unwrap_err()
}

/// All that may stand before a refusal that is clear.
const UNCLEAR: [&[ErrorCode]; 3] = [
    &[ErrorCode::NotCoordinator, ErrorCode::ProducerFenced],
    &[
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::ProducerFenced,
    ],
    &[ErrorCode::KafkaStorageError, ErrorCode::ProducerFenced],
];

#[test]
fn k1_an_end_without_a_clear_answer_may_be_asked_for_again() {
    for codes in [
        &[ErrorCode::UnknownServerError],
        &[ErrorCode::RequestTimedOut],
        &[ErrorCode::NetworkException],
    ] {
        let (outcome, asked) = commit(codes, "v2");
        let told = outcome.unwrap_err();
        assert!(told.is_outcome_unknown(), "{told}");
        assert_eq!(told.kind(), ErrorKind::Retriable, "{told}");
        assert_eq!(asked, 1, "{told}");
    }
}

#[test]
fn k1_a_clear_refusal_after_an_unclear_one_leaves_the_outcome_unknown() {
    for codes in UNCLEAR {
        let (outcome, asked) = commit(codes, "v2");
        let told = outcome.unwrap_err();
        assert!(told.is_outcome_unknown(), "{codes:?}: {told}");
        // I4: who took over is known all the same.
        assert_eq!(told.kind(), ErrorKind::Fenced, "{codes:?}: {told}");
        assert_eq!(asked, 2, "{codes:?}");
    }
    let told = refused(&[ErrorCode::ProducerFenced], "v2");
    assert!(!told.is_outcome_unknown(), "{told}");
    assert_eq!(told.kind(), ErrorKind::Fenced, "{told}");
}

#[test]
fn an_end_that_is_asked_for_again_gives_the_next_epoch() {
    for codes in [
        &[ErrorCode::NotCoordinator],
        &[ErrorCode::CoordinatorNotAvailable],
        &[ErrorCode::CoordinatorLoadInProgress],
    ] {
        let (outcome, asked) = commit(codes, "v2");
        assert_eq!(outcome.unwrap().epoch, ProducerEpoch(4), "{codes:?}");
        assert_eq!(asked, 2, "{codes:?}");
    }
}

#[test]
fn c22_a_transaction_that_timed_out_was_not_committed_by_any_attempt() {
    let told = refused(
        &[ErrorCode::NotCoordinator, ErrorCode::InvalidTxnState],
        "v2",
    );
    assert_eq!(told.code(), Some(ErrorCode::TransactionAbortable), "{told}");
    assert!(!told.is_outcome_unknown(), "{told}");
}

#[test]
fn k2_under_the_older_protocol_an_end_without_a_clear_answer_retires_the_producer() {
    let (outcome, asked) = commit(&[ErrorCode::UnknownServerError], "v1");
    let told = outcome.unwrap_err();
    assert!(told.is_outcome_unknown(), "{told}");
    assert_eq!(told.kind(), ErrorKind::Fatal, "{told}");
    assert_eq!(asked, 1, "{told}");
}

#[test]
fn c11_who_takes_an_id_over_is_not_fenced_by_who_aborts_just_then() {
    let count = AtomicUsize::new(0);
    let fake = Fake::new(move |asked| {
        let is_first = || count.fetch_add(1, Ordering::SeqCst) == 0;
        (asked.api == ApiKey::InitProducerId && is_first()).then(|| {
            let refusal = InitProducerIdResponse {
                error_code: ErrorCode::ProducerFenced.code(),
                ..InitProducerIdResponse::default()
            };
            asked.answer::<InitProducerIdRequest>(&refusal)
        })
    });
    let id = TransactionalId::new("id").unwrap();
    let transport = Arc::new(fake.connect(&[]));
    let writer = wait(TransactionalWriter::init(
        transport,
        id,
        Duration::from_secs(60),
    ));
    assert_eq!(writer.unwrap().identity().id, ProducerId(7));
    assert_eq!(fake.asked(ApiKey::InitProducerId).len(), 2);
}
