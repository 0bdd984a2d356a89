//! Values of a column on their way to a row group, and the Rust types that have a form in Parquet.

use std::sync::Arc;

use ::parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type,
};
use ::parquet::errors::ParquetError;
use ::parquet::file::writer::SerializedColumnWriter;
use ::parquet::schema::types::{Type, TypePtr};
use bytes::Bytes;

use crate::types::Timestamp;

/// Rows that are handed to a column's encoder at once.
const CHUNK_ROWS: usize = 4096;
/// The largest text or list of bytes, in bytes: a page of the format has at most 2 GiB.
const VALUE_BYTES_MAX: usize = 1 << 30;

/// The form of a column's values in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Bool,
    Integer {
        bits: i8,
        is_signed: bool,
    },
    Float,
    Double,
    Bytes,
    Text,
    Json,
    /// Milliseconds since 1970, UTC.
    Time,
}

impl Form {
    fn physical(self) -> Physical {
        match self {
            Self::Bool => Physical::BOOLEAN,
            Self::Integer { bits: 64, .. } | Self::Time => Physical::INT64,
            Self::Integer { .. } => Physical::INT32,
            Self::Float => Physical::FLOAT,
            Self::Double => Physical::DOUBLE,
            Self::Bytes | Self::Text | Self::Json => Physical::BYTE_ARRAY,
        }
    }

    fn annotation(self) -> Option<LogicalType> {
        match self {
            Self::Bool | Self::Float | Self::Double | Self::Bytes => None,
            Self::Integer { bits, is_signed } => Some(LogicalType::integer(bits, is_signed)),
            Self::Text => Some(LogicalType::String),
            Self::Json => Some(LogicalType::Json),
            Self::Time => Some(LogicalType::timestamp(true, TimeUnit::MILLIS)),
        }
    }

    /// The column in a file's schema.
    pub(super) fn field(self, name: &str, is_optional: bool) -> Result<TypePtr, ParquetError> {
        let repetition = match is_optional {
            true => Repetition::OPTIONAL,
            false => Repetition::REQUIRED,
        };
        let field = Type::primitive_type_builder(name, self.physical())
            .with_repetition(repetition)
            .with_logical_type(self.annotation())
            .build()?;
        Ok(Arc::new(field))
    }
}

/// A type that has a form as a column of Parquet: numbers, `bool`, texts, bytes, JSON, times, and `Option` of them, which is a column that
/// may be null. A [`Timestamp`] may be null always, since [`Timestamp::NONE`] is no time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no form as a column of Parquet",
    label = "this value is no number, text, list of bytes, time or `Option` of one",
    note = "of a struct, write a column for each field; a list or a map goes as JSON: `.json(\"lines\", |order: &Order| &order.lines)`",
    note = "a type of your own becomes one of these in the column's function, a text for example"
)]
pub trait ParquetValue {
    #[doc(hidden)]
    const FORM: Form;
    #[doc(hidden)]
    const IS_OPTIONAL: bool = false;

    /// Adds it to its column, or says why it has no form there.
    #[doc(hidden)]
    fn push(self, cells: &mut Cells) -> Result<(), String>;
}

/// The values of one column in the rows that are not in the file yet.
#[derive(Debug)]
pub struct Cells {
    values: Values,
    /// Of a column that may be null: for each row 1 if it has a value, else 0.
    levels: Option<Vec<i16>>,
}

#[derive(Debug)]
enum Values {
    Bools(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    /// The bytes of all values one behind the other, and the end of each.
    Bytes {
        all: Vec<u8>,
        ends: Vec<usize>,
    },
}

/// Forgets all values but so many.
macro_rules! each_list {
    ($values:expr, $list:ident => $result:expr) => {
        match $values {
            Values::Bools($list) => $result,
            Values::Int32($list) => $result,
            Values::Int64($list) => $result,
            Values::Floats($list) => $result,
            Values::Doubles($list) => $result,
            Values::Bytes { ends: $list, .. } => $result,
        }
    };
}

impl Values {
    fn new(form: Form) -> Self {
        match form.physical() {
            Physical::BOOLEAN => Self::Bools(Vec::new()),
            Physical::INT32 => Self::Int32(Vec::new()),
            Physical::INT64 => Self::Int64(Vec::new()),
            Physical::FLOAT => Self::Floats(Vec::new()),
            Physical::DOUBLE => Self::Doubles(Vec::new()),
            _ => Self::Bytes {
                all: Vec::new(),
                ends: Vec::new(),
            },
        }
    }

