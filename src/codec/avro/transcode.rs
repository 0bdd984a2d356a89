//! Records carried from a writer's schema to a reader's by a [`Plan`], with every length checked against the bytes that are there.
//!
//! Nothing is believed: a torn or hostile record is an error, takes no more memory than its bytes (and the reader's defaults) do, and
//! ends after as many steps as it has bytes.

use std::fmt;

use super::plan::{Node, NodeId, Number, Origin, Plan, RecordPlan};
use super::varint::{long_bytes, take_long};

/// The most types that stand one inside the other in a record: more would overflow the stack.
const DEPTH_MAX: usize = 100;
/// The most items without bytes of their own, such as nulls, in all arrays of a record.
const EMPTY_ITEMS_MAX: usize = 65_536;
/// The most bytes that a record may grow to by its reader's defaults.
const CARRIED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The reason why bytes are no record of their schema, or have no form in the reader's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn unreadable<T>(why: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable(why.into()))
}

/// The place that carried bytes go to.
trait Out {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Unreadable>;

    fn put_long(&mut self, number: i64) -> Result<(), Unreadable> {
        let (bytes, length) = long_bytes(number);
        self.put(&bytes[..length])
    }

    /// The bytes themselves, for a record whose fields change places; `None` if nobody keeps them.
    fn place(&mut self) -> Option<&mut Vec<u8>>;
}

impl Out for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        if self.len() + bytes.len() > CARRIED_BYTES_MAX {
            return unreadable("with the defaults of the reader it has more than 256 MiB");
        }
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn place(&mut self) -> Option<&mut Vec<u8>> {
        Some(self)
    }
}

/// For what is only checked, or passed over.
struct Nowhere;

impl Out for Nowhere {
    fn put(&mut self, _bytes: &[u8]) -> Result<(), Unreadable> {
        Ok(())
    }

    fn place(&mut self) -> Option<&mut Vec<u8>> {
        None
    }
}

/// Checks that `bytes` are exactly one value of the plan's writer that the reader has, too.
pub(super) fn check(plan: &Plan, bytes: &[u8]) -> Result<(), Unreadable> {
    walk(plan, bytes, &mut Nowhere)
}

/// Appends the value to `out` as the plan's reader would have written it.
pub(super) fn carry(plan: &Plan, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
    walk(plan, bytes, out)
}

fn walk(plan: &Plan, bytes: &[u8], out: &mut impl Out) -> Result<(), Unreadable> {
    let mut walker = Walker {
        plan,
        input: bytes,
        items_left: bytes.len().saturating_add(EMPTY_ITEMS_MAX),
        depth: 0,
    };
    walker.value(plan.root(), out)?;
    match walker.input.len() {
        0 => Ok(()),
        left => unreadable(format!("{left} bytes are left over")),
    }
}

struct Walker<'a> {
    plan: &'a Plan,
    input: &'a [u8],
    items_left: usize,
    depth: usize,
}

impl<'a> Walker<'a> {
    fn long(&mut self) -> Result<i64, Unreadable> {
        match take_long(&mut self.input) {
            Some(number) => Ok(number),
            None => unreadable("it ends within a number, or the number is too large"),
        }
    }

    fn int(&mut self) -> Result<i32, Unreadable> {
        let number = self.long()?;
        i32::try_from(number).or_else(|_| unreadable(format!("{number} is no int")))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        match self.input.split_at_checked(length) {
            Some((taken, rest)) => {
                self.input = rest;
                Ok(taken)
            }
            None => unreadable(format!(
                "{length} bytes are announced, and {} are left",
                self.input.len()
            )),
        }
    }

