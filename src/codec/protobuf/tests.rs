//! Foreign bytes, the outline of files, evolution, torn and random bytes.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

const FILE: &str = include_str!("../../../tests/formats/shop.proto");

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
    let digits = case["bytes"].as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[derive(Clone, PartialEq, prost::Message)]
struct Line {
    #[prost(string, tag = "1")]
    article: String,
    #[prost(int32, tag = "2")]
    count: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    customer: String,
    #[prost(sint64, tag = "3")]
    cents: i64,
    #[prost(message, repeated, tag = "4")]
    lines: Vec<Line>,
    #[prost(bool, tag = "5")]
    express: bool,
}

fn orders() -> [Order; 2] {
    let tea = Line {
        article: "tea".to_owned(),
        count: 3,
    };
    [
        Order {
            id: 1,
            customer: "Ada".to_owned(),
            cents: 1999,
            ..Order::default()
        },
        Order {
            id: 1 << 63,
            customer: "Zoë".to_owned(),
            cents: -5,
            lines: vec![tea, Line::default()],
            express: true,
        },
    ]
}

#[test]
fn what_foreign_software_wrote_is_read_and_written_byte_by_byte() {
    for (case, order) in golden("protobuf").iter().zip(orders()) {
        let bytes = bytes_of(case);
        assert_eq!(*Codec::<Order>::decode(&Protobuf, &bytes).unwrap(), order);
        let mut written = Vec::new();
        Codec::encode(&Protobuf, &order, &mut written).unwrap();
        assert_eq!(written, bytes);
    }
}

#[test]
fn the_places_of_messages_are_those_of_the_compiler() {
    let outline = Outline::of(FILE);
    let messages = golden("protobuf messages")[0]["messages"].clone();
    for (name, path) in messages.as_object().unwrap() {
        // The compiler makes a message of a map's entries, behind those of the file: nobody writes it at a topic.
        if name == "shop.Order.SizesEntry" {
            continue;
        }
        let path: Vec<usize> = serde_json::from_value(path.clone()).unwrap();
        assert_eq!(outline.path_of(name), Some(&path[..]), "{name}");
    }
    assert_eq!(outline.0.len(), messages.as_object().unwrap().len() - 1);
}

#[test]
fn places_are_framed_as_the_vendors_client_does() {
    for case in golden("framing") {
        let path: Vec<usize> = serde_json::from_value(case["path"].clone()).unwrap();
        assert_eq!(encode_path(&path), bytes_of(&case)[5..], "{path:?}");
    }
}

#[test]
fn a_message_is_found_where_another_version_of_its_file_has_it() {
    let schema = ProtobufSchema::new(
        "syntax = \"proto3\"; package shop; message Order { uint64 id = 1; }",
        "shop.Order",
    )
    .unwrap();
    // In the writer's file it is the second.
    let reading = schema.reading_of(FILE).unwrap();
    let mut value = encode_path(&[1]);
    let [first, _] = orders();
    encode(&first, &mut value).unwrap();
    assert_eq!(schema.decode::<Order>(&reading, &value).unwrap(), first);
    value[1] = 0;
    let refused = schema
        .decode::<Order>(&reading, &value)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("the message shop.Customer, and shop.Order is read"),
        "{refused}"
    );
    for wrong in [&[][..], &[4], &[4, 2, 2], &[0xff; 12]] {
        assert!(schema.decode::<Order>(&reading, wrong).is_err());
    }

    // Both forms of the first place are read.
    let own = schema.reading_of(schema.text()).unwrap();
    for form in [&[0][..], &[2, 0]] {
        let value = [form, &[8, 1]].concat();
        assert_eq!(schema.decode::<Order>(&own, &value).unwrap().id, 1);
    }
    let refused = ProtobufSchema::new(FILE, "shop.Bill")
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("no message shop.Bill; it has shop.Customer, shop.Customer.Address"),
        "{refused}"
    );
}

#[test]
fn fields_come_and_go_and_another_wire_type_is_refused() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Older {
        #[prost(uint64, tag = "1")]
        id: u64,
        #[prost(string, tag = "9")]
        gone: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Other {
        #[prost(string, tag = "1")]
        id: String,
    }
    let older = Older {
        id: 5,
        gone: "x".to_owned(),
    };
    let mut bytes = Vec::new();
    encode(&older, &mut bytes).unwrap();
    let read: Order = decode(&bytes).unwrap();
    assert_eq!(
        read,
        Order {
            id: 5,
            ..Order::default()
        }
    );
    assert!(
        decode::<Other>(&bytes)
            .unwrap_err()
            .to_string()
            .contains("wire type")
    );
}

#[test]
fn torn_and_hostile_messages_are_refused() {
    let [_, order] = orders();
    let mut bytes = Vec::new();
    encode(&order, &mut bytes).unwrap();
    // A message has no end of its own: what is cut between two fields is a message with fewer fields.
    let refused = (0..bytes.len()).filter(|length| decode::<Order>(&bytes[..*length]).is_err());
    assert!(refused.count() > bytes.len() / 2);
    // A text of 2^60 bytes.
    let huge = [0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert!(decode::<Order>(&huge).is_err());
}

proptest! {
    #[test]
    fn random_bytes_and_files_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(message|package|[a-z{};\"/*. é])*") {
        let _ = decode::<Order>(&bytes);
        let outline = Outline::of(&text);
        let _ = outline.named_at(&bytes);
        let schema = ProtobufSchema::new(FILE, "shop.Order").unwrap();
        let reading = schema.reading_of(FILE).unwrap();
        let _ = schema.decode::<Order>(&reading, &bytes);
    }
}
