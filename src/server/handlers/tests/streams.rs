//! Large answers, over real sockets: sent as they are read, to readers of any pace.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::{Fixture, batch, fetch_request, values};
use crate::env::Env;
use crate::protocol::batch::BatchProducer;
use crate::protocol::wire::messages::fetch::{FetchRequest, FetchResponse};
use crate::protocol::wire::{decode_response, encode_request};
use crate::server::{Limits, Server, ServerConfig};

/// Patience of a client for a piece.
const PATIENCE: Duration = Duration::from_secs(12);

/// A server on the fixture's broker.
fn serve(fixture: &Fixture) -> Server {
    let mut config = ServerConfig {
        limits: Limits {
            write_timeout: PATIENCE,
            ..Limits::default()
        },
        ..ServerConfig::default()
    };
    config.listen.port = 0;
    let data = fixture.dir.path().join("data");
    Server::start(&Env::real(), &fixture.dispatch.broker, &data, config).unwrap()
}

/// Asks for everything, and takes the answer `step_bytes` at a time with a rest after each.
async fn read_slowly(address: SocketAddr, step_bytes: usize, rest: Duration) -> FetchResponse {
    let socket = TcpSocket::new_v4().unwrap();
    // Little waits in the kernel on this side.
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let mut request = fetch_request("t", 0, 0);
    request.max_bytes = i32::MAX;
    request.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    let frame = encode_request(12, 1, None, &request).unwrap().to_bytes();
    stream
        .write_i32(i32::try_from(frame.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&frame).await.unwrap();
    let size_bytes = stream.read_i32().await.unwrap();
    let mut answer = vec![0; usize::try_from(size_bytes).unwrap()];
    for step in answer.chunks_mut(step_bytes) {
        stream.read_exact(step).await.unwrap();
        tokio::time::sleep(rest).await;
    }
    let (_, response) = decode_response::<FetchRequest>(12, Bytes::from(answer)).unwrap();
    response
}

#[tokio::test]
async fn a_slow_reader_gets_a_large_answer_as_long_as_it_takes_some_of_it() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let value = "x".repeat(500_000);
    for _ in 0..40 {
        let answer = fixture
            .produce(9, "t", None, batch(&[&value], BatchProducer::Plain))
            .await;
        assert_eq!(answer.error_code, 0);
    }
    let server = serve(&fixture);
    let address = server.address().to_string().parse().unwrap();
    // In all it takes longer than the server would wait for a piece.
    let response = read_slowly(address, 2_000_000, PATIENCE / 6).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!(values(&partition.records), vec![value; 40]);
    server.stop().await;
}
