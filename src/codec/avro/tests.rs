//! Foreign bytes and foreign verdicts on evolution; torn, hostile and random bytes.

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::plan::Plan;
use super::transcode::{carry, check};
use super::*;

/// The cases of tests/formats/golden.json with this format.
fn golden(format: &str) -> Vec<Json> {
    let all: Vec<Json> =
        serde_json::from_str(include_str!("../../../tests/formats/golden.json")).unwrap();
    let cases: Vec<Json> = all
        .into_iter()
        .filter(|it| it["format"] == format)
        .collect();
    assert!(!cases.is_empty());
    cases
}

fn bytes_of(case: &Json) -> Vec<u8> {
    let digits = case["bytes"].as_str().unwrap();
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum State {
    #[serde(rename = "NEW")]
    New,
    #[serde(rename = "PAID")]
    Paid,
    #[serde(rename = "SENT")]
    Sent,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    article: String,
    count: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: i64,
    customer: String,
    cents: i64,
    note: Option<String>,
    state: State,
    lines: Vec<Line>,
    labels: std::collections::BTreeMap<String, String>,
    weight: f64,
    express: bool,
    #[serde(with = "apache_avro::serde::fixed")]
    hash: [u8; 4],
    #[serde(with = "apache_avro::serde::bytes")]
    raw: Vec<u8>,
}

/// The value of a case, as its own implementation has it.
fn order_of(value: &Json) -> Order {
    let text = |field: &str| value[field].as_str().unwrap().to_owned();
    let bytes = |field: &str| -> Vec<u8> { serde_json::from_value(value[field].clone()).unwrap() };
    Order {
        id: value["id"].as_i64().unwrap(),
        customer: text("customer"),
        cents: value["cents"].as_i64().unwrap(),
        note: value["note"].as_str().map(ToOwned::to_owned),
        state: serde_json::from_value(value["state"].clone()).unwrap(),
        lines: serde_json::from_value(value["lines"].clone()).unwrap(),
        labels: serde_json::from_value(value["labels"].clone()).unwrap(),
        weight: value["weight"].as_f64().unwrap(),
        express: value["express"].as_bool().unwrap(),
        hash: bytes("hash").try_into().unwrap(),
        raw: bytes("raw"),
    }
}

#[test]
fn what_two_foreign_implementations_wrote_is_read_and_written_byte_by_byte() {
    for case in golden("avro") {
        let (schema, bytes) = (case["schema"].as_str().unwrap(), bytes_of(&case));
        let codec = BareAvro::new(schema).unwrap();
        let read: Cow<'_, Order> = codec.decode(&bytes).unwrap();
        assert_eq!(*read, order_of(&case["value"]), "{}", case["name"]);
        let mut written = Vec::new();
        codec.encode(&*read, &mut written).unwrap();
        assert_eq!(written, bytes, "{}", case["name"]);

        let codec = Avro::new(schema).unwrap();
        let mut written = Vec::new();
        codec.encode(&*read, &mut written).unwrap();
        let digits: String = written[2..10]
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        assert_eq!(digits, case["fingerprint"].as_str().unwrap());
        assert_eq!((&written[..2], &written[10..]), (&MARK[..], &bytes[..]));
        assert_eq!(Codec::<Order>::decode(&codec, &written).unwrap(), read);
    }
}

/// A datum of the writer's schema as the reader has it, as JSON.
fn resolved(writer: &Schema, reader: &Schema, datum: &[u8]) -> Result<Json, String> {
    let plan = Plan::new(writer, reader)?;
    let mut carried = Vec::new();
    carry(&plan, datum, &mut carried).map_err(|e| e.0)?;
    if plan.is_identity {
        assert_eq!(carried, datum);
    }
    let read = GenericDatumReader::builder(reader).build().unwrap();
    let mut rest = &carried[..];
    let value = read.read_value(&mut rest).map_err(|e| e.to_string())?;
    assert!(rest.is_empty());
    Json::try_from(value).map_err(|e| e.to_string())
}

#[test]
fn u9_a_value_of_another_schema_is_resolved_as_foreign_software_does() {
    for case in golden("avro evolution") {
        let schema = |of: &str| Schema::parse_str(case[of].as_str().unwrap()).unwrap();
        let ours = resolved(&schema("writer"), &schema("reader"), &bytes_of(&case));
        let theirs = Some(&case["fastavro"]).filter(|it| !it.is_null());
        match (ours, theirs) {
            (Ok(ours), Some(theirs)) => assert_eq!(&ours, theirs, "{}", case["name"]),
            (Err(_), None) => {}
            (ours, theirs) => panic!("{}: {ours:?}, and they say {theirs:?}", case["name"]),
        }
    }
}

fn record(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)
}

