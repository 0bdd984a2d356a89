//! Values that begin with a number of one byte or a floating-point number, which may begin as a version does, and get a second version.

use onceflow::client::producer::{Producer, ProducerRecord};
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::HttpConfig;
use onceflow::types::TopicName;
use serde::{Deserialize, Serialize};

use super::migrations::{Build, build, feed, forget_local_state, out, refusal};
use super::queries_over_http::value_of;
use super::support::{Place, committed, run, until};

/// Its bytes begin with 255 and 2, as a value of version 2 does, where `LOOKS_LATER`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Weighed")]
struct Weighed<const LOOKS_LATER: bool> {
    weight: f64,
    cents: i64,
}

impl<const LOOKS_LATER: bool> Default for Weighed<LOOKS_LATER> {
    fn default() -> Self {
        let bits = if LOOKS_LATER {
            0x3ff0_0000_0000_02ff
        } else {
            0
        };
        let (weight, cents) = (f64::from_bits(bits), 0);
        Self { weight, cents }
    }
}

impl<const LOOKS_LATER: bool> Build for Weighed<LOOKS_LATER> {
    fn add(&mut self, number: i64) {
        assert_eq!(self.weight.to_bits(), Self::default().weight.to_bits());
        self.cents += number;
    }

    fn cents(&self) -> i64 {
        self.cents
    }

    fn reads_earlier<K, U>(keyed: Keyed<K, i64, U>) -> Keyed<K, i64, U>
    where
        K: ?Sized + 'static,
        U: onceflow::runtime::Upstream<K, i64>,
    {
        keyed
    }
}

#[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    cents: i64,
    weight: String,
}

impl<const LOOKS_LATER: bool> From<Weighed<LOOKS_LATER>> for Named {
    fn from(Weighed { weight, cents }: Weighed<LOOKS_LATER>) -> Self {
        let weight = format!("{:x}", weight.to_bits());
        Self { cents, weight }
    }
}

impl Build for Named {
    fn add(&mut self, number: i64) {
        self.cents += number;
    }

    fn cents(&self) -> i64 {
        self.cents
    }

    fn reads_earlier<K, U>(keyed: Keyed<K, i64, U>) -> Keyed<K, i64, U>
    where
        K: ?Sized + 'static,
        U: onceflow::runtime::Upstream<K, i64>,
    {
        keyed.migrate_from(1, |old: Weighed<true>| Self::from(old))
    }
}

/// One build twice, and the next one; `between` happens before each next one starts.
fn builds(between: impl Fn(&Place)) {
    let place = Place::new();
    let log = place.log();
    feed(&log, &[11, 12, 13]);
    run(build::<Weighed<true>>(false), &log).unwrap();
    between(&place);
    feed(&log, &[21]);
    run(build::<Weighed<true>>(false), &log).unwrap();
    between(&place);
    feed(&log, &[22]);
    run(build::<Named>(false), &log).unwrap();
    between(&place);
    feed(&log, &[31]);
    let running = build::<Named>(true).start(&log).unwrap();
    until("it is read", || running.progress().records == 1);
    assert_eq!(out(&log, 1), [11, 32, 63]);
    assert_eq!(out(&log, 2), [12, 34]);
    // Of 3 there is the value of the first build alone.
    let query = running.query();
    let server = query.serve(HttpConfig::on("127.0.0.1:0").unwrap()).unwrap();
    for path in ["values?", "timed?", "ordered?place=7&"] {
        let answer = value_of(server.address(), &format!("/stores/{path}key=3"));
        assert_eq!(answer["value"]["cents"], 13, "{path}");
        assert_eq!(answer["value"]["weight"], "3ff00000000002ff", "{path}");
    }
    drop(server);
    wait(running.stop()).unwrap();
    let earlier = refusal(build::<Weighed<true>>(false), &log);
    assert!(earlier.contains("version 2"), "{earlier}");
    log.close().unwrap();
}

#[test]
fn u9_values_that_look_like_later_ones_are_converted_from_the_local_state() {
    builds(|_| ());
}

#[test]
fn u9_values_that_look_like_later_ones_are_converted_from_the_changelog() {
    builds(forget_local_state);
}

#[test]
fn u9_a_savepoint_keeps_how_its_values_are_told_apart() {
    let place = Place::new();
    let log = place.log();
    feed(&log, &[11, 12]);
    let running = build::<Weighed<true>>(true).start(&log).unwrap();
    until("all is read", || running.progress().records == 2);
    let savepoint = wait(running.savepoint(&place.path("saved"))).unwrap();
    wait(running.stop()).unwrap();
    log.close().unwrap();
    let elsewhere = Place::new();
    let other = elsewhere.log();
    feed(&other, &[11, 12]);
    build::<Named>(false).restore(&other, &savepoint).unwrap();
    feed(&other, &[31]);
    run(build::<Named>(false), &other).unwrap();
    assert_eq!(out(&other, 1), [42]);
    other.close().unwrap();
}

/// Notes in the log that the stores are as an earlier version of Onceflow made them: nothing is told apart in them.
fn note_as_before(log: &Log) {
    let positions = "accounts-positions";
    let notes = committed(log, positions).into_iter().filter_map(|seen| {
        let (key, value) = (seen.key?, seen.value?);
        let value = String::from_utf8(value).ok()?;
        let before = value.replace(r#""codec":32769"#, r#""codec":1"#);
        (key.starts_with(b"\0store ") && before != value).then_some((key, before))
    });
    let notes: Vec<(Vec<u8>, String)> = notes.collect();
    assert_eq!(notes.len(), 3);
    let topic = TopicName::new(positions).unwrap();
    let producer = Producer::<[u8], [u8]>::new(log.transport(), log.producer_config().unwrap());
    let producer = producer.unwrap();
    for (key, note) in &notes {
        let record = ProducerRecord::new(&topic)
            .key(key.as_slice())
            .value(note.as_bytes());
        wait(async { producer.send(record).await?.await }).unwrap();
    }
}

#[test]
fn u9_a_store_of_an_earlier_onceflow_goes_on_and_is_refused_a_second_version() {
    let place = Place::new();
    let log = place.log();
    feed(&log, &[11, 12]);
    run(build::<Weighed<false>>(false), &log).unwrap();
    note_as_before(&log);
    feed(&log, &[21]);
    run(build::<Weighed<false>>(false), &log).unwrap();
    assert_eq!(out(&log, 1), [11, 32]);
    // As before also where the bytes look like those of a later version.
    let refused = refusal(build::<Named>(false), &log);
    for part in [
        "Weighed{",
        "give the step a new name",
        "earlier version of Onceflow",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    feed(&log, &[31]);
    run(build::<Weighed<false>>(false), &log).unwrap();
    assert_eq!(out(&log, 1), [11, 32, 63]);
    log.close().unwrap();
}
