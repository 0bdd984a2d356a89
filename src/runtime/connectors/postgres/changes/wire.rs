//! Messages of `pgoutput`, protocol version 1 (PostgreSQL's manual, "Logical Replication Message Formats"). Numbers are big-endian.

use super::super::session::Problem;
use crate::types::Timestamp;

/// The milliseconds from 1970 to 2000, where PostgreSQL's times begin.
const EPOCH_MILLIS: i64 = 946_684_800_000;

/// A message about a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Begin {
        /// Where its commit stands in the log.
        commit: u64,
        time: Timestamp,
        xid: u32,
    },
    Commit {
        /// The place behind it in the log.
        end: u64,
    },
    Relation {
        table: u32,
        columns: Vec<Column<'a>>,
    },
    Insert {
        table: u32,
        row: Vec<Field<'a>>,
    },
    Update {
        table: u32,
        before: Option<Vec<Field<'a>>>,
        /// Whether `before` has all columns, as with REPLICA IDENTITY FULL.
        is_whole: bool,
        row: Vec<Field<'a>>,
    },
    Delete {
        table: u32,
        before: Vec<Field<'a>>,
        is_whole: bool,
    },
    Truncate {
        tables: Vec<u32>,
    },
    /// One that says nothing about rows.
    Other,
}

/// A column of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    pub(super) type_oid: u32,
}

/// The value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Null,
    /// A large value that did not change, and is not in the log.
    Unchanged,
    Text(&'a str),
}

/// Reads a message.
pub(super) fn parse(bytes: &[u8]) -> Result<Message<'_>, Problem> {
    Parser(bytes).message().ok_or_else(|| {
        let shown: String = bytes.iter().take(24).map(|it| format!("{it:02x}")).collect();
        Problem::refused(format!(
            "a message of pgoutput cannot be read; it begins with {shown}: the server speaks another version of the protocol than 1"
        ))
    })
}

struct Parser<'a>(&'a [u8]);

impl<'a> Parser<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<usize> {
        self.array().map(u16::from_be_bytes).map(usize::from)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self, count: usize) -> Option<&'a str> {
        std::str::from_utf8(self.take(count)?).ok()
    }

    /// Text that ends with a 0 byte.
    fn name(&mut self) -> Option<&'a str> {
        let end = memchr::memchr(0, self.0)?;
        let name = self.text(end)?;
        self.take(1)?;
        Some(name)
    }

    fn time(&mut self) -> Option<Timestamp> {
        let micros = i64::from_be_bytes(self.array()?);
        Some(Timestamp(
            micros.div_euclid(1_000).saturating_add(EPOCH_MILLIS),
        ))
    }

    fn row(&mut self) -> Option<Vec<Field<'a>>> {
        let count = self.u16()?;
        let field = |_| {
            Some(match self.byte()? {
                b'n' => Field::Null,
                b'u' => Field::Unchanged,
                b't' => {
                    let length = usize::try_from(self.u32()?).ok()?;
                    Field::Text(self.text(length)?)
                }
                _ => return None,
            })
        };
        (0..count).map(field).collect()
    }

    fn message(&mut self) -> Option<Message<'a>> {
        Some(match self.byte()? {
            b'B' => Message::Begin {
                commit: self.u64()?,
                time: self.time()?,
                xid: self.u32()?,
            },
            b'C' => {
                let (_flags, _commit) = (self.byte()?, self.u64()?);
                Message::Commit { end: self.u64()? }
            }
            b'R' => self.relation()?,
            b'I' => {
                let table = self.u32()?;
                let row = self.new_row()?;
                Message::Insert { table, row }
            }
            b'U' => self.update()?,
            b'D' => {
                let table = self.u32()?;
                let is_whole = self.byte()? == b'O';
                let before = self.row()?;
                Message::Delete {
                    table,
                    before,
                    is_whole,
                }
            }
            b'T' => {
                let count = self.u32()?;
                self.byte()?;
                let tables = (0..count).map(|_| self.u32());
                Message::Truncate {
                    tables: tables.collect::<Option<_>>()?,
                }
            }
            b'O' | b'Y' | b'M' => Message::Other,
            _ => return None,
        })
    }

    fn new_row(&mut self) -> Option<Vec<Field<'a>>> {
        match self.byte()? {
            b'N' => self.row(),
            _ => None,
        }
    }

    fn relation(&mut self) -> Option<Message<'a>> {
        let table = self.u32()?;
        let (_schema, _name, _identity) = (self.name()?, self.name()?, self.byte()?);
        let count = self.u16()?;
        let column = |_| {
            self.byte()?;
            let (name, type_oid) = (self.name()?, self.u32()?);
            self.u32()?;
            Some(Column { name, type_oid })
        };
        let columns = (0..count).map(column).collect::<Option<_>>()?;
        Some(Message::Relation { table, columns })
    }

    fn update(&mut self) -> Option<Message<'a>> {
        let table = self.u32()?;
        let kind = self.byte()?;
        let before = match kind {
            b'K' | b'O' => Some(self.row()?),
            b'N' => None,
            _ => return None,
        };
        let row = match before {
            Some(_) => self.new_row()?,
            None => self.row()?,
        };
        Some(Message::Update {
            table,
            before,
            is_whole: kind == b'O',
            row,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u64_bytes(number: u64) -> [u8; 8] {
        number.to_be_bytes()
    }

    #[test]
    fn messages_have_the_bytes_of_the_manual() {
        let begin = [&b"B"[..], &u64_bytes(7), &u64_bytes(2_500), &[0, 0, 0, 9]].concat();
        let expected = Message::Begin {
            commit: 7,
            time: Timestamp(EPOCH_MILLIS + 2),
            xid: 9,
        };
        assert_eq!(parse(&begin).unwrap(), expected);
        let commit = [&b"C\0"[..], &u64_bytes(7), &u64_bytes(8), &u64_bytes(1)].concat();
        assert_eq!(parse(&commit).unwrap(), Message::Commit { end: 8 });
        let relation = b"R\0\0\0\x05public\0t\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\0name\0\0\0\0\x19\xff\xff\xff\xff";
        let columns = [("id", 20), ("name", 25)];
        let columns = columns.map(|(name, type_oid)| Column { name, type_oid });
        let expected = Message::Relation {
            table: 5,
            columns: columns.into(),
        };
        assert_eq!(parse(relation).unwrap(), expected);
        let update = b"U\0\0\0\x05K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012u";
        let expected = Message::Update {
            table: 5,
            before: Some(vec![Field::Text("1"), Field::Null]),
            is_whole: false,
            row: vec![Field::Text("2"), Field::Unchanged],
        };
        assert_eq!(parse(update).unwrap(), expected);
        let truncate = b"T\0\0\0\x01\0\0\0\0\x05";
        assert_eq!(
            parse(truncate).unwrap(),
            Message::Truncate { tables: vec![5] }
        );
    }

    #[test]
    fn torn_messages_are_refused_and_never_panic() {
        let whole = b"U\0\0\0\x05O\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012u";
        assert!(parse(whole).is_ok());
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(parse(b"I\0\0\0\x05N\xff\xfft\xff\xff\xff\xff").is_err());
    }
}
