//! Comma-separated values, a row a record.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Codec, CodecError, CodecId};

/// The buffer of a writer or a reader, of which each value has one.
const BUFFER_BYTES: usize = 256;

/// Comma-separated values (RFC 4180) at topics, with the feature `csv`: a record is one row without a line of names. The fields of a
/// struct or a tuple are its columns, in order; `None` is an empty column, so that `Some("")` comes back as `None`. Fields that are maps
/// have no form in it.
///
/// # Errors
/// Encoding fails for such a field. Decoding fails for a row with fewer or more columns than the type has, for a second row in the same
/// record, and for a column that is not of its type; the end of a line behind the row is let pass.
///
/// ```
/// use onceflow::codec::{Codec, Csv};
///
/// #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
/// struct Order {
///     id: u64,
///     goods: String,
///     note: Option<String>,
/// }
///
/// let order = Order { id: 7, goods: "tea, green".to_owned(), note: None };
/// let mut bytes = Vec::new();
/// Csv::default().encode(&order, &mut bytes)?;
/// assert_eq!(bytes, b"7,\"tea, green\",");
/// assert_eq!(*Codec::<Order>::decode(&Csv::default(), &bytes)?, order);
///
/// let with_semicolons = Csv::delimited_by(b';');
/// assert_eq!(*Codec::<Order>::decode(&with_semicolons, b"7;tea, green;\n")?, order);
/// # Ok::<(), onceflow::codec::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Csv {
    delimiter: u8,
}

impl Default for Csv {
    fn default() -> Self {
        Self::delimited_by(b',')
    }
}

impl Csv {
    /// Another character between columns, such as `;` or a tab.
    #[must_use]
    pub const fn delimited_by(delimiter: u8) -> Self {
        Self { delimiter }
    }
}

fn refused(bytes: &[u8], why: impl fmt::Display) -> CodecError {
    CodecError::Decode {
        codec: "CSV",
        length_bytes: bytes.len(),
        why: why.to_string(),
    }
}

impl<T: Serialize + DeserializeOwned + Clone> Codec<T> for Csv {
    fn id(&self) -> CodecId {
        CodecId(10)
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        let mut writer = ::csv::WriterBuilder::new()
            .has_headers(false)
            .delimiter(self.delimiter)
            .buffer_capacity(BUFFER_BYTES)
            .from_writer(&mut *out);
        let written = writer.serialize(value);
        let written = written.and_then(|()| Ok(writer.flush()?));
        drop(writer);
        if let Err(e) = written {
            out.truncate(start);
            return Err(CodecError::Encode {
                codec: "CSV",
                why: e.to_string(),
            });
        }
        // The end of the line.
        out.truncate(out.len().saturating_sub(1).max(start));
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        let mut reader = ::csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .buffer_capacity(bytes.len().clamp(1, BUFFER_BYTES))
            .from_reader(bytes);
        let mut rows = reader.deserialize::<Row<T>>();
        let row = rows
            .next()
            .ok_or_else(|| refused(bytes, "there is no row"))?;
        let Row(value) = row.map_err(|e| refused(bytes, e))?;
        match rows.next() {
            None => Ok(Cow::Owned(value)),
            Some(_) => Err(refused(
                bytes,
                "there is more than one row: a record holds one",
            )),
        }
    }
}

/// A value that takes up all columns of its row.
struct Row<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Row<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(2, Columns(PhantomData))
    }
}

