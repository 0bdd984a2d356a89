//! Parquet: what is written is read back by the format's own crate and by Apache Arrow, and what has no form leaves nothing.

use std::collections::BTreeMap;
use std::process::Command;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::RowAccessor;
use ::parquet::schema::printer::print_schema;
use bytes::Bytes;
use onceflow::runtime::file_table::{Parquet, RowEncoder};
use onceflow::runtime::{Key, Meta, Origin};
use onceflow::types::{Timestamp, TopicName};
use serde::{Deserialize, Serialize};

use super::*;
use crate::jobs::support::{OFTEN, committed};
use crate::support::peers;

/// Clicks as the kill tests write them.
pub(super) fn columns() -> Parquet<String, Click> {
    Parquet::new()
        .text("user", |click: &Click| &click.0)
        .column("number", |record| record.value.1)
}

fn reader(file: Vec<u8>) -> SerializedFileReader<Bytes> {
    SerializedFileReader::new(Bytes::from(file)).unwrap()
}

pub(super) fn numbers(file: Vec<u8>) -> Vec<i64> {
    let file = reader(file);
    let rows = file.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_long(1).unwrap()).collect()
}

fn rows(file: Vec<u8>) -> Vec<String> {
    let file = reader(file);
    let rows = file.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().to_string()).collect()
}

#[test]
fn o1_o4_o6_o8_parquet_holds_each_row_once_whatever_step_is_killed() {
    survives_kills("parquet");
}

/// A value of each kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Order {
    is_paid: bool,
    tiny: i8,
    small: u16,
    count: u32,
    id: u64,
    cents: i64,
    weight: f32,
    price: f64,
    customer: String,
    picture: Vec<u8>,
    note: Option<String>,
    discount: Option<i32>,
    lines: BTreeMap<(u8, u8), u8>,
    at: i64,
}

fn all_columns() -> Parquet<str, Order> {
    Parquet::new()
        .key("key")
        .column("is_paid", |record: &Record<'_, str, Order>| {
            record.value.is_paid
        })
        .column("tiny", |record| record.value.tiny)
        .column("small", |record| record.value.small)
        .column("count", |record| record.value.count)
        .column("id", |record| record.value.id)
        .column("cents", |record| record.value.cents)
        .column("weight", |record| record.value.weight)
        .column("price", |record| record.value.price)
        .text("customer", |order| &order.customer)
        .column("picture", |record| record.value.picture.clone())
        .column("note", |record| record.value.note.clone())
        .column("discount", |record| record.value.discount)
        .json("lines", |order| &order.lines)
        .column("at", |record| Some(Timestamp(record.value.at)))
        .column("time", |record| record.meta.timestamp)
}

fn orders() -> Vec<Order> {
    let full = Order {
        is_paid: true,
        tiny: -1,
        small: u16::MAX,
        count: u32::MAX,
        id: u64::MAX,
        cents: i64::MIN,
        weight: 0.5,
        price: -2.25,
        customer: "Ada, \"Gräfin\"".to_owned(),
        picture: vec![0, 255],
        note: Some(String::new()),
        discount: Some(-7),
        lines: BTreeMap::new(),
        at: 1_700_000_000_123,
    };
    let empty = Order {
        at: -1,
        ..Order::default()
    };
    vec![full, empty]
}

/// Writes orders to a file; gives it, and the reasons why some are not in it.
fn encoded(columns: &Parquet<str, Order>, orders: &[Order]) -> (Vec<u8>, Vec<String>) {
    let mut encoder = columns.encoder();
    let mut refused = Vec::new();
    for (order, time) in orders
        .iter()
        .zip([-1, 1_700_000_000_456].into_iter().cycle())
    {
        let meta = Meta {
            timestamp: Timestamp(time),
            origin: Origin::default(),
        };
        let written = encoder.write(Record::new(Key::new(b"eins"), order, meta));
        refused.extend(written.err().map(|e| e.to_string()));
    }
    (encoder.finish().unwrap(), refused)
}