    fn len(&self) -> usize {
        each_list!(self, list => list.len())
    }

    fn size_bytes(&self) -> usize {
        let listed = each_list!(self, list => size_of_val(list.as_slice()));
        match self {
            Self::Bytes { all, .. } => listed + all.len(),
            _ => listed,
        }
    }

    fn truncate(&mut self, len: usize) {
        each_list!(self, list => list.truncate(len));
        if let Self::Bytes { all, ends } = self {
            all.truncate(ends.last().copied().unwrap_or(0));
        }
    }
}

/// Pushes a value of one physical type; the cells are made for the type of their column.
macro_rules! push {
    ($name:ident, $variant:ident, $type:ty) => {
        #[inline]
        fn $name(&mut self, value: $type) {
            let Values::$variant(all) = &mut self.values else {
                unreachable!("cells hold the type of their column")
            };
            all.push(value);
        }
    };
}

impl Cells {
    pub(super) fn new(form: Form, is_optional: bool) -> Self {
        Self {
            values: Values::new(form),
            levels: is_optional.then(Vec::new),
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        let levels = self.levels.as_deref().map_or(0, size_of_val);
        self.values.size_bytes() + levels
    }

    /// Forgets all but the first rows, and what the start of a value left.
    pub(super) fn truncate(&mut self, rows: usize) {
        let mut len = self.values.len();
        match &mut self.levels {
            None => len = len.min(rows),
            Some(levels) => {
                while levels.len() > rows {
                    len -= usize::from(levels.pop() == Some(1));
                }
            }
        }
        self.values.truncate(len);
    }

    push!(bool, Bools, bool);
    push!(int32, Int32, i32);
    push!(int64, Int64, i64);
    push!(float, Floats, f32);
    push!(double, Doubles, f64);

    /// Adds the bytes that a function appends.
    pub(super) fn bytes(
        &mut self,
        append: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        let Values::Bytes { all, ends } = &mut self.values else {
            unreachable!("cells hold the type of their column")
        };
        let begin = all.len();
        append(all)?;
        let bytes = all.len() - begin;
        if bytes > VALUE_BYTES_MAX {
            return Err(format!(
                "a value of {bytes} bytes: at most {VALUE_BYTES_MAX} go into a column"
            ));
        }
        ends.push(all.len());
        Ok(())
    }

    fn level(&mut self, level: i16) {
        if let Some(levels) = &mut self.levels {
            levels.push(level);
        }
    }

    /// Writes the rows to a file, and forgets them.
    pub(super) fn write(
        &mut self,
        rows: usize,
        column: &mut SerializedColumnWriter<'_>,
    ) -> Result<(), ParquetError> {
        let chunks = Chunks {
            rows,
            levels: self.levels.as_deref(),
        };
        match &mut self.values {
            Values::Bools(all) => chunks.each(|values, levels| {
                let typed = column.typed::<BoolType>();
                typed.write_batch(&all[values], levels, None).map(drop)
            }),
            Values::Int32(all) => chunks.each(|values, levels| {
                let typed = column.typed::<Int32Type>();
                typed.write_batch(&all[values], levels, None).map(drop)
            }),
            Values::Int64(all) => chunks.each(|values, levels| {
                let typed = column.typed::<Int64Type>();
                typed.write_batch(&all[values], levels, None).map(drop)
            }),
            Values::Floats(all) => chunks.each(|values, levels| {
                let typed = column.typed::<FloatType>();
                typed.write_batch(&all[values], levels, None).map(drop)
            }),
            Values::Doubles(all) => chunks.each(|values, levels| {
                let typed = column.typed::<DoubleType>();
                typed.write_batch(&all[values], levels, None).map(drop)
            }),
            Values::Bytes { all, ends } => {
                let all = Bytes::from(std::mem::take(all));
                let mut slices = Vec::<ByteArray>::with_capacity(CHUNK_ROWS.min(rows));
                let mut begin = 0;
                chunks.each(|values, levels| {
                    slices.clear();
                    for end in &ends[values] {
                        slices.push(ByteArray::from(all.slice(begin..*end)));
                        begin = *end;
                    }
                    let typed = column.typed::<ByteArrayType>();
                    typed.write_batch(&slices, levels, None).map(drop)
                })
            }
        }?;
        self.truncate(0);
        Ok(())
    }
}

/// The rows of a column, some at a time.
struct Chunks<'a> {
    rows: usize,
    levels: Option<&'a [i16]>,
}

impl Chunks<'_> {
    /// Gives a function the range of each chunk's values, and its levels.
    fn each(
        &self,
        mut write: impl FnMut(std::ops::Range<usize>, Option<&[i16]>) -> Result<(), ParquetError>,
    ) -> Result<(), ParquetError> {
        let mut begin = 0;
        for first in (0..self.rows).step_by(CHUNK_ROWS) {
            let rows = first..self.rows.min(first + CHUNK_ROWS);
            let levels = self.levels.map(|levels| &levels[rows.clone()]);
            let count = levels.map_or(rows.len(), |levels| {
                levels.iter().filter(|level| **level == 1).count()
            });
            write(begin..begin + count, levels)?;
            begin += count;
        }
        Ok(())
    }
}

