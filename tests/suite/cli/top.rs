//! `onceflow top`: a running job as its terminal shows it.

use std::time::Duration;

use onceflow::client::producer::{Producer, ProducerRecord};
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{HttpConfig, HttpServer, Running};
use onceflow::types::TopicName;
use serde_json::Value;

use super::{Cli, finish, onceflow};

const TOKEN: &str = "a token of a test, long enough";

/// A job that has counted three words, and answers who has the token.
fn counted(cli: &Cli) -> (Log, Running, HttpServer) {
    let log = Log::embedded(cli.data()).unwrap();
    let words = TopicName::new("words").unwrap();
    wait(log.admin().create_topic(&words, 1)).unwrap();
    let config = log.producer_config().unwrap();
    let producer = Producer::<str, str>::new(log.transport(), config).unwrap();
    for word in ["tea", "cake", "tea"] {
        let record = ProducerRecord::new(&words).value(word);
        wait(async { producer.send(record).await?.await }).unwrap();
    }
    let job = Job::new("word-count");
    job.source(topic::<str>("words"))
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("totals"));
    let commit = Commit::every(Duration::from_millis(10));
    let running = job.exactly_once(commit).start(&log).unwrap();
    wait(running.caught_up()).unwrap();
    let config = HttpConfig::on("127.0.0.1:0").unwrap().token(TOKEN);
    let server = running.query().serve(config).unwrap();
    (log, running, server)
}

#[test]
fn a_running_job_is_shown_to_who_has_its_token() {
    let cli = Cli::new();
    let (log, running, server) = counted(&cli);
    let url = format!("http://{}/", server.address());
    let token = cli.directory.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let top = |more: &[&str]| finish(onceflow(&[&["top", &*url][..], more].concat()), b"");
    let token = ["--token-file", token.to_str().unwrap()];
    let shown = top(&token);
    assert_eq!(shown.code, 0, "{shown:?}");
    for part in [
        "word-count  running",
        "caught up: 3 records committed",
        "records 3 (",
        "commit, ms",
        "words   words-0  ",
        "counts ",
    ] {
        assert!(shown.out.contains(part), "{part} is not in:\n{}", shown.out);
    }
    assert!(
        !shown.out.contains('\u{1b}'),
        "it is no terminal: {shown:?}"
    );
    let json = top(&[&token[..], &["--output", "json"]].concat());
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["totals"]["records"], 3);
    let refused = top(&[]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("--token-file"), "{}", refused.err);
    drop(server);
    let gone = top(&token);
    assert_eq!(gone.code, 1);
    assert!(gone.err.contains("connection"), "{}", gone.err);
    wait(running.stop()).unwrap();
    log.close().unwrap();
}

#[test]
fn who_is_no_job_is_not_taken_for_one() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        for body in ["<html>", "{}"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            assert!(stream.read(&mut asked).unwrap() > 0);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}", body.len());
            write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}").unwrap();
        }
    });
    for _ in 0..2 {
        let refused = finish(onceflow(&["top", &url]), b"");
        assert_eq!(refused.code, 1);
        let said = "does not answer as a job of Onceflow does";
        assert!(refused.err.contains(said), "{}", refused.err);
    }
    answering.join().unwrap();
}