#[test]
fn a_schema_that_cannot_take_anothers_values_says_where() {
    let now = BareAvro::new(&record(
        r#"{"name": "a", "type": "long"}, {"name": "b", "type": "string"}"#,
    ));
    let now = now.unwrap();
    for (other, why) in [
        (
            record(r#"{"name": "a", "type": "long"}"#),
            "R.b: the writer has no such field",
        ),
        (
            record(r#"{"name": "a", "type": "string"}, {"name": "b", "type": "string"}"#),
            "R.a: the writer has string, the reader long",
        ),
        (
            "\"long\"".to_owned(),
            "the value: the writer has long, the reader record R",
        ),
        ("{".to_owned(), "cannot be read"),
    ] {
        let refused = now.clone().written_with(&other).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    for broken in [
        "{",
        "\"longer\"",
        &record(r#"{"name": "a", "type": "Unknown"}"#),
    ] {
        assert!(
            matches!(AvroSchema::new(broken), Err(CodecError::Schema { .. })),
            "{broken}"
        );
    }
}

#[test]
fn a_time_or_a_sum_of_another_unit_is_refused() {
    let of = |logical: &str| {
        record(&format!(
            r#"{{"name": "a", "type": {{"type": "long", "logicalType": "{logical}"}}}}"#
        ))
    };
    let decimal = |scale: u32| {
        record(&format!(
            r#"{{"name": "a", "type": {{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": {scale}}}}}"#
        ))
    };
    let plan = |writer: &str, reader: &str| {
        Plan::new(
            &Schema::parse_str(writer).unwrap(),
            &Schema::parse_str(reader).unwrap(),
        )
    };
    assert!(
        plan(&of("timestamp-millis"), &of("timestamp-millis"))
            .unwrap()
            .is_identity
    );
    assert!(plan(&decimal(2), &decimal(2)).is_ok());
    let refused = plan(&of("timestamp-millis"), &of("timestamp-micros")).unwrap_err();
    assert!(
        refused.contains("timestamp-millis (long), the reader timestamp-micros (long)"),
        "{refused}"
    );
    let refused = plan(&decimal(2), &decimal(3)).unwrap_err();
    assert!(refused.contains("decimal(9, 2)"), "{refused}");
    assert!(
        plan(
            &record(r#"{"name": "a", "type": "long"}"#),
            &of("timestamp-millis")
        )
        .is_ok()
    );
}

#[test]
fn defaults_of_every_type_are_those_of_the_schema() {
    let writer = Schema::parse_str(&record("")).unwrap();
    let reader = Schema::parse_str(&record(
        r#"{"name": "n", "type": "null", "default": null}, {"name": "b", "type": "boolean", "default": true},
           {"name": "i", "type": "int", "default": -7}, {"name": "f", "type": "float", "default": 1.5},
           {"name": "d", "type": "double", "default": -2}, {"name": "s", "type": "string", "default": "é"},
           {"name": "u", "type": ["string", "null"], "default": "x"},
           {"name": "a", "type": {"type": "array", "items": "long"}, "default": [1, 2]},
           {"name": "m", "type": {"type": "map", "values": "long"}, "default": {"k": 3}},
           {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}, "default": "B"},
           {"name": "r", "type": {"type": "record", "name": "I", "fields": [{"name": "x", "type": "long", "default": 4}]}, "default": {}}"#,
    ))
    .unwrap();
    let read = resolved(&writer, &reader, &[]).unwrap();
    let expected = serde_json::json!({"n": null, "b": true, "i": -7, "f": 1.5, "d": -2.0, "s": "é", "u": "x", "a": [1, 2],
        "m": {"k": 3}, "e": "B", "r": {"x": 4}});
    assert_eq!(read, expected);
    let bytes = Schema::parse_str(&record(
        r#"{"name": "b", "type": "bytes", "default": "\u00ff\u0001"}"#,
    ))
    .unwrap();
    let mut carried = Vec::new();
    carry(&Plan::new(&writer, &bytes).unwrap(), &[], &mut carried).unwrap();
    assert_eq!(carried, [4, 0xff, 1]);
}

#[test]
fn every_torn_value_is_refused() {
    // The crate takes torn text and torn booleans for null.
    for case in golden("avro") {
        let codec = BareAvro::new(case["schema"].as_str().unwrap()).unwrap();
        let bytes = bytes_of(&case);
        for length in 0..bytes.len() {
            let read: Result<Cow<'_, Order>, _> = codec.decode(&bytes[..length]);
            assert!(matches!(read, Err(CodecError::Decode { .. })), "{length}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Codec::<Order>::decode(&codec, &longer).is_err());
    }
}

#[test]
fn a_hostile_length_takes_no_memory_and_no_time() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let of = |schema: &str| {
        let schema = Schema::parse_str(schema).unwrap();
        Plan::new(&schema, &schema).unwrap()
    };
    for schema in [
        "\"bytes\"",
        "\"string\"",
        r#"{"type": "array", "items": "long"}"#,
        r#"{"type": "array", "items": "null"}"#,
        r#"{"type": "map", "values": "null"}"#,
    ] {
        let refused = check(&of(schema), &huge).unwrap_err();
        assert!(refused.0.contains("announced"), "{refused}");
    }
    // A block of i64::MIN items, and one longer than the bytes.
    let least = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0,
    ];
    assert!(check(&of(r#"{"type": "array", "items": "null"}"#), &least).is_err());
    let deep = vec![2; 10_000];
    let list = of(
        r#"{"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}"#,
    );
    let refused = check(&list, &deep).unwrap_err();
    assert!(refused.0.contains("one inside the other"), "{refused}");
    check(&list, &[2, 2, 0]).unwrap();
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_read_and_written_alike(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        place in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let case = &golden("avro")[1];
        let codec = BareAvro::new(case["schema"].as_str().unwrap()).unwrap();
        let mut flipped = bytes_of(case);
        let place = place.index(flipped.len());
        flipped[place] ^= flip;
        for bytes in [&bytes, &flipped] {
            if let Ok(read) = Codec::<Order>::decode(&codec, bytes) {
                let mut written = Vec::new();
                codec.encode(&*read, &mut written).unwrap();
                let again: Cow<'_, Order> = codec.decode(&written).unwrap();
                prop_assert_eq!(again.id, read.id);
            }
        }
        for case in golden("avro evolution") {
            let schema = |of: &str| Schema::parse_str(case[of].as_str().unwrap()).unwrap();
            if let Ok(plan) = Plan::new(&schema("writer"), &schema("reader")) {
                let mut out = Vec::new();
                let _ = carry(&plan, &bytes, &mut out);
                prop_assert!(out.len() <= 20 * bytes.len() + 100);
            }
        }
    }

    #[test]
    fn numbers_of_variable_length_go_there_and_back(number in any::<i64>(), bytes in prop::collection::vec(any::<u8>(), 0..12)) {
        let mut written = Vec::new();
        varint::put_long(number, &mut written);
        prop_assert_eq!(varint::take_long(&mut &written[..]), Some(number));
        let _ = varint::take_long(&mut &bytes[..]);
    }
}

#[test]
fn a_value_of_another_fingerprint_or_framing_is_refused_with_what_to_do() {
    let codec = Avro::new(&record(r#"{"name": "a", "type": "long"}"#)).unwrap();
    let decode = |bytes: &[u8]| -> String {
        let read: Result<Cow<'_, Order>, _> = codec.decode(bytes);
        read.unwrap_err().to_string()
    };
    assert!(decode(&[0, 0, 0, 0, 1, 2]).contains("registry's codec"));
    assert!(decode(&[0xc3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 2]).contains("0102030405060708"));
    assert!(decode(&[]).contains("C3 01"));
}