#[test]
fn each_type_is_a_column_of_its_own_and_comes_back() {
    let (file, refused) = encoded(&all_columns(), &orders());
    assert_eq!(refused, Vec::<String>::new());
    let mut schema = Vec::new();
    print_schema(
        &mut schema,
        reader(file.clone()).metadata().file_metadata().schema(),
    );
    let schema = String::from_utf8(schema).unwrap();
    let expected = "message row {
  REQUIRED BYTE_ARRAY key (STRING);
  REQUIRED BOOLEAN is_paid;
  REQUIRED INT32 tiny (INTEGER(8,true));
  REQUIRED INT32 small (INTEGER(16,false));
  REQUIRED INT32 count (INTEGER(32,false));
  REQUIRED INT64 id (INTEGER(64,false));
  REQUIRED INT64 cents (INTEGER(64,true));
  REQUIRED FLOAT weight;
  REQUIRED DOUBLE price;
  REQUIRED BYTE_ARRAY customer (STRING);
  REQUIRED BYTE_ARRAY picture;
  OPTIONAL BYTE_ARRAY note (STRING);
  OPTIONAL INT32 discount (INTEGER(32,true));
  REQUIRED BYTE_ARRAY lines (JSON);
  OPTIONAL INT64 at (TIMESTAMP(MILLIS,true));
  OPTIONAL INT64 time (TIMESTAMP(MILLIS,true));
}
";
    assert_eq!(schema, expected);
    let rows = rows(file);
    assert_eq!(rows.len(), 2);
    for part in [
        "key: \"eins\"",
        "is_paid: true",
        "tiny: -1",
        "small: 65535",
        "count: 4294967295",
        "id: 18446744073709551615",
        "cents: -9223372036854775808",
        "weight: 0.5",
        "price: -2.25",
        "customer: \"Ada, \"Gräfin\"\"",
        "picture: [0, 255]",
        "note: \"\"",
        "discount: -7",
        "lines: \"{}\"",
        "at: 2023-11-14 22:13:20.123 +00:00",
        "time: null",
    ] {
        assert!(rows[0].contains(part), "{part} in {}", rows[0]);
    }
    for part in ["note: null", "discount: null", "at: null", "customer: \"\""] {
        assert!(rows[1].contains(part), "{part} in {}", rows[1]);
    }
}

#[test]
fn apache_arrow_reads_the_same_types_and_values() {
    if !peers::are_wanted(&["pyarrow"]) {
        return;
    }
    let place = Place::new();
    let (file, _) = encoded(&all_columns(), &orders());
    let path = place.file("orders.parquet", file);
    let python = peers::cache().join("pyarrow/bin/python");
    let script = peers::root().join("tests/peers/pyarrow/read.py");
    let text = peers::output_of(Command::new(python).arg(script).arg(path));
    let mut lines = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line
    });
    let schema = serde_json::json!([
        "key: string not null",
        "is_paid: bool not null",
        "tiny: int8 not null",
        "small: uint16 not null",
        "count: uint32 not null",
        "id: uint64 not null",
        "cents: int64 not null",
        "weight: float not null",
        "price: double not null",
        "customer: string not null",
        "picture: binary not null",
        "note: string",
        "discount: int32",
        "lines: extension<arrow.json> not null",
        "at: timestamp[ms, tz=UTC]",
        "time: timestamp[ms, tz=UTC]",
    ]);
    assert_eq!(lines.next().unwrap(), schema);
    let full = serde_json::json!({
        "key": "eins", "is_paid": true, "tiny": -1, "small": 65535, "count": u32::MAX, "id": u64::MAX, "cents": i64::MIN,
        "weight": 0.5, "price": -2.25, "customer": "Ada, \"Gräfin\"", "picture": "00ff", "note": "", "discount": -7, "lines": "{}",
        "at": "2023-11-14 22:13:20.123000+00:00", "time": null,
    });
    assert_eq!(lines.next().unwrap(), full);
    let empty = lines.next().unwrap();
    for name in ["note", "discount", "at"] {
        assert!(empty[name].is_null(), "{name} in {empty}");
    }
    assert_eq!(empty["time"], "2023-11-14 22:13:20.456000+00:00");
    assert_eq!(lines.next(), None);
}

