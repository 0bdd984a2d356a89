//! The headers of a shuffled batch: a column with entries only for the records that have some.

use crate::protocol::batch::Headers;

/// The headers of one record.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: usize,
    /// Where they end among the bytes of the column.
    end: usize,
}

/// The headers of a batch of records.
#[derive(Debug, Default)]
pub(super) struct HeaderColumn {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl HeaderColumn {
    /// Adds the headers of a row, which is behind all others that have some.
    #[inline]
    pub(super) fn push(&mut self, row: usize, headers: Headers<'_>) {
        if !headers.is_empty() {
            self.push_some(row, headers);
        }
    }

    #[cold]
    fn push_some(&mut self, row: usize, headers: Headers<'_>) {
        self.bytes.extend_from_slice(headers.stored());
        let end = self.bytes.len();
        self.entries.push(Entry { row, end });
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Reads them row by row.
    pub(super) fn rows(&self) -> HeaderRows<'_> {
        HeaderRows {
            bytes: &self.bytes,
            entries: &self.entries,
            next_row: next_row(&self.entries),
            start: 0,
        }
    }
}

/// The headers of one row after the other.
pub(super) struct HeaderRows<'a> {
    bytes: &'a [u8],
    entries: &'a [Entry],
    /// The next row that has some.
    next_row: usize,
    start: usize,
}

fn next_row(entries: &[Entry]) -> usize {
    entries.first().map_or(usize::MAX, |entry| entry.row)
}

impl<'a> HeaderRows<'a> {
    /// The headers of a row. Rows are asked for in order, and none is left out.
    #[inline]
    pub(super) fn of(&mut self, row: usize) -> Headers<'a> {
        match row == self.next_row {
            true => self.take(),
            false => Headers::NONE,
        }
    }

    #[cold]
    fn take(&mut self) -> Headers<'a> {
        let Some((entry, rest)) = self.entries.split_first() else {
            return Headers::NONE;
        };
        self.entries = rest;
        self.next_row = next_row(rest);
        let bytes = &self.bytes[self.start..entry.end];
        self.start = entry.end;
        Headers::of_stored(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::batch::HeaderList;

    #[test]
    fn rows_with_headers_get_their_own_and_others_none() {
        let list = |name: &str| {
            let mut list = HeaderList::default();
            list.add(name, None);
            list
        };
        let (one, three) = (list("one"), list("three"));
        let mut column = HeaderColumn::default();
        column.push(0, Headers::NONE);
        column.push(1, one.headers());
        column.push(3, three.headers());
        let mut rows = column.rows();
        let found: Vec<_> = (0..5).map(|row| rows.of(row)).collect();
        let none = Headers::NONE;
        assert_eq!(found, [none, one.headers(), none, three.headers(), none]);
        column.clear();
        assert_eq!((column.size_bytes(), column.rows().of(1)), (0, none));
    }
}
