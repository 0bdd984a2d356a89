//! Effects that are requests over TLS: to a server whose certificate is trusted, and to servers whose certificate is not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use onceflow::operators::HttpTarget;
use onceflow::prelude::*;
use onceflow::runtime::Pem;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::support::{Told, assert_told, clicks, tells};
use crate::jobs::support::{Place, committed, run};
use crate::secured::certificates::{Authority, Signed};
use crate::time::support::{Click, feed, left_in_store, ms, topic_of_clicks};

/// A server that says yes to every request that comes over a handshake; it is gone when it is dropped.
struct Server {
    port: u16,
    told: Arc<Mutex<Vec<Told>>>,
    attempts: Arc<AtomicUsize>,
    is_gone: Arc<AtomicBool>,
}

impl Server {
    fn begin(signed: &Signed) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(
            tokio_rustls::rustls::crypto::ring::default_provider(),
        ));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key);
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            told: Arc::default(),
            attempts: Arc::default(),
            is_gone: Arc::default(),
        };
        let (told, attempts) = (Arc::clone(&server.told), Arc::clone(&server.attempts));
        let is_gone = Arc::clone(&server.is_gone);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_gone.load(Ordering::SeqCst) {
                    return;
                }
                attempts.fetch_add(1, Ordering::SeqCst);
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let stream = StreamOwned::new(connection, stream.unwrap());
                let told = Arc::clone(&told);
                // A client that does not trust it goes away in the handshake.
                std::thread::spawn(move || drop(serve(stream, &told)));
            }
        });
        server
    }

    fn target(&self, host: &str) -> HttpTarget<String, Click> {
        HttpTarget::post(format!("https://{host}:{}/clicks", self.port))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(std::net::TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn serve(stream: impl Read + Write, told: &Mutex<Vec<Told>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut key, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("idempotency-key") => {
                    value.clone_into(&mut key);
                }
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap();
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let (user, number): Click = serde_json::from_slice(&body).unwrap();
        told.lock().unwrap().push((user, number, key));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer)?;
        stream.get_mut().flush()?;
    }
}

fn policy() -> EffectPolicy {
    EffectPolicy::parallel(4).pause(ms(1), ms(5)).attempts(3)
}

/// Tells a server of some clicks; returns why the dead letters could not be delivered.
fn refusals(target: HttpTarget<String, Click>, all: &[Click]) -> Vec<String> {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, all);
    run(tells(target, policy(), false), &log).unwrap();
    assert_eq!(left_in_store(&log, "tells", "tell"), 0);
    let dead = committed(&log, "dead");
    let why = dead
        .iter()
        .map(|it| it.header("onceflow.failed").to_owned());
    why.collect()
}

#[test]
fn o11_requests_go_over_tls_to_a_server_whose_authority_is_trusted() {
    let authority = Authority::new("the shop's own");
    let server = Server::begin(&authority.sign("localhost", "shop"));
    let target = server.target("localhost").trust(Pem::Text(authority.pem));
    let all = clicks(0, 40, 7);
    assert_eq!(refusals(target, &all), [""; 0]);
    assert_told(&server.told.lock().unwrap(), &all);
    let connections = server.attempts.load(Ordering::SeqCst);
    assert!(connections <= 8, "{connections} handshakes for 40 requests");
}

#[test]
fn o11_a_server_whose_certificate_is_not_trusted_gets_no_request_and_the_reason_is_clear() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let cases = [
        // Another authority's; another host's; one that is over; one that the system does not know.
        (
            theirs.sign("localhost", "shop"),
            Some(&ours),
            "another authority signed",
        ),
        (ours.sign("shop.example", "shop"), Some(&ours), "name"),
        (ours.sign_expired("localhost"), Some(&ours), "expired"),
        (ours.sign("localhost", "shop"), None, "authority"),
    ];
    for (signed, trusted, why) in cases {
        let server = Server::begin(&signed);
        let mut target = server.target("localhost");
        if let Some(trusted) = trusted {
            target = target.trust(Pem::Text(trusted.pem.clone()));
        }
        let refusals = refusals(target, &clicks(0, 1, 1));
        let [refusal] = &refusals[..] else {
            panic!("{refusals:?}")
        };
        let place = format!("localhost:{}", server.port);
        for part in [place.as_str(), why, "certificate", "the last of 3 attempts"] {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
        // The words are about a server of HTTP.
        for part in ["ssl.truststore", "bootstrap.servers", "broker"] {
            assert!(!refusal.contains(part), "{part}: {refusal}");
        }
        assert_eq!(server.told.lock().unwrap().len(), 0);
        assert!(server.attempts.load(Ordering::SeqCst) >= 3);
    }
}