    /// Text or bytes, with its length in front.
    fn sized(&mut self) -> Result<&'a [u8], Unreadable> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => unreadable(format!("{length} is no length")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let taken = self.take(N)?;
        taken.try_into().or_else(|_| unreadable("it is torn"))
    }

    fn value(&mut self, id: NodeId, out: &mut impl Out) -> Result<(), Unreadable> {
        if self.depth == DEPTH_MAX {
            return unreadable(format!(
                "it has more than {DEPTH_MAX} values one inside the other"
            ));
        }
        self.depth += 1;
        match self.plan.node(id) {
            Node::Array(items) => self.items(*items, false, out)?,
            Node::Map(values) => self.items(*values, true, out)?,
            Node::FromUnion(branches) => {
                let number = self.long()?;
                let branch = usize::try_from(number).ok().and_then(|it| branches.get(it));
                match branch {
                    Some(Ok(node)) => self.value(*node, out)?,
                    Some(Err(why)) => return unreadable(why.clone()),
                    None => return unreadable(format!("its union has no branch {number}")),
                }
            }
            Node::IntoUnion(place, node) => {
                out.put_long(*place)?;
                self.value(*node, out)?;
            }
            Node::Record(record) => self.record(record, out)?,
            scalar => self.scalar(scalar, out)?,
        }
        self.depth -= 1;
        Ok(())
    }

    /// A value without parts.
    fn scalar(&mut self, node: &Node, out: &mut impl Out) -> Result<(), Unreadable> {
        let before = self.input;
        match node {
            Node::Null => {}
            Node::Boolean => match self.array::<1>()? {
                [0 | 1] => {}
                [other] => return unreadable(format!("{other} is no boolean")),
            },
            Node::Int => {
                self.int()?;
            }
            Node::Long => {
                self.long()?;
            }
            Node::Float => {
                self.take(4)?;
            }
            Node::Double => {
                self.take(8)?;
            }
            Node::Bytes => {
                self.sized()?;
            }
            Node::Text => {
                if let Err(e) = std::str::from_utf8(self.sized()?) {
                    return unreadable(format!("its text is no UTF-8: {e}"));
                }
            }
            Node::Fixed(size) => {
                self.take(*size)?;
            }
            Node::Enum(symbols) => return self.symbol(symbols, out),
            Node::Widened(from, to) => return self.widened(*from, *to, out),
            _ => return unreadable("its plan is not finished"),
        }
        out.put(&before[..before.len() - self.input.len()])
    }

    fn symbol(
        &mut self,
        symbols: &[Result<i64, String>],
        out: &mut impl Out,
    ) -> Result<(), Unreadable> {
        let number = self.int()?;
        let symbol = usize::try_from(number).ok().and_then(|it| symbols.get(it));
        match symbol {
            Some(Ok(place)) => out.put_long(*place),
            Some(Err(symbol)) => unreadable(format!(
                "the reader's enum has no symbol {symbol}, and no default for it"
            )),
            None => unreadable(format!("its enum has no symbol {number}")),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "the specification asks for it")]
    fn widened(&mut self, from: Number, to: Number, out: &mut impl Out) -> Result<(), Unreadable> {
        let (near, wide) = match from {
            Number::Int | Number::Long => {
                let number = match from {
                    Number::Int => self.int()?.into(),
                    _ => self.long()?,
                };
                (number as f32, number as f64)
            }
            Number::Float | Number::Double => {
                let number = f32::from_le_bytes(self.array()?);
                (number, number.into())
            }
        };
        match to {
            Number::Float => out.put(&near.to_le_bytes()),
            _ => out.put(&wide.to_le_bytes()),
        }
    }

    /// The blocks of an array, or of a map, whose items have a text in front.
    fn items(&mut self, node: NodeId, is_map: bool, out: &mut impl Out) -> Result<(), Unreadable> {
        loop {
            let count = self.long()?;
            if count < 0 {
                // The length of the block in bytes, by which it could be passed over.
                self.long()?;
            }
            let count = count.unsigned_abs();
            let items = usize::try_from(count).ok();
            let Some(left) = items.and_then(|items| self.items_left.checked_sub(items)) else {
                return unreadable(format!(
                    "{count} items are announced, more than it can hold"
                ));
            };
            self.items_left = left;
            let items = items.unwrap_or(0);
            out.put_long(i64::try_from(items).unwrap_or(i64::MAX))?;
            if items == 0 {
                return Ok(());
            }
            for _ in 0..items {
                if is_map {
                    self.scalar(&Node::Text, out)?;
                }
                self.value(node, out)?;
            }
        }
    }

    fn record(&mut self, record: &RecordPlan, out: &mut impl Out) -> Result<(), Unreadable> {
        match (record.is_in_order, out.place()) {
            (false, Some(out)) => self.reordered(record, out),
            _ => self.ordered(record, out),
        }
    }

    /// The reader has its fields in the order of the writer, or nobody wants them.
    fn ordered(&mut self, record: &RecordPlan, out: &mut impl Out) -> Result<(), Unreadable> {
        let mut read = record.read.iter().peekable();
        for (node, is_read) in &record.written {
            while let Some(Origin::Default(bytes)) =
                read.next_if(|it| matches!(it, Origin::Default(_)))
            {
                out.put(bytes)?;
            }
            match is_read {
                true => {
                    read.next();
                    self.value(*node, out)?;
                }
                false => self.value(*node, &mut Nowhere)?,
            }
        }
        for origin in read {
            if let Origin::Default(bytes) = origin {
                out.put(bytes)?;
            }
        }
        Ok(())
    }

    /// The fields are carried in the order of the writer, and then put into that of the reader.
    fn reordered(&mut self, record: &RecordPlan, out: &mut Vec<u8>) -> Result<(), Unreadable> {
        let mut carried = Vec::new();
        let mut ends = Vec::with_capacity(record.written.len());
        for (node, is_read) in &record.written {
            match is_read {
                true => self.value(*node, &mut carried)?,
                false => self.value(*node, &mut Nowhere)?,
            }
            ends.push(carried.len());
        }
        for origin in &record.read {
            match origin {
                Origin::Default(bytes) => out.put(bytes)?,
                Origin::Written(number) => {
                    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
                    out.put(&carried[start..ends[*number]])?;
                }
            }
        }
        Ok(())
    }
}
