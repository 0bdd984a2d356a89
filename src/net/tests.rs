//! Frames over real sockets, with TLS and without; names, certificates and what must be refused.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;
use crate::env::Env;
use crate::protocol::ErrorKind;

const LIMIT: Duration = Duration::from_secs(10);
const FRAME_BYTES_MAX: usize = 1 << 20;

/// An authority, and what it signed.
struct Authority {
    pem: Pem,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: Pem::Text(certificate.pem()),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for `host`, whose subject has these attributes, and its key.
    fn sign(&self, host: &str, subject: &[(DnType, &str)]) -> (Pem, Pem) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (attribute, value) in subject {
            params.distinguished_name.push(attribute.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (Pem::Text(certificate.pem()), Pem::Text(key.serialize_pem()))
    }

    fn server(&self, host: &str, client_auth: ClientAuth) -> ServerTls {
        let (certificate, key) = self.sign(host, &[]);
        let settings = ServerTlsSettings {
            certificate,
            key,
            client_ca: Some(self.pem.clone()),
            client_auth,
        };
        ServerTls::new(&Env::real(), &settings).unwrap()
    }

    fn client(&self, settings: ClientTlsSettings) -> ClientTls {
        let settings = ClientTlsSettings {
            ca: Some(self.pem.clone()),
            ..settings
        };
        ClientTls::new(&Env::real(), &settings).unwrap()
    }
}

/// Both ends of one connection, or why it could not be made.
async fn pair(
    server: Option<ServerTls>,
    client: Option<ClientTls>,
) -> (Result<Connection, NetError>, Result<Connection, NetError>) {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let mut address = Address::from(listener.local().unwrap());
    if client.is_some() {
        address.host = "localhost".to_owned();
    }
    let accepted = tokio::spawn(async move {
        let incoming = listener.accept().await?;
        incoming.establish(server.as_ref(), LIMIT).await
    });
    let connected = connect(&address, client.as_ref(), ConnectTimeouts::default()).await;
    (accepted.await.unwrap(), connected)
}

async fn frames_survive(accepted: Connection, connected: Connection) {
    let (mut reader, mut back) = accepted.split(FRAME_BYTES_MAX);
    let (mut answers, mut writer) = connected.split(FRAME_BYTES_MAX);
    let sent: Vec<Vec<Bytes>> = [4, 5, 4_095, 4_096, 70_000, 1 << 20]
        .into_iter()
        .enumerate()
        .map(|(n, size)| {
            let byte = u8::try_from(n).unwrap();
            let (head, tail) = (vec![byte; 3], vec![byte + 100; size - 3]);
            vec![head.into(), Bytes::new(), tail.into()]
        })
        .collect();
    let expected: Vec<Vec<u8>> = sent.iter().map(|chunks| chunks.concat()).collect();
    let write = tokio::spawn(async move {
        writer.write_frames(&sent).await.unwrap();
        writer.write(&[Bytes::from_static(b"last")]).await.unwrap();
        writer.shutdown().await.unwrap();
        answers.next().await.unwrap()
    });
    for frame in expected {
        assert_eq!(reader.next().await.unwrap().unwrap(), frame);
    }
    assert_eq!(reader.next().await.unwrap().unwrap(), &b"last"[..]);
    assert!(
        reader.next().await.unwrap().is_none(),
        "an end between frames is no error"
    );
    back.write(&[Bytes::from_static(b"fine")]).await.unwrap();
    assert_eq!(write.await.unwrap().unwrap(), &b"fine"[..]);
}

#[tokio::test]
async fn frames_of_all_sizes_arrive_whole() {
    let (accepted, connected) = pair(None, None).await;
    frames_survive(accepted.unwrap(), connected.unwrap()).await;
}

#[tokio::test]
async fn frames_of_all_sizes_arrive_whole_over_tls() {
    let authority = Authority::new();
    let server = authority.server("localhost", ClientAuth::None);
    let client = authority.client(ClientTlsSettings::default());
    let (accepted, connected) = pair(Some(server), Some(client)).await;
    let accepted = accepted.unwrap();
    assert!(accepted.is_tls() && accepted.peer_subject().is_none());
    frames_survive(accepted, connected.unwrap()).await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_unless_names_are_not_verified() {
    let authority = Authority::new();
    let server = || authority.server("elsewhere.example", ClientAuth::None);
    let strict = authority.client(ClientTlsSettings::default());
    let (_, refused) = pair(Some(server()), Some(strict)).await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, NetError::Handshake { .. }) && refused.kind() == ErrorKind::Fatal,
        "{refused}"
    );
    let lax = authority.client(ClientTlsSettings {
        verify_hostname: false,
        ..ClientTlsSettings::default()
    });
    let (accepted, connected) = pair(Some(server()), Some(lax.clone())).await;
    frames_survive(accepted.unwrap(), connected.unwrap()).await;
    // But the authority still counts.
    let stranger = Authority::new().server("elsewhere.example", ClientAuth::None);
    assert!(pair(Some(stranger), Some(lax)).await.1.is_err());
}

