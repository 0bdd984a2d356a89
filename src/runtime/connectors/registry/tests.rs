//! Requests as they are on the wire, and what becomes of answers that are not the wanted ones: a small server tells what it is told to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::Registry;
use crate::codec::CodecError;

/// Gives these answers (status and body), a connection each, and tells the requests.
fn server(answers: Vec<(u16, String)>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, requests) = channel();
    std::thread::Builder::new()
        .spawn(move || {
            for (status, body) in answers {
                let (mut connection, _) = listener.accept().unwrap();
                told.send(request(&mut connection)).unwrap();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = connection.write_all(answer.as_bytes());
            }
        })
        .unwrap();
    (url, requests)
}

/// A request with its body.
fn request(connection: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    let length_of = |text: &str| -> usize {
        let lower = text.to_lowercase();
        let behind = lower.split_once("content-length: ").map_or("0", |it| it.1);
        let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    while !text.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte).unwrap();
        text.extend(byte);
    }
    let head = String::from_utf8(text).unwrap();
    let mut body = vec![0; length_of(&head)];
    connection.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[test]
fn a_request_logs_in_names_the_subject_and_is_sent_again_while_the_server_cannot() {
    let busy = || (503, "{\"message\": \"starting\"}".to_owned());
    let limited = (429, String::new());
    let (url, requests) = server(vec![busy(), limited, (200, "{\"id\": 7}".to_owned())]);
    let registry = Registry::new(&format!("{url}/"))
        .unwrap()
        .basic_auth("Aladdin", "open sesame");
    assert!(!format!("{registry:?}").contains("sesame"));
    assert_eq!(registry.register("a/b c", "PROTOBUF", "x\"y"), Ok(7));
    for _ in 0..3 {
        let request = requests.recv().unwrap();
        assert!(
            request.starts_with("POST /subjects/a%2Fb%20c/versions HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            "{request}"
        );
        assert!(
            request.ends_with(r#"{"schema":"x\"y","schemaType":"PROTOBUF"}"#),
            "{request}"
        );
    }
}

#[test]
fn an_answer_that_is_none_says_what_to_do() {
    let huge = format!("{{\"schema\": \"{}\"}}", "x".repeat(5 * 1024 * 1024));
    let refers = r#"{"schema": "{}", "references": [{"name": "a"}]}"#.to_owned();
    for (status, body, why) in [
        (
            401,
            "{\"message\": \"who are you\"}".to_owned(),
            "who are you (status 401) (give a name and a password",
        ),
        (200, "<html>".to_owned(), "the URL may need a path"),
        (200, huge, "more than 4194304 bytes"),
        (200, refers, "refers to other subjects"),
        (
            404,
            "{\"message\": \"no schema 5\"}".to_owned(),
            "no schema 5",
        ),
        (302, String::new(), "status 302"),
    ] {
        let (url, _requests) = server(vec![(status, body)]);
        let refused = Registry::new(&url).unwrap().schema(5).unwrap_err();
        assert!(
            matches!(refused, CodecError::RegistryRefused { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains(why), "{refused}");
    }
    let (url, _requests) = server(vec![(404, String::new())]);
    assert_eq!(Registry::new(&url).unwrap().latest("a"), Ok(None));
}

#[test]
fn trying_ends() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let registry = Registry::new(&format!("http://{gone}")).unwrap();
    let registry = registry.start_patience(Duration::from_millis(250));
    let refused = registry.latest("a").unwrap_err();
    assert!(
        matches!(refused, CodecError::RegistryUnavailable { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("start it"), "{refused}");
}

#[test]
fn a_url_with_a_password_or_without_http_is_refused_and_not_repeated() {
    for url in ["localhost:8081", "http://me:secret@a.b"] {
        let refused = Registry::new(url).unwrap_err().to_string();
        assert!(
            refused.contains("basic_auth") && !refused.contains("secret"),
            "{refused}"
        );
    }
}
