//! Attacks on frames and connections.

use std::time::Duration;

use super::{Target, head};

#[test]
fn giant_frame() {
    let target = Target::start();
    for size in [i32::MAX, 1 << 30, (16 << 20) + 1] {
        let mut client = target.connect();
        client.send(&size.to_be_bytes());
        client.send(&[0; 1000]);
        assert!(client.is_cut());
    }
    target.assert_unharmed();
}

#[test]
fn negative_frame() {
    let target = Target::start();
    for size in [-1, i32::MIN] {
        let mut client = target.connect();
        client.send(&size.to_be_bytes());
        assert!(client.is_cut());
    }
    target.assert_unharmed();
}

#[test]
fn frame_shorter_than_a_header() {
    let target = Target::start();
    for body in [&[][..], &[0; 3], &[0; 4], &[0; 7]] {
        let mut client = target.connect();
        client.send_frame(body);
        assert!(client.is_cut(), "{body:?}");
    }
    target.assert_unharmed();
}

#[test]
fn tls_and_http_on_a_plain_port() {
    let target = Target::start();
    let hello: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
    for bytes in [
        hello,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ] {
        let mut client = target.connect();
        client.send(bytes);
        assert!(client.is_cut());
    }
    target.assert_unharmed();
}

#[test]
fn half_a_frame_and_gone() {
    let target = Target::start();
    for _ in 0..200 {
        let mut client = target.connect();
        client.send(&1_000_000i32.to_be_bytes());
        client.send(&[0; 10_000]);
    }
    target.assert_unharmed();
}

#[test]
fn large_frames_announced_and_never_sent() {
    let target = Target::start();
    let silent: Vec<_> = (0..200)
        .map(|_| {
            let mut client = target.connect();
            client.send(&(16i32 << 20).to_be_bytes());
            client.send(&[0; 100]);
            client
        })
        .collect();
    // They are still there while an honest client is served.
    target.serve_an_honest_client();
    assert_eq!(silent.len(), 200);
    target.assert_unharmed();
}

#[test]
fn large_frames_begun_and_never_finished() {
    let target = Target::start();
    let begun: Vec<_> = (0..64)
        .map(|_| {
            let mut client = target.connect();
            client.send(&(16i32 << 20).to_be_bytes());
            client.send(&vec![0; 100 << 10]);
            client
        })
        .collect();
    target.serve_an_honest_client();
    assert_eq!(begun.len(), 64);
    target.assert_unharmed_beside(64, 0);
}

#[test]
fn slow_loris() {
    let target = Target::start();
    let frame = [&10i32.to_be_bytes()[..], &head(3, 0)].concat();
    let mut clients: Vec<_> = (0..100).map(|_| target.connect()).collect();
    for byte in &frame[..frame.len() - 1] {
        for client in &mut clients {
            client.send(&[*byte]);
        }
        target.serve_an_honest_client();
    }
    // Unfinished requests are given up on.
    for client in &mut clients {
        assert!(client.is_cut());
    }
    target.assert_unharmed();
}

#[test]
fn thousands_of_connections_opened_and_dropped() {
    let target = Target::start();
    for _ in 0..3_000 {
        drop(target.connect());
    }
    target.assert_unharmed();
}

#[test]
fn more_half_open_connections_than_are_taken() {
    let target = Target::start();
    let mut silent = Vec::new();
    for _ in 0..4_500 {
        match std::net::TcpStream::connect_timeout(
            &target.address.parse().unwrap(),
            Duration::from_secs(5),
        ) {
            Ok(stream) => silent.push(stream),
            // This side has no more sockets: that is as many as this machine can open.
            Err(_) => break,
        }
    }
    assert!(silent.len() >= 400, "{}", silent.len());
    let count = silent.len();
    drop(silent.split_off(silent.len().min(1_500)));
    target.assert_unharmed_beside(count, 0);
}

#[test]
fn requests_without_end_whose_answers_nobody_reads() {
    let target = Target::start();
    let mut client = target.connect();
    client
        .stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    // Metadata of all topics, again and again, until nothing more can be sent.
    let body = [&head(3, 1)[..], &(-1i32).to_be_bytes()].concat();
    let frame = [&i32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
    let many = frame.repeat(1_000);
    for _ in 0..2_000 {
        if std::io::Write::write_all(&mut client.stream, &many).is_err() {
            break;
        }
    }
    target.serve_an_honest_client();
    target.assert_unharmed();
}
