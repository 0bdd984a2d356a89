//! Rows as JSON, of the text that PostgreSQL writes for each value: numbers that JSON can hold are numbers, `json` is itself, and all else
//! is text.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::place::Key;
use super::wire::{Column, Field};

/// The stand-in for a value that did not change and is not in the log: no type of a column, so that nobody takes it for null (O15).
pub(super) const UNCHANGED: &str = "unchanged";

/// The object identifiers of types, which are fixed (`pg_type.dat`).
pub(super) mod oids {
    pub(in super::super) const BOOL: u32 = 16;
    pub(in super::super) const INT8: u32 = 20;
    pub(in super::super) const INT2: u32 = 21;
    pub(in super::super) const INT4: u32 = 23;
    pub(in super::super) const TEXT: u32 = 25;
    pub(in super::super) const OID: u32 = 26;
    pub(in super::super) const JSON: u32 = 114;
    pub(in super::super) const FLOAT4: u32 = 700;
    pub(in super::super) const FLOAT8: u32 = 701;
    pub(in super::super) const VARCHAR: u32 = 1043;
    pub(in super::super) const UUID: u32 = 2950;
    pub(in super::super) const JSONB: u32 = 3802;
}

/// The columns of a table as a transaction of the log has them.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns(Vec<(String, u32)>);

impl Columns {
    pub(super) fn new(columns: Vec<(String, u32)>) -> Self {
        Self(columns)
    }

    pub(super) fn of_relation(columns: Vec<Column<'_>>) -> Self {
        let columns = columns.into_iter();
        Self(
            columns
                .map(|it| (it.name.to_owned(), it.type_oid))
                .collect(),
        )
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.iter().map(|(name, oid)| (name.as_str(), *oid))
    }

    /// A row; of a value that is not in the log what `before` has.
    pub(super) fn row(
        &self,
        fields: &[Field<'_>],
        before: Option<&Map<String, Value>>,
    ) -> Map<String, Value> {
        let fields = self.0.iter().zip(fields);
        let values = fields.map(|((name, oid), field)| {
            let value = match field {
                Field::Null => Value::Null,
                Field::Text(text) => value_of(*oid, text),
                Field::Unchanged => before
                    .and_then(|before| before.get(name).cloned())
                    .unwrap_or_else(|| json!({UNCHANGED: true})),
            };
            (name.clone(), value)
        });
        values.collect()
    }
}

/// The key of a row; `None` if it has not all columns of it.
pub(super) fn key_of(row: &Map<String, Value>, names: &[String]) -> Option<Key> {
    names.iter().map(|name| row.get(name).cloned()).collect()
}

/// A key as users have it: the value of one column, or the list of several.
pub(super) fn shown_key(key: &Key) -> Value {
    match key.as_slice() {
        [one] => one.clone(),
        several => Value::Array(several.to_vec()),
    }
}

fn value_of(oid: u32, text: &str) -> Value {
    let as_text = || Value::from(text);
    match oid {
        oids::BOOL => match text {
            "t" => true.into(),
            "f" => false.into(),
            _ => as_text(),
        },
        oids::INT2 | oids::INT4 | oids::INT8 | oids::OID => {
            text.parse::<i64>().map_or_else(|_| as_text(), Value::from)
        }
        oids::FLOAT4 | oids::FLOAT8 => {
            let number = text.parse::<f64>().ok();
            // JSON has no infinity, and nothing that is no number.
            let number = number.and_then(serde_json::Number::from_f64);
            number.map_or_else(as_text, Value::Number)
        }
        oids::JSON | oids::JSONB => serde_json::from_str(text).unwrap_or_else(|_| as_text()),
        _ => as_text(),
    }
}

/// The columns of a table by the number of the table.
pub(super) type Tables = HashMap<u32, Columns>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_what_json_can_hold_and_are_text_else() {
        for (oid, text, expected) in [
            (oids::INT8, "9223372036854775807", json!(i64::MAX)),
            (oids::BOOL, "t", json!(true)),
            (oids::FLOAT8, "0.1", json!(0.1)),
            (oids::FLOAT8, "NaN", json!("NaN")),
            (oids::FLOAT4, "-Infinity", json!("-Infinity")),
            (oids::JSONB, r#"{"a": [1, null]}"#, json!({"a": [1, null]})),
            (1700, "12.30", json!("12.30")),
            (17, "\\x00ff", json!("\\x00ff")),
            (oids::TEXT, "7", json!("7")),
        ] {
            assert_eq!(value_of(oid, text), expected, "{text}");
        }
    }

    #[test]
    fn o15_a_value_that_did_not_change_is_the_old_one_or_none_and_never_null() {
        let columns = [
            ("id".to_owned(), oids::INT8),
            ("text".to_owned(), oids::TEXT),
        ];
        let columns = Columns::new(columns.into());
        let fields = [Field::Text("1"), Field::Unchanged];
        let before = columns.row(&[Field::Text("1"), Field::Text("large")], None);
        assert_eq!(columns.row(&fields, Some(&before))["text"], "large");
        let unknown = columns.row(&fields, None);
        assert!(unknown["text"].is_object());
        let typed = serde_json::from_value::<Option<String>>(unknown["text"].clone());
        assert!(typed.is_err());
    }
}