#[tokio::test]
async fn a_certificate_of_a_strange_authority_is_refused() {
    let server = Authority::new().server("localhost", ClientAuth::None);
    let client = Authority::new().client(ClientTlsSettings::default());
    let (accepted, connected) = pair(Some(server), Some(client)).await;
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::Fatal);
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_clients_certificate_says_who_it_is() {
    let authority = Authority::new();
    let subject = [
        (DnType::OrganizationName, "Example, Inc."),
        (DnType::OrganizationalUnitName, "jobs"),
        (DnType::CommonName, "alice"),
    ];
    let (certificate, key) = authority.sign("alice.example", &subject);
    let client = authority.client(ClientTlsSettings {
        certificate: Some(certificate),
        key: Some(key),
        ..ClientTlsSettings::default()
    });
    let server = authority.server("localhost", ClientAuth::Required);
    let (accepted, connected) = pair(Some(server), Some(client)).await;
    let accepted = accepted.unwrap();
    let name = accepted.peer_subject();
    assert_eq!(name.as_deref(), Some("CN=alice,OU=jobs,O=Example\\, Inc."));
    frames_survive(accepted, connected.unwrap()).await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away_where_one_is_required() {
    let authority = Authority::new();
    let server = authority.server("localhost", ClientAuth::Required);
    let client = authority.client(ClientTlsSettings::default());
    let (accepted, _) = pair(Some(server), Some(client)).await;
    assert!(matches!(accepted, Err(NetError::Handshake { .. })));
}

#[tokio::test]
async fn hostile_sizes_are_refused_before_anything_is_allocated() {
    for (size, is_large) in [
        (i32::MAX, true),
        (-1, true),
        (i32::MIN, true),
        (0x1503_0100, true),
        (3, false),
        (0, false),
    ] {
        let (accepted, connected) = pair(None, None).await;
        let (mut reader, _keep) = accepted.unwrap().split(FRAME_BYTES_MAX);
        let (_keep, mut writer) = connected.unwrap().split(FRAME_BYTES_MAX);
        // A frame whose body is a hostile size: its first four bytes are cut off as the size of the good frame.
        let good = Bytes::from_static(b"good");
        writer.write(&[good]).await.unwrap();
        writer.write_raw(&size.to_be_bytes()).await.unwrap();
        assert!(reader.next().await.unwrap().is_some());
        let refused = reader.next().await.unwrap_err();
        assert_eq!(
            matches!(refused, NetError::FrameTooLarge { .. }),
            is_large,
            "{refused}"
        );
        assert!(reader.buffered_capacity() <= 64 << 10);
    }
}

#[tokio::test]
async fn memory_follows_the_bytes_that_came_and_not_the_size_announced() {
    let (accepted, connected) = pair(None, None).await;
    let (mut reader, _keep) = accepted.unwrap().split(64 << 20);
    let (_keep, mut writer) = connected.unwrap().split(FRAME_BYTES_MAX);
    let announced = (64i32 << 20).to_be_bytes();
    writer.write_raw(&announced).await.unwrap();
    writer.write_raw(&[0; 1000]).await.unwrap();
    let pending = tokio::time::timeout(Duration::from_millis(50), reader.next()).await;
    assert!(pending.is_err(), "the frame is not whole");
    assert!(reader.buffered_capacity() <= 256 << 10);
    writer.shutdown().await.unwrap();
    assert!(matches!(reader.next().await, Err(NetError::Closed)));
}

#[tokio::test]
async fn a_busy_connection_is_read_ahead_and_an_idle_one_holds_little() {
    let (accepted, connected) = pair(None, None).await;
    let (mut reader, _keep) = accepted.unwrap().split(FRAME_BYTES_MAX);
    let (_keep, mut writer) = connected.unwrap().split(FRAME_BYTES_MAX);
    let frames = vec![vec![Bytes::from(vec![7; 1000])]; 60];
    writer.write_frames(&frames).await.unwrap();
    let mut ahead_count = 0;
    for _ in &frames {
        assert_eq!(reader.next().await.unwrap().unwrap().len(), 1000);
        ahead_count += usize::from(reader.has_next());
    }
    assert!(ahead_count > 30, "{ahead_count} of 60 were read ahead");
    let pending = tokio::time::timeout(Duration::from_millis(50), reader.next()).await;
    assert!(pending.is_err(), "nothing more was sent");
    assert!(reader.buffered_capacity() <= 4 << 10);
}

#[tokio::test]
async fn nobody_listening_is_said_with_the_address() {
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let address = Address::from(listener.local().unwrap());
    assert!(matches!(
        Listener::bind(&address),
        Err(NetError::Listen { .. })
    ));
    drop(listener);
    let refused = connect(&address, None, ConnectTimeouts::default())
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains(&address.to_string()),
        "{refused}"
    );
    assert_eq!(refused.kind(), ErrorKind::Retriable);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_times_out() {
    let authority = Authority::new();
    let server = authority.server("localhost", ClientAuth::None);
    let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let address = Address::from(listener.local().unwrap());
    let _silent = connect(&address, None, ConnectTimeouts::default())
        .await
        .unwrap();
    let incoming = listener.accept().await.unwrap();
    let slow = incoming.establish(Some(&server), Duration::from_millis(50));
    assert!(matches!(slow.await, Err(NetError::Timeout { .. })));
}

#[test]
fn unusable_settings_are_refused_with_the_reason() {
    let env = Env::real();
    let text: Pem = "-----BEGIN NOTHING-----".parse().unwrap();
    let client = |settings: ClientTlsSettings| ClientTls::new(&env, &settings).unwrap_err();
    let nothing = client(ClientTlsSettings {
        ca: Some(text.clone()),
        ..ClientTlsSettings::default()
    });
    assert!(matches!(nothing, NetError::TlsSettings { .. }), "{nothing}");
    let absent = client(ClientTlsSettings {
        ca: Some("/absent/ca.pem".parse().unwrap()),
        ..ClientTlsSettings::default()
    });
    assert!(absent.to_string().contains("/absent/ca.pem"), "{absent}");
    let authority = Authority::new();
    let half = client(ClientTlsSettings {
        ca: Some(authority.pem.clone()),
        certificate: Some(authority.pem.clone()),
        ..ClientTlsSettings::default()
    });
    assert!(half.to_string().contains("together"), "{half}");
    assert_eq!(format!("{text:?}"), "Pem(***)");
}

#[test]
fn addresses_are_read_and_shown() {
    for (text, host, port) in [
        ("a.example:9092", "a.example", 9092),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:1", "::1", 1),
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!((address.host.as_str(), address.port), (host, port));
        assert_eq!(address.to_string(), text);
    }
    for text in [
        "", "a", ":1", "a:", "a:65536", "a:-1", "a:+1", "::1:1", "[a]:1", "[::1:1", "a b:1",
        "u@h:1", "a\n:1",
    ] {
        assert!(text.parse::<Address>().is_err(), "{text:?}");
    }
    let is_loopback = |text: &str| text.parse::<Address>().unwrap().is_loopback();
    assert!(is_loopback("127.1.2.3:1") && is_loopback("[::1]:1") && is_loopback("LocalHost:1"));
    assert!(!is_loopback("0.0.0.0:1") && !is_loopback("[::]:1") && !is_loopback("example.org:1"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_make_the_reader_of_certificates_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
        subject::of_certificate(&bytes);
        // Also nested as a certificate is.
        bytes.insert(at.min(bytes.len()), 0x30);
        let inner = [&[0x30, 0x81, u8::try_from(bytes.len()).unwrap()], &bytes[..]].concat();
        subject::of_certificate(&[&[0x30, 0x81, u8::try_from(inner.len()).unwrap()], &inner[..]].concat());
    }
}