/// The columns, but that each order is counted twice: before the one that may have no form, and behind it.
fn around_lines() -> Parquet<str, Order> {
    Parquet::new()
        .column("id", |record: &Record<'_, str, Order>| record.value.id)
        .column("note", |record| record.value.note.clone())
        .json("lines", |order| &order.lines)
        .column("again", |record| Some(record.value.id))
}

#[test]
fn a_row_that_has_no_form_leaves_nothing_in_the_file() {
    let order = |id, lines: &[((u8, u8), u8)]| Order {
        id,
        note: (id % 2 == 0).then(|| format!("note {id}")),
        lines: lines.iter().copied().collect(),
        ..Order::default()
    };
    // A key of JSON is a text, so a map whose keys are pairs has no form.
    let bad = [((1, 2), 3)];
    let some = [order(1, &[]), order(2, &bad), order(3, &bad), order(4, &[])];
    let (file, refused) = encoded(&around_lines(), &some);
    assert_eq!(refused.len(), 2);
    let said = "cannot encode as Parquet: the column lines: key must be a string";
    assert_eq!(refused[0], said);
    let expected = [
        "{id: 1, note: null, lines: \"{}\", again: 1}",
        "{id: 4, note: \"note 4\", lines: \"{}\", again: 4}",
    ];
    assert_eq!(rows(file), expected);
    // Nor does one that is the first and only one.
    let (file, _) = encoded(&around_lines(), &some[1..3]);
    assert_eq!(rows(file), Vec::<String>::new());
}

#[test]
fn a_row_that_has_no_form_is_a_letter_and_the_others_are_in_the_files() {
    let place = Place::new();
    let table = place.path("table");
    let job = Job::new("orders");
    let orders = (0..30).map(|id| Order {
        id,
        lines: (id % 10 == 3).then_some(((1, 2), 3)).into_iter().collect(),
        ..Order::default()
    });
    let columns = Parquet::new()
        .column("again", |record: &Record<'_, _, Order>| record.value.id)
        .column("id", |record| i64::try_from(record.value.id).ok())
        .json("lines", |order| &order.lines);
    job.source(values("orders", orders.collect::<Vec<_>>()))
        .sink(file_table(&table, columns).file_bytes(500));
    let dead = PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap());
    let log = place.log();
    let launch = job.exactly_once(Commit::every(OFTEN)).workers(1);
    run(launch.on_poison(dead), &log).unwrap();
    let expected = (0..30).filter(|id| id % 10 != 3);
    assert!(super::numbers(&table).into_iter().eq(expected));
    assert_eq!(committed(&log, "dead").len(), 3);
}

#[test]
fn a_row_group_ends_where_its_rows_take_as_much_memory_as_they_may() {
    let columns = || {
        Parquet::<str, Order>::new()
            .text("customer", |order| &order.customer)
            .column("id", |record| record.value.id)
    };
    let (mut encoder, mut most) = (columns().encoder(), 0);
    for id in 0..70_u64 {
        let mut state = id;
        let letters = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'a' + u8::try_from(state >> 60).unwrap())
        });
        let order = Order {
            id,
            customer: letters.take(1 << 20).collect(),
            ..Order::default()
        };
        let record = Record::at(Key::new(b""), &order, Timestamp(0));
        encoder.write(record).unwrap();
        most = most.max(encoder.size_bytes());
    }
    let file = encoder.finish().unwrap();
    // Sixteen letters are half a byte each, if they are well packed.
    assert!(file.len() < 50 << 20, "{} bytes", file.len());
    assert!(most < file.len() + (33 << 20), "{most} bytes");
    let file = reader(file);
    let groups = file.metadata().row_groups().iter();
    assert_eq!(
        groups.map(|group| group.num_rows()).collect::<Vec<_>>(),
        [32, 32, 6]
    );
    let ids = file.get_row_iter(None).unwrap();
    let ids = ids.map(|row| row.unwrap().get_ulong(1).unwrap());
    assert!(ids.eq(0..70));
}

#[test]
fn columns_that_make_no_schema_are_refused_at_the_start() {
    let place = Place::new();
    let log = place.log();
    let id = |record: &Record<'_, Unkeyed, Order>| record.value.id;
    for (columns, why) in [
        (Parquet::new(), "it has no columns"),
        (Parquet::new().column("", id), "a column has no name"),
        (
            Parquet::new().column("ID", id).column("id", id),
            "two columns are called id",
        ),
    ] {
        let job = Job::new("orders");
        job.source(values("orders", orders()))
            .sink(file_table(place.path("table"), columns));
        let refused = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
        assert_eq!(refused.kind(), JobErrorKind::Setup);
        assert!(refused.to_string().contains(why), "{refused}");
        assert!(!place.path("table").exists());
    }
}
