//! The same in an object store, a real server of S3's protocol: entries are created once, lost answers are read back.

use super::store::{Gate, Store, bucket_at, files_below, unconditional};
use super::*;
use onceflow::runtime::file_table::object_table;

pub(super) fn table(port: u16) -> FileTable<JsonLines> {
    object_table(bucket_at(port), JsonLines).file_bytes(100)
}

#[test]
fn o1_o4_o6_o8_an_object_store_holds_each_row_once_whatever_step_is_killed() {
    let Some(store) = Store::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    survives_kills_in(&store.port.to_string(), folder.path(), &store.table());
    // Who asks the store for the manifest is told the same as who reads the server's files.
    let listed = bucket_at(store.port).published().unwrap();
    assert_eq!(listed, published(store.table()).unwrap());
    // Files that were never committed are gone, but for what came behind the last commit of a worker.
    let data = files_below(&store.table().join("data"));
    assert!(data.len() < listed.len() + 30, "{} files", data.len());
}

#[test]
fn o2_rows_of_a_job_on_a_new_log_appear_behind_those_that_are_in_the_bucket() {
    let Some(store) = Store::start() else {
        return;
    };
    let (place, other) = (Place::new(), Place::new());
    let launch = || writes(table(store.port), false).workers(2);
    run(launch(), &log_with(&place, &clicks(0, 50, 5))).unwrap();
    run(launch(), &log_with(&other, &clicks(0, 30, 5))).unwrap();
    let expected = (0..30).flat_map(|number| [number; 2]).chain(30..50);
    assert!(numbers(&store.table()).into_iter().eq(expected));
}

#[test]
fn o6_an_answer_that_is_lost_is_read_back_and_each_row_is_there_once() {
    let Some(store) = Store::start() else {
        return;
    };
    let (place, gate) = (Place::new(), Gate::before(store.port));
    gate.lose_answers();
    let log = log_with(&place, &[]);
    let running = writes(table(gate.port), true)
        .workers(2)
        .start(&log)
        .unwrap();
    for first in (0..400).step_by(20) {
        feed(&log, "in", 0, &clicks(first, 20, 5));
        until("they are in the bucket", || {
            numbers(&store.table()).len() as i64 == first + 20
        });
    }
    // Nobody had to start again for it.
    assert_eq!(wait(running.status()).lives.len(), 1);
    wait(running.stop()).unwrap();
    assert!(gate.lost() >= 20, "{} answers were lost", gate.lost());
    assert!(numbers(&store.table()).into_iter().eq(0..400));
}

#[test]
fn o4_o5_of_two_who_create_an_entry_one_is_refused_and_what_is_there_stays() {
    let Some(store) = Store::start() else {
        return;
    };
    let (place, other) = (Place::new(), Place::new());
    let (first, second) = (log_with(&place, &[]), log_with(&other, &[]));
    let launch = || writes(table(store.port), true).workers(1);
    let started = [&first, &second].map(|log| launch().start(log).unwrap());
    for running in &started {
        wait(running.caught_up()).unwrap();
    }
    // Both have found no entry, and will create the first.
    feed(&first, "in", 0, &clicks(0, 10, 5));
    until("the first one's rows are there", || {
        numbers(&store.table()).len() == 10
    });
    feed(&second, "in", 0, &clicks(100, 10, 5));
    let [running, refused] = started;
    let refused = wait(refused.finished()).unwrap_err();
    assert_eq!(refused.kind(), JobErrorKind::Setup);
    let said = refused.to_string();
    assert!(said.contains("of another job or another attempt"), "{said}");
    feed(&first, "in", 0, &clicks(10, 10, 5));
    until("the first one goes on", || {
        numbers(&store.table()).len() == 20
    });
    wait(running.stop()).unwrap();
    assert!(numbers(&store.table()).into_iter().eq(0..20));
    // Nor is it let in later: its rows are committed in its log, and are not in the bucket.
    let said = run(launch(), &second).unwrap_err().to_string();
    assert!(said.contains("of another job or another attempt"), "{said}");
}

#[test]
fn o4_a_store_that_overwrites_what_it_was_asked_to_create_is_refused_at_the_start() {
    let place = Place::new();
    let log = log_with(&place, &clicks(0, 10, 5));
    let refused = run(writes(table(unconditional()), false), &log).unwrap_err();
    assert_eq!(refused.kind(), JobErrorKind::Setup);
    let said = refused.to_string();
    assert!(said.contains("If-None-Match"), "{said}");
}

#[test]
fn a_store_that_is_away_is_waited_for_and_a_wrong_secret_is_refused() {
    let Some(store) = Store::start() else {
        return;
    };
    let (place, gate) = (Place::new(), Gate::before(store.port));
    let log = log_with(&place, &clicks(0, 20, 5));
    let launch = |sink| writes(sink, true).workers(2);

    let stranger = bucket_at(store.port).credentials("key", "guessed");
    let refused = run(launch(object_table(stranger, JsonLines)), &log).unwrap_err();
    assert_eq!(refused.kind(), JobErrorKind::Setup);
    assert!(refused.to_string().contains("access key"), "{refused}");

    gate.shut();
    let running = launch(table(gate.port)).start(&log).unwrap();
    until("it was refused a few times", || gate.refused() > 3);
    gate.open();
    until("the rows are there", || numbers(&store.table()).len() == 20);
    gate.shut();
    feed(&log, "in", 0, &clicks(20, 20, 5));
    let refused = gate.refused();
    until("it was refused again", || gate.refused() > refused + 3);
    gate.open();
    until("the others are there", || {
        numbers(&store.table()).len() == 40
    });
    wait(running.stop()).unwrap();
    assert!(numbers(&store.table()).into_iter().eq(0..40));
}
