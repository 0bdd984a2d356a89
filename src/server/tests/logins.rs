//! Logins over a connection, and what nobody may do before one.

use bytes::Bytes;

use super::support::{Client, Scripted};
use crate::env::Env;
use crate::net::{Address, ClientAuth, Pem, ServerTlsSettings};
use crate::protocol::sasl::{
    ClientStep, ITERATIONS_MIN, Mechanism, SaslClient, ScramCredential, ScramHash,
};
use crate::protocol::wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use crate::protocol::wire::messages::sasl_handshake::SaslHandshakeRequest;
use crate::protocol::wire::{ApiKey, decode_response, encode_request};
use crate::server::{Limits, ServerConfig, ServerError};

fn scripted(limits: Limits) -> Scripted {
    let scripted = Scripted::start_with(ServerConfig {
        sasl: Mechanism::ALL.to_vec(),
        limits,
        ..ServerConfig::default()
    });
    let env = Env::real();
    let credentials = [ScramHash::Sha256, ScramHash::Sha512].map(|hash| {
        let credential = ScramCredential::new(hash, &"secret".into(), ITERATIONS_MIN, &*env.random);
        ("alice".to_owned(), credential.unwrap())
    });
    let security = scripted.server.security();
    security.set_credentials(&credentials).unwrap();
    scripted
}

async fn handshake(client: &mut Client, version: i16, mechanism: &str) -> Option<i16> {
    let request = SaslHandshakeRequest {
        mechanism: mechanism.to_owned(),
    };
    let frame = encode_request(version, 1, None, &request).unwrap();
    client.writer.write(&frame.chunks).await.unwrap();
    let answer = client.receive_frame().await?;
    let (_, response) = decode_response::<SaslHandshakeRequest>(version, answer).unwrap();
    Some(response.error_code)
}

/// Logs in; the error code of the server's last message.
async fn log_in(client: &mut Client, mechanism: Mechanism, password: &str) -> i16 {
    assert_eq!(handshake(client, 1, mechanism.name()).await, Some(0));
    let env = Env::real();
    let mut sasl = SaslClient::new(mechanism, "alice", &password.into(), &*env.random).unwrap();
    let mut message = sasl.first_message();
    loop {
        let request = SaslAuthenticateRequest {
            auth_bytes: Bytes::from(message),
        };
        let frame = encode_request(2, 2, Some("test"), &request).unwrap();
        client.writer.write(&frame.chunks).await.unwrap();
        let answer = client.receive_frame().await.unwrap();
        let (_, response) = decode_response::<SaslAuthenticateRequest>(2, answer).unwrap();
        if response.error_code != 0 {
            return response.error_code;
        }
        match sasl.answer(&response.auth_bytes).unwrap() {
            ClientStep::Send(next) => message = next,
            ClientStep::Done => return 0,
        }
    }
}

async fn who_am_i(client: &mut Client) -> Option<String> {
    client.send(ApiKey::Metadata, 1, 5).await;
    let answer = client.receive_frame().await?;
    Some(String::from_utf8(answer[4..].to_vec()).unwrap())
}

#[tokio::test]
async fn every_mechanism_logs_in_and_the_session_knows_the_user() {
    let scripted = scripted(Limits::default());
    for mechanism in Mechanism::ALL {
        let mut client = scripted.client().await;
        assert_eq!(log_in(&mut client, mechanism, "secret").await, 0);
        assert_eq!(who_am_i(&mut client).await.as_deref(), Some("alice"));
        // A login may be renewed on the way.
        assert_eq!(log_in(&mut client, mechanism, "secret").await, 0);
        assert_eq!(who_am_i(&mut client).await.as_deref(), Some("alice"));
    }
}

#[tokio::test]
async fn a_wrong_password_is_answered_late_and_hung_up_on() {
    let scripted = scripted(Limits::default());
    for mechanism in Mechanism::ALL {
        let begin = tokio::time::Instant::now();
        let mut client = scripted.client().await;
        assert_eq!(log_in(&mut client, mechanism, "guess").await, 58);
        assert!(begin.elapsed() >= Limits::default().refused_login_delay);
        assert_eq!(client.receive().await, None);
    }
}

