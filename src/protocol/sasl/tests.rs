//! Logins: the examples of the RFCs, both ends together, and what each end must not accept.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::env::Random;

struct Counting(std::sync::atomic::AtomicU64);

impl Random for Counting {
    fn next_u64(&self) -> u64 {
        let next = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        next.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

fn random() -> Counting {
    Counting(1.into())
}

#[derive(Default)]
struct Users(BTreeMap<(String, ScramHash), ScramCredential>);

impl Users {
    fn with(user: &str, password: &str) -> Self {
        let mut users = Self::default();
        for hash in [ScramHash::Sha256, ScramHash::Sha512] {
            let credential =
                ScramCredential::new(hash, &password.into(), ITERATIONS_MIN, &random()).unwrap();
            users.0.insert((user.to_owned(), hash), credential);
        }
        users
    }
}

impl Credentials for Users {
    fn credential(&self, user: &str, hash: ScramHash) -> Option<ScramCredential> {
        self.0.get(&(user.to_owned(), hash)).cloned()
    }

    fn secret(&self) -> &[u8] {
        b"secret of the server"
    }
}

/// Runs a login to its end: who the server says it is, once the client is content as well.
fn log_in(
    mechanism: Mechanism,
    user: &str,
    password: &str,
    users: &Users,
) -> Result<String, SaslError> {
    let random = random();
    let mut client = SaslClient::new(mechanism, user, &password.into(), &random)?;
    let mut server = SaslServer::new(mechanism, &random);
    let mut message = client.first_message();
    loop {
        match server.answer(&message, users)? {
            ServerStep::Send(challenge) => match client.answer(&challenge)? {
                ClientStep::Send(next) => message = next,
                ClientStep::Done => panic!("the client was content before the server"),
            },
            ServerStep::Done { username, message } => {
                assert_eq!(client.answer(&message)?, ClientStep::Done);
                return Ok(username);
            }
        }
    }
}

const SHA_256: Mechanism = Mechanism::Scram(ScramHash::Sha256);
const SHA_512: Mechanism = Mechanism::Scram(ScramHash::Sha512);

/// RFC 7677 §3.
const RFC_7677: [&str; 4] = [
    "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
];

#[test]
fn the_client_says_what_rfc_7677_says() {
    let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
    let mut client = SaslClient::with_nonce(SHA_256, "user", &"pencil".into(), nonce).unwrap();
    assert_eq!(client.first_message(), RFC_7677[0].as_bytes());
    let step = client.answer(RFC_7677[1].as_bytes()).unwrap();
    assert_eq!(step, ClientStep::Send(RFC_7677[2].into()));
    let step = client.answer(RFC_7677[3].as_bytes()).unwrap();
    assert_eq!(step, ClientStep::Done);
}

#[test]
fn the_server_says_what_rfc_7677_says() {
    use base64::Engine as _;
    let salt = base64::engine::general_purpose::STANDARD
        .decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        .unwrap();
    let credential =
        ScramCredential::with_salt(ScramHash::Sha256, &"pencil".into(), salt, 4096).unwrap();
    let mut users = Users::default();
    users
        .0
        .insert(("user".to_owned(), ScramHash::Sha256), credential);
    let mut server = SaslServer::with_nonce(SHA_256, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned());
    let step = server.answer(RFC_7677[0].as_bytes(), &users).unwrap();
    assert_eq!(step, ServerStep::Send(RFC_7677[1].into()));
    let step = server.answer(RFC_7677[2].as_bytes(), &users).unwrap();
    let ServerStep::Done { username, message } = step else {
        panic!("not done: {step:?}");
    };
    assert_eq!(
        (username.as_str(), &message[..]),
        ("user", RFC_7677[3].as_bytes())
    );
}

#[test]
fn the_client_says_what_the_sha_512_example_says() {
    // The conversation of RFC 7677 with SHA-512, computed with Python's `hashlib.pbkdf2_hmac` and `hmac`.
    let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
    let mut client = SaslClient::with_nonce(SHA_512, "user", &"pencil".into(), nonce).unwrap();
    let step = client.answer(RFC_7677[1].as_bytes()).unwrap();
    let proof =
        "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==";
    let expected = format!("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p={proof}");
    assert_eq!(step, ClientStep::Send(expected.into_bytes()));
    let signature = "v=ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==";
    assert_eq!(
        client.answer(signature.as_bytes()).unwrap(),
        ClientStep::Done
    );
}

#[test]
fn every_mechanism_lets_the_right_password_in_and_no_other() {
    let users = Users::with("alice", "wonder=land,");
    for mechanism in Mechanism::ALL {
        assert_eq!(
            log_in(mechanism, "alice", "wonder=land,", &users).as_deref(),
            Ok("alice")
        );
        for (user, password) in [
            ("alice", "wonder"),
            ("bob", "wonder=land,"),
            ("alice", "wonder=land,,"),
        ] {
            let refused = log_in(mechanism, user, password, &users);
            assert_eq!(refused, Err(SaslError::Refused), "{mechanism} {user}");
        }
    }
}

#[test]
fn names_with_commas_and_equal_signs_are_escaped() {
    let users = Users::with("a,b=c=2C", "x");
    assert_eq!(
        log_in(SHA_256, "a,b=c=2C", "x", &users).as_deref(),
        Ok("a,b=c=2C")
    );
}

#[test]
fn an_unknown_user_looks_like_a_known_one() {
    let users = Users::with("alice", "x");
    let ask = |user: &str| {
        let mut server = SaslServer::with_nonce(SHA_256, "server".to_owned());
        let first = format!("n,,n={user},r=client");
        match server.answer(first.as_bytes(), &users).unwrap() {
            ServerStep::Send(challenge) => String::from_utf8(challenge).unwrap(),
            done @ ServerStep::Done { .. } => panic!("{done:?}"),
        }
    };
    assert_eq!(
        ask("bob"),
        ask("bob"),
        "the same salt at every try, or trying tells"
    );
    assert_ne!(ask("bob"), ask("carol"));
    assert_eq!(ask("bob").len(), ask("carol").len());
}

#[test]
fn a_replayed_conversation_is_refused() {
    let users = Users::with("alice", "x");
    let mut client = SaslClient::new(SHA_256, "alice", &"x".into(), &random()).unwrap();
    let first = client.first_message();
    let mut heard = SaslServer::with_nonce(SHA_256, "one".to_owned());
    let ServerStep::Send(challenge) = heard.answer(&first, &users).unwrap() else {
        panic!()
    };
    let ClientStep::Send(last) = client.answer(&challenge).unwrap() else {
        panic!()
    };
    let mut replayed = SaslServer::with_nonce(SHA_256, "two".to_owned());
    replayed.answer(&first, &users).unwrap();
    assert_eq!(replayed.answer(&last, &users), Err(SaslError::NotRepeated));
    // The one that was listened to is over as well after its end.
    assert!(matches!(
        heard.answer(&last, &users),
        Ok(ServerStep::Done { .. })
    ));
    assert!(heard.answer(&last, &users).is_err());
}

#[test]
fn a_hostile_server_gets_neither_work_nor_trust() {
    let client =
        || SaslClient::with_nonce(SHA_256, "user", &"pencil".into(), "abc".to_owned()).unwrap();
    for (challenge, expected) in [
        (
            "r=abcd,s=AAAA,i=4095",
            SaslError::Iterations { iterations: 4095 },
        ),
        (
            "r=abcd,s=AAAA,i=4294967295",
            SaslError::Iterations {
                iterations: u32::MAX,
            },
        ),
        ("r=abcd,s=AAAA,i=0", SaslError::Iterations { iterations: 0 }),
    ] {
        assert_eq!(client().answer(challenge.as_bytes()), Err(expected));
    }
    for challenge in [
        "r=abc,s=AAAA,i=4096",
        "r=xyz,s=AAAA,i=4096",
        "r=abcd,s=?,i=4096",
        "r=abcd,s=AAAA,i=-1",
        "r=abcd,s=AAAA,i=+4096",
        "m=x,r=abcd,s=AAAA,i=4096",
        "r=abcd,i=4096",
        "",
        ",,,",
    ] {
        let refused = client().answer(challenge.as_bytes());
        assert!(
            matches!(refused, Err(SaslError::Malformed { .. })),
            "{challenge}"
        );
    }
    let mut deceived = client();
    deceived.answer(b"r=abcd,s=AAAA,i=4096").unwrap();
    assert_eq!(deceived.answer(b"v=AAAA"), Err(SaslError::ServerNotProven));
    let mut refused = client();
    refused.answer(b"r=abcd,s=AAAA,i=4096").unwrap();
    let reason = "invalid-proof".to_owned();
    assert_eq!(
        refused.answer(b"e=invalid-proof"),
        Err(SaslError::RefusedByServer { reason })
    );
}

#[test]
fn forbidden_characters_and_channel_binding_are_refused() {
    let prohibited = |user: &str, password: &str| {
        let made = SaslClient::new(SHA_256, user, &password.into(), &random());
        matches!(made, Err(SaslError::Prohibited { .. }))
    };
    assert!(prohibited("", "x") && prohibited("a", ""));
    assert!(prohibited("a\0b", "x") && prohibited("a", "x\n"));
    assert!(
        prohibited("a\u{200E}", "x") && prohibited("a\u{A0}b", "x") && prohibited("\u{E000}", "x")
    );
    assert!(!prohibited("müller ", "pässwörter und Leerzeichen"));
    let users = Users::with("alice", "x");
    for first in [
        "p=tls-unique,,n=alice,r=abc",
        "n,a=bob,n=alice,r=abc",
        "n,,n=al=ice,r=abc",
        "n,,n=alice",
        "n,,m=1,n=alice,r=abc",
        "n,,n=alice,r=a\u{7}c",
    ] {
        let mut server = SaslServer::new(SHA_256, &random());
        let refused = server.answer(first.as_bytes(), &users);
        assert!(
            matches!(refused, Err(SaslError::Malformed { .. })),
            "{first}: {refused:?}"
        );
    }
}

#[test]
fn nothing_secret_is_printed() {
    let password = Password::from("hunter2");
    let credential =
        ScramCredential::new(ScramHash::Sha256, &password, ITERATIONS_MIN, &random()).unwrap();
    let client = SaslClient::new(Mechanism::Plain, "a", &password, &random()).unwrap();
    let printed = format!("{password:?} {credential:?} {client:?}");
    assert!(!printed.contains("hunter2"));
    let key: Vec<String> = credential
        .stored_key
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(!printed.contains(&key.join(", ")));
}

#[test]
fn mechanisms_have_kafkas_names() {
    for mechanism in Mechanism::ALL {
        assert_eq!(mechanism.to_string().parse(), Ok(mechanism));
    }
    let unknown = "GSSAPI\u{1b}[2J".parse::<Mechanism>().unwrap_err();
    assert!(!unknown.to_string().contains('\u{1b}'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_message_makes_a_server_panic_or_lets_anybody_in(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..4),
        mechanism in prop::sample::select(&Mechanism::ALL[..]),
    ) {
        let users = Users::default();
        let mut server = SaslServer::new(mechanism, &random());
        for message in messages {
            let is_in = matches!(server.answer(&message, &users), Ok(ServerStep::Done { .. }));
            prop_assert!(!is_in, "{:?}", message);
        }
    }

    #[test]
    fn no_message_makes_a_client_panic(messages in prop::collection::vec("[a-z]=[A-Za-z0-9=,]{0,40}", 1..4)) {
        let mut client = SaslClient::with_nonce(SHA_256, "u", &"p".into(), "a".to_owned()).unwrap();
        for message in messages {
            if let Ok(step) = client.answer(message.as_bytes()) {
                prop_assert_ne!(step, ClientStep::Done);
            }
        }
    }
}

/// A server's answer to the last message of a SCRAM login that `change` was done to, and the cause that it keeps.
fn refused_scram(
    user: &str,
    password: &str,
    change: impl Fn(&str) -> String,
) -> (SaslError, String) {
    let mut users = Users::with("alice", "x");
    users.0.remove(&("alice".to_owned(), ScramHash::Sha512));
    let (mechanism, user) = user.split_once('/').unwrap();
    let mechanism = mechanism.parse().unwrap();
    let mut client = SaslClient::new(mechanism, user, &password.into(), &random()).unwrap();
    let mut server = SaslServer::with_nonce(mechanism, "one".to_owned());
    let mut message = client.first_message();
    if let Mechanism::Scram(_) = mechanism {
        let ServerStep::Send(challenge) = server.answer(&message, &users).unwrap() else {
            panic!()
        };
        let ClientStep::Send(last) = client.answer(&challenge).unwrap() else {
            panic!()
        };
        message = change(&String::from_utf8(last).unwrap()).into_bytes();
    }
    let error = server.answer(&message, &users).unwrap_err();
    let cause = server
        .cause()
        .map_or_else(|| error.to_string(), str::to_owned);
    (error, cause)
}

#[test]
fn x14_a_client_that_repeats_its_nonce_twice_is_told_so_and_no_wrong_password() {
    // librdkafka before 2.6.1 puts its own nonce before the one that it was sent, which begins with it.
    let twice = |last: &str| {
        let (binding, rest) = last.split_once("r=").unwrap();
        let client_nonce = rest.split("one").next().unwrap();
        format!("{binding}r={client_nonce}{rest}")
    };
    let (error, cause) = refused_scram("SCRAM-SHA-256/alice", "x", twice);
    assert_eq!(error, SaslError::NonceTwice);
    assert!(cause.contains("librdkafka"), "{cause}");
    let other = |last: &str| last.replace("one", "two");
    let (error, _) = refused_scram("SCRAM-SHA-256/alice", "x", other);
    assert_eq!(error, SaslError::NotRepeated);
}

#[test]
fn x14_the_operator_hears_why_a_login_was_refused_and_the_client_does_not() {
    for (user, password, expected) in [
        (
            "SCRAM-SHA-256/alice",
            "y",
            "the password of \"alice\" is wrong",
        ),
        (
            "SCRAM-SHA-512/alice",
            "x",
            "\"alice\" has no credential for SCRAM-SHA-512",
        ),
        ("SCRAM-SHA-256/bob", "x", "there is no such user"),
        ("PLAIN/alice", "y", "the password of \"alice\" is wrong"),
        ("PLAIN/bob", "x", "there is no such user"),
    ] {
        let (error, cause) = refused_scram(user, password, str::to_owned);
        assert_eq!((error, &*cause), (SaslError::Refused, expected));
    }
}