struct Columns<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Columns<T> {
    type Value = Row<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the columns of a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut columns: A) -> Result<Row<T>, A::Error> {
        let value = columns.next_element()?;
        let value = value.ok_or_else(|| A::Error::custom("the row has no columns"))?;
        match columns.next_element::<IgnoredAny>()? {
            None => Ok(Row(value)),
            Some(_) => Err(A::Error::custom(
                "the row has more columns than the type has fields",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Side {
        Buy,
        Sell,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Trade {
        id: u64,
        text: String,
        side: Side,
        price: f64,
        is_open: bool,
        note: Option<u32>,
    }

    fn encoded<T: Serialize + DeserializeOwned + Clone>(value: &T) -> Vec<u8> {
        let mut bytes = b"before".to_vec();
        Csv::default().encode(value, &mut bytes).unwrap();
        bytes.split_off(6)
    }

    fn decoded<T: Serialize + DeserializeOwned + Clone>(bytes: &[u8]) -> Result<T, String> {
        let value: Result<Cow<'_, T>, _> = Csv::default().decode(bytes);
        value.map(Cow::into_owned).map_err(|e| e.to_string())
    }

    fn trade(text: &str) -> Trade {
        Trade {
            id: 1,
            text: text.to_owned(),
            side: Side::Sell,
            price: 2.5,
            is_open: true,
            note: None,
        }
    }

    #[test]
    fn a_record_is_a_row_with_quotes_where_they_are_needed() {
        let bytes = encoded(&trade("a \"b\", c\nd"));
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(text, "1,\"a \"\"b\"\", c\nd\",Sell,2.5,true,");
        assert_eq!(decoded(&bytes), Ok(trade("a \"b\", c\nd")));
        assert_eq!(encoded(&String::new()), b"\"\"");
        assert_eq!(decoded(b"\"\""), Ok(String::new()));
        assert_eq!(encoded(&(1u8, "x".to_owned())), b"1,x");
    }

    #[test]
    fn other_writers_end_the_line() {
        for row in ["3,x\n", "3,x\r\n", "3,x", "\"3\",\"x\"\r\n"] {
            assert_eq!(
                decoded(row.as_bytes()),
                Ok((3u8, "x".to_owned())),
                "{row:?}"
            );
        }
    }

    #[test]
    fn u9_a_row_that_is_not_of_the_type_is_refused_with_the_reason() {
        for (row, why) in [
            ("", "there is no row"),
            ("\n", "there is no row"),
            ("3", "invalid length 1"),
            ("3,x,y", "more columns than the type has fields"),
            ("3,x\n4,y", "more than one row"),
            ("300,x", "number too large"),
            ("tea,x", "invalid digit"),
        ] {
            let said = decoded::<(u8, String)>(row.as_bytes()).unwrap_err();
            assert!(
                said.contains("CSV") && said.contains(why),
                "{row:?}: {said}"
            );
        }
        let said = decoded::<(u8, String)>(b"3,\xff").unwrap_err();
        assert!(said.contains("UTF-8"), "{said}");
    }

    #[test]
    fn what_has_no_form_leaves_nothing_behind() {
        let mut bytes = b"before".to_vec();
        let map = std::collections::BTreeMap::from([(1u8, 2u8)]);
        let refused = Csv::default().encode(&(1u8, map), &mut bytes).unwrap_err();
        assert!(refused.to_string().contains("CSV"), "{refused}");
        assert_eq!(bytes, b"before");
    }

    proptest! {
        #[test]
        fn values_come_back(id: u64, text: String, price in -1e9..1e9f64, is_open: bool, note: Option<u32>) {
            let trade = Trade { id, text, side: Side::Buy, price, is_open, note };
            prop_assert_eq!(decoded(&encoded(&trade)), Ok(trade.clone()));
            let mut bytes = Vec::new();
            Csv::delimited_by(b'\t').encode(&trade, &mut bytes).unwrap();
            let back: Cow<'_, Trade> = Csv::delimited_by(b'\t').decode(&bytes).unwrap();
            prop_assert_eq!(back.into_owned(), trade);
        }

        #[test]
        fn bytes_of_strangers_are_values_or_errors(bytes: Vec<u8>) {
            let _ = decoded::<Trade>(&bytes);
            let _ = decoded::<(String, Option<i8>)>(&bytes);
        }
    }
}