#[tokio::test]
async fn without_a_login_only_versions_are_told() {
    let scripted = scripted(Limits::default());
    for api in [
        ApiKey::Metadata,
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::AlterUserScramCredentials,
    ] {
        let mut client = scripted.client().await;
        client.send(ApiKey::ApiVersions, 0, 4).await;
        assert_eq!(client.receive().await, Some(4));
        client.send(api, 1, 5).await;
        assert_eq!(client.receive().await, None, "{api}");
    }
    assert_eq!(*scripted.script.begun.lock(), [4; 4]);
}

#[tokio::test]
async fn a_message_without_its_handshake_and_an_unknown_mechanism_are_refused() {
    let scripted = scripted(Limits::default());
    let mut client = scripted.client().await;
    assert_eq!(handshake(&mut client, 1, "GSSAPI").await, Some(33));
    assert_eq!(client.receive().await, None);
    let mut client = scripted.client().await;
    let request = SaslAuthenticateRequest {
        auth_bytes: Bytes::from_static(b"\0alice\0secret"),
    };
    let frame = encode_request(0, 2, None, &request).unwrap();
    client.writer.write(&frame.chunks).await.unwrap();
    let answer = client.receive_frame().await.unwrap();
    let (_, response) = decode_response::<SaslAuthenticateRequest>(0, answer).unwrap();
    assert_eq!(response.error_code, 34);
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
async fn old_clients_log_in_with_bare_messages() {
    let scripted = scripted(Limits::default());
    let mut client = scripted.client().await;
    assert_eq!(handshake(&mut client, 0, "PLAIN").await, Some(0));
    let message = Bytes::from_static(b"\0alice\0secret");
    client.writer.write(&[message]).await.unwrap();
    // The answer to PLAIN is empty, so a frame without a body, which is no frame of Kafka's otherwise.
    assert!(client.reader.next().await.is_err());
}

#[tokio::test]
async fn who_does_not_log_in_in_time_is_hung_up_on() {
    let scripted = scripted(Limits {
        login_timeout: std::time::Duration::from_millis(200),
        ..Limits::default()
    });
    let mut client = scripted.client().await;
    client.send(ApiKey::ApiVersions, 0, 4).await;
    assert_eq!(client.receive().await, Some(4));
    assert_eq!(client.receive().await, None);
}

#[test]
fn what_others_can_reach_needs_tls_and_logins_or_a_word() {
    let check = |change: &dyn Fn(&mut ServerConfig)| {
        let mut config = ServerConfig {
            listen: "0.0.0.0:9092".parse::<Address>().unwrap(),
            ..ServerConfig::default()
        };
        change(&mut config);
        config.check()
    };
    let tls = |client_auth| {
        Some(ServerTlsSettings {
            certificate: Pem::Text(String::new()),
            key: Pem::Text(String::new()),
            client_ca: None,
            client_auth,
        })
    };
    let is_insecure =
        |result: Result<(), ServerError>| matches!(result, Err(ServerError::Insecure { .. }));
    assert!(is_insecure(check(&|_| {})));
    assert!(is_insecure(check(
        &|config| config.sasl = Mechanism::ALL.to_vec()
    )));
    assert!(is_insecure(check(
        &|config| config.tls = tls(ClientAuth::Requested)
    )));
    assert!(is_insecure(check(&|config| {
        config.listen = "example.org:9092".parse().unwrap();
    })));
    assert!(check(&|config| config.tls = tls(ClientAuth::Required)).is_ok());
    assert!(check(&|config| config.allow_insecure = true).is_ok());
    assert!(
        check(&|config| {
            config.tls = tls(ClientAuth::None);
            config.sasl = Mechanism::ALL.to_vec();
        })
        .is_ok()
    );
    assert!(check(&|config| config.listen = "[::1]:9092".parse().unwrap()).is_ok());
}

#[test]
fn limits_that_serve_nobody_or_do_not_fit_are_refused() {
    let check = |limits: Limits| {
        let config = ServerConfig {
            limits,
            ..ServerConfig::default()
        };
        config.check().is_ok()
    };
    assert!(check(Limits::default()));
    assert!(!check(Limits {
        connections_max: 0,
        ..Limits::default()
    }));
    assert!(!check(Limits {
        request_bytes_max: 1 << 30,
        ..Limits::default()
    }));
    assert!(!check(Limits {
        unauthenticated_bytes_max: 32 << 20,
        ..Limits::default()
    }));
}
