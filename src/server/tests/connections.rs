//! Order, overlap, hang-ups, and the bounds of connections.

use std::time::Duration;

use super::support::{Client, HUGE, PANIC, PATIENCE, SILENT, SLOW, Scripted, wait};
use crate::protocol::wire::ApiKey;
use crate::server::Limits;

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests() {
    let scripted = Scripted::start(Limits::default());
    let mut client = scripted.client().await;
    for id in 0..100 {
        client.send(ApiKey::Metadata, 1, id).await;
    }
    for id in 0..100 {
        assert_eq!(client.receive().await, Some(id));
    }
}

#[tokio::test]
async fn produce_requests_overlap_and_are_answered_in_order() {
    let scripted = Scripted::start(Limits::default());
    let mut client = scripted.client().await;
    client.send(ApiKey::Produce, 3, SLOW).await;
    client.send(ApiKey::Produce, 3, 7).await;
    client.send(ApiKey::Produce, 3, SILENT).await;
    client.send(ApiKey::Produce, 3, SLOW + 1).await;
    scripted.script.wait_for(&[SLOW, 7, SILENT, SLOW + 1]).await;
    scripted.script.release(2);
    for expected in [SLOW, 7, SLOW + 1] {
        assert_eq!(client.receive().await, Some(expected));
    }
}

#[tokio::test]
async fn other_requests_wait_for_those_before_them() {
    let scripted = Scripted::start(Limits::default());
    let mut client = scripted.client().await;
    client.send(ApiKey::Produce, 3, SLOW).await;
    client.send(ApiKey::EndTxn, 1, 8).await;
    client.send(ApiKey::Produce, 3, 9).await;
    scripted.script.wait_for(&[SLOW]).await;
    // A second connection is not held up.
    let mut other = scripted.client().await;
    other.send(ApiKey::Metadata, 1, 5).await;
    assert_eq!(other.receive().await, Some(5));
    assert_eq!(*scripted.script.begun.lock(), [SLOW, 5]);
    scripted.script.release(1);
    for expected in [SLOW, 8, 9] {
        assert_eq!(client.receive().await, Some(expected));
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_takes_its_queued_requests_with_it() {
    let scripted = Scripted::start(Limits::default());
    let mut client = scripted.client().await;
    client.send(ApiKey::Fetch, 4, SLOW).await;
    scripted.script.wait_for(&[SLOW]).await;
    client.send(ApiKey::EndTxn, 1, 8).await;
    // No transactional id, acks = 0; then acks = 1.
    client
        .send_with(ApiKey::Produce, 3, 9, &[0xFF, 0xFF, 0, 0])
        .await;
    client
        .send_with(ApiKey::Produce, 3, 10, &[0xFF, 0xFF, 0, 1])
        .await;
    drop(client);
    // Only what was sent without wanting an answer is still taken.
    scripted.script.wait_for(&[SLOW, 9]).await;
    let mut other = scripted.client().await;
    other.send(ApiKey::Metadata, 1, 5).await;
    assert_eq!(other.receive().await, Some(5));
    assert_eq!(*scripted.script.begun.lock(), [SLOW, 9, 5]);
}

#[tokio::test]
async fn a_panic_ends_its_connection_and_no_other() {
    let scripted = Scripted::start(Limits::default());
    let (mut broken, mut other) = (scripted.client().await, scripted.client().await);
    broken.send(ApiKey::Metadata, 1, PANIC).await;
    assert_eq!(broken.receive().await, None);
    other.send(ApiKey::Metadata, 1, 5).await;
    assert_eq!(other.receive().await, Some(5));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away_until_another_ends() {
    let scripted = Scripted::start(Limits {
        connections_max: 2,
        ..Limits::default()
    });
    let is_served = |mut client: Client| async move {
        client.send(ApiKey::Metadata, 1, 1).await;
        (client.receive().await == Some(1)).then_some(client)
    };
    let first = is_served(scripted.client().await).await.unwrap();
    let _second = is_served(scripted.client().await).await.unwrap();
    let mut third = scripted.client().await;
    assert_eq!(third.receive().await, None);
    drop(first);
    let begin = tokio::time::Instant::now();
    loop {
        let mut client = scripted.client().await;
        // A connection that is turned away may be cut while it writes.
        let ping = [bytes::Bytes::from_static(&[
            0, 3, 0, 1, 0, 0, 0, 1, 0xFF, 0xFF,
        ])];
        if client.writer.write(&ping).await.is_ok() && client.receive().await == Some(1) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_hung_up_on_and_costs_nobody_else() {
    let scripted = Scripted::start(Limits {
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    });
    let (mut stalled, mut other) = (scripted.client().await, scripted.client().await);
    stalled.send(ApiKey::Fetch, 4, HUGE).await;
    stalled.send(ApiKey::Fetch, 4, HUGE).await;
    scripted.script.wait_for(&[HUGE]).await;
    other.send(ApiKey::Metadata, 1, 5).await;
    assert_eq!(other.receive().await, Some(5));
    // It takes nothing until the connection is cut, which writing to it shows.
    let begin = tokio::time::Instant::now();
    while stalled.writer.write_raw(&[0]).await.is_ok() {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(stalled.receive().await, None, "half an answer is none");
    assert!(!scripted.script.begun.lock()[1..].contains(&HUGE));
}

#[tokio::test]
async fn idle_and_slow_connections_are_closed() {
    let scripted = Scripted::start(Limits {
        idle_timeout: Duration::from_millis(200),
        receive_timeout: Duration::from_millis(200),
        ..Limits::default()
    });
    let mut idle = scripted.client().await;
    assert_eq!(idle.receive().await, None);
    let mut slow = scripted.client().await;
    let announced = 100i32.to_be_bytes();
    slow.writer.write_raw(&announced).await.unwrap();
    assert_eq!(slow.receive().await, None);
    assert!(scripted.script.begun.lock().is_empty());
}

#[tokio::test]
async fn a_stopping_server_finishes_what_it_is_at() {
    let scripted = Scripted::start(Limits::default());
    let mut client = scripted.client().await;
    client.send(ApiKey::Produce, 3, SLOW).await;
    scripted.script.wait_for(&[SLOW]).await;
    let address = scripted.server.address();
    let stopping = tokio::spawn(scripted.server.stop());
    let is_refused = || {
        let address = (address.host.as_str(), address.port);
        std::net::TcpStream::connect(address).is_err()
    };
    wait(is_refused).await;
    scripted.script.release(1);
    assert_eq!(client.receive().await, Some(SLOW));
    assert_eq!(client.receive().await, None);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_stopping_server_does_not_wait_for_ever() {
    let scripted = Scripted::start(Limits {
        stop_timeout: Duration::from_millis(100),
        ..Limits::default()
    });
    let mut client = scripted.client().await;
    client.send(ApiKey::Fetch, 4, SLOW).await;
    scripted.script.wait_for(&[SLOW]).await;
    scripted.server.stop().await;
    assert_eq!(client.receive().await, None);
}
