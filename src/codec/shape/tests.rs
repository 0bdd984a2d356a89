//! Shapes of types of every make. They are stored, so those that stand here stand for good.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Serialize, Deserialize)]
struct Account {
    owner: String,
    cents: i64,
}

#[derive(Serialize, Deserialize)]
struct Celsius(f64);

#[derive(Serialize, Deserialize)]
struct Marker;

#[derive(Serialize, Deserialize)]
struct Pair<T>(T, T);

#[derive(Serialize, Deserialize)]
struct Wrapper<T> {
    value: T,
}

#[derive(Serialize, Deserialize)]
enum Event {
    Opened,
    Moved(i64),
    Split(u8, Option<Account>),
    Named { name: String, of: Kind },
}

#[derive(Serialize, Deserialize)]
enum Kind {
    Cash,
    Loan { years: u8 },
}

#[derive(Serialize, Deserialize)]
struct List {
    value: u64,
    next: Option<Box<List>>,
    last: u8,
}

/// The first variants need the last one to end.
#[derive(Serialize, Deserialize)]
enum Expression {
    Sum(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Call {
        name: String,
        arguments: Vec<Expression>,
    },
    Number(i64),
}

#[derive(Serialize, Deserialize)]
#[serde(try_from = "u8")]
struct Even(u8);

impl TryFrom<u8> for Even {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number.is_multiple_of(2) {
            true => Ok(Self(number)),
            false => Err("odd".to_owned()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Never(String);

impl TryFrom<String> for Never {
    type Error = String;

    fn try_from(_: String) -> Result<Self, String> {
        Err("no text will do".to_owned())
    }
}

#[derive(Serialize, Deserialize)]
struct Checked {
    even: Even,
    from: IpAddr,
    maybe: Option<Never>,
    never: Never,
    unseen: u64,
}

#[test]
fn x3_primitive_types_have_fixed_identities() {
    assert_eq!(shape_of::<u8>(), "u8");
    assert_eq!(shape_of::<i8>(), "i8");
    assert_eq!(shape_of::<u16>(), "u16");
    assert_eq!(shape_of::<i16>(), "i16");
    assert_eq!(shape_of::<u32>(), "u32");
    assert_eq!(shape_of::<i32>(), "i32");
    assert_eq!(shape_of::<u64>(), "u64");
    assert_eq!(shape_of::<i64>(), "i64");
    assert_eq!(shape_of::<u128>(), "u128");
    assert_eq!(shape_of::<i128>(), "i128");
    assert_eq!(shape_of::<f32>(), "f32");
    assert_eq!(shape_of::<f64>(), "f64");
    assert_eq!(shape_of::<bool>(), "bool");
    assert_eq!(shape_of::<char>(), "char");
    assert_eq!(shape_of::<()>(), "()");
    assert_eq!(shape_of::<String>(), "str");
    assert_eq!(shape_of::<NonZeroU32>(), "u32");
    assert_eq!(shape_of::<usize>(), "u64");
}

#[test]
fn x3_containers_tuples_and_options_compose() {
    assert_eq!(shape_of::<Vec<Option<u32>>>(), "[Option<u32>]");
    assert_eq!(shape_of::<Option<Option<i8>>>(), "Option<Option<i8>>");
    assert_eq!(shape_of::<(u8, (String, bool))>(), "(u8,(str,bool))");
    assert_eq!(shape_of::<[i16; 3]>(), "(i16,i16,i16)");
    assert_eq!(shape_of::<BTreeMap<String, Vec<f32>>>(), "{str:[f32]}");
    assert_eq!(shape_of::<Box<u64>>(), "u64");
    assert_eq!(shape_of::<Duration>(), "Duration{secs:u64,nanos:u32}");
    assert_eq!(shape_of::<Result<u8, String>>(), "Result[Ok(u8)|Err(str)]");
}

#[test]
fn x3_structs_and_enums_are_seen_with_their_names_and_in_their_order() {
    assert_eq!(shape_of::<Account>(), "Account{owner:str,cents:i64}");
    assert_eq!(shape_of::<Celsius>(), "Celsius(f64)");
    assert_eq!(shape_of::<Marker>(), "Marker");
    assert_eq!(shape_of::<Pair<u8>>(), "Pair(u8,u8)");
    assert_eq!(
        shape_of::<Wrapper<Wrapper<i64>>>(),
        "Wrapper{value:Wrapper{value:i64}}"
    );
    assert_eq!(
        shape_of::<Event>(),
        "Event[Opened|Moved(i64)|Split(u8,Option<Account{owner:str,cents:i64}>)|Named{name:str,of:Kind[Cash|Loan{years:u8}]}]"
    );
}

#[test]
fn x3_types_that_contain_themselves_are_seen_whole() {
    assert_eq!(
        shape_of::<List>(),
        "List{value:u64,next:Option<@List>,last:u8}"
    );
    assert_eq!(
        shape_of::<Expression>(),
        "Expression[Sum(@Expression,@Expression)|Not(@Expression)|Call{name:str,arguments:[@Expression]}|Number(i64)]"
    );
}

#[test]
fn x3_samples_pass_checks_and_what_stands_behind_a_check_that_none_passes_is_unseen() {
    assert_eq!(
        shape_of::<Checked>(),
        "Checked{even:u8,from:IpAddr[V4((u8,u8,u8,u8))|V6((u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8,u8))],\
         maybe:Option<str>,never:str,unseen:?}"
    );
    assert_eq!(shape_of::<serde_json::Value>(), "any");
}

#[test]
fn x3_a_long_description_is_bounded_and_differs_where_the_whole_differs() {
    type Many<T> = [[[T; 32]; 32]; 4];
    let (one, other) = (shape_of::<(Many<u64>, u8)>(), shape_of::<(Many<u64>, i8)>());
    assert!(one.len() < TEXT_BYTES_MAX + 32, "{}", one.len());
    assert_ne!(one, other);
}
