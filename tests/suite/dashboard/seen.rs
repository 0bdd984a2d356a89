//! The view of a job in a browser: one that runs, is killed, is held up by time, or by a transaction.

use std::net::TcpListener;
use std::time::Duration;

use onceflow::client::{TransactionalWriter, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::runtime::{HttpConfig, HttpServer};
use onceflow::types::{TopicName, TopicPartition, TransactionalId};

use super::browser::look;
use super::child::{Feeder, JobProcess, start};
use crate::jobs::support::{Place, until};

/// Nothing is to be done between the steps of the browser.
fn nothing(step: &str) {
    panic!("the browser asks for {step}");
}

fn url(page: &HttpServer) -> String {
    format!("http://{}/", page.address())
}

#[test]
fn every_view_of_a_running_job_is_seen_by_eye_by_keyboard_and_on_a_phone() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let feeder = Feeder::begin(&log, 2);
    let page = running.dashboard("127.0.0.1:0").unwrap();
    until("it has committed often", || running.progress().commits > 30);
    look("views", &url(&page), &[], &mut nothing);
    drop(feeder);
    wait(running.stop()).unwrap();
}

#[test]
fn a_killed_job_is_not_shown_as_alive_and_is_found_again() {
    if !super::browser::is_wanted() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let start = || {
        let process = JobProcess::start(folder.path(), &address);
        until("the page is there", || {
            std::net::TcpStream::connect(&address).is_ok()
        });
        process
    };
    let mut process = start();
    let url = format!("http://{address}/");
    look("killed", &url, &[], &mut |step| match step {
        "kill" => process.kill(),
        _ => process = start(),
    });
}

#[test]
fn a_partition_without_records_is_shown_as_the_holder_of_time() {
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let feeder = Feeder::begin(&log, 1);
    let page = running.dashboard("127.0.0.1:0").unwrap();
    look("stuck", &url(&page), &[], &mut nothing);
    drop(feeder);
    wait(running.stop()).unwrap();
}

#[test]
fn a_transaction_that_holds_readers_up_is_shown_by_its_name_whatever_that_is() {
    const NAME: &str = "<img src=x onerror=hurt=true>";
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let id = TransactionalId::new(NAME).unwrap();
    let writer = TransactionalWriter::init(log.transport(), id.clone(), Duration::from_secs(600));
    let writer = wait(writer).unwrap();
    let mut batch = BatchBuilder::new(Compression::None, None);
    batch.push(log.env().clock.wall(), None, Some(b"1 400 tea"));
    let orders = TopicPartition::new(TopicName::new("orders").unwrap(), 0);
    writer.partition(&orders).append(&mut batch).unwrap();
    let page = running.dashboard("127.0.0.1:0").unwrap();
    look("transaction", &url(&page), &[NAME], &mut |_| {
        wait(log.admin().abort_transaction(&id)).unwrap();
    });
    drop(writer);
    wait(running.stop()).unwrap();
}

#[test]
fn the_page_asks_for_the_token_and_shows_nothing_without_it() {
    const TOKEN: &str = "a token of a test, long enough";
    let place = Place::new();
    let log = place.log();
    let running = start(&log);
    let guarded = HttpConfig::on("127.0.0.1:0").unwrap().token(TOKEN);
    let page = running.query().serve(guarded.dashboard()).unwrap();
    look("token", &url(&page), &[TOKEN], &mut nothing);
    wait(running.stop()).unwrap();
}