/// Types that go into a column by one conversion.
macro_rules! values {
    ($($type:ty, $form:expr, $push:ident, $convert:expr;)*) => {$(
        impl ParquetValue for $type {
            const FORM: Form = $form;

            #[inline]
            fn push(self, cells: &mut Cells) -> Result<(), String> {
                cells.$push($convert(self));
                Ok(())
            }
        }
    )*};
}

const fn integer(bits: i8, is_signed: bool) -> Form {
    Form::Integer { bits, is_signed }
}

values! {
    bool, Form::Bool, bool, std::convert::identity;
    i8, integer(8, true), int32, i32::from;
    i16, integer(16, true), int32, i32::from;
    i32, integer(32, true), int32, std::convert::identity;
    i64, integer(64, true), int64, std::convert::identity;
    u8, integer(8, false), int32, i32::from;
    u16, integer(16, false), int32, i32::from;
    u32, integer(32, false), int32, u32::cast_signed;
    u64, integer(64, false), int64, u64::cast_signed;
    f32, Form::Float, float, std::convert::identity;
    f64, Form::Double, double, std::convert::identity;
}

impl ParquetValue for &str {
    const FORM: Form = Form::Text;

    fn push(self, cells: &mut Cells) -> Result<(), String> {
        cells.bytes(|all| {
            all.extend_from_slice(self.as_bytes());
            Ok(())
        })
    }
}

impl ParquetValue for String {
    const FORM: Form = Form::Text;

    fn push(self, cells: &mut Cells) -> Result<(), String> {
        self.as_str().push(cells)
    }
}

impl ParquetValue for Vec<u8> {
    const FORM: Form = Form::Bytes;

    fn push(self, cells: &mut Cells) -> Result<(), String> {
        cells.bytes(|all| {
            all.extend_from_slice(&self);
            Ok(())
        })
    }
}

impl ParquetValue for serde_json::Value {
    const FORM: Form = Form::Json;

    fn push(self, cells: &mut Cells) -> Result<(), String> {
        cells.bytes(|all| serde_json::to_writer(all, &self).map_err(|e| e.to_string()))
    }
}

impl ParquetValue for Timestamp {
    const FORM: Form = Form::Time;
    const IS_OPTIONAL: bool = true;

    fn push(self, cells: &mut Cells) -> Result<(), String> {
        if self == Self::NONE {
            cells.level(0);
        } else {
            cells.int64(self.0);
            cells.level(1);
        }
        Ok(())
    }
}

impl<T: ParquetValue> ParquetValue for Option<T> {
    const FORM: Form = T::FORM;
    const IS_OPTIONAL: bool = true;

    fn push(self, cells: &mut Cells) -> Result<(), String> {
        match self {
            None => cells.level(0),
            Some(value) => {
                value.push(cells)?;
                // A type that may be null itself has said whether it is.
                if !T::IS_OPTIONAL {
                    cells.level(1);
                }
            }
        }
        Ok(())
    }
}
