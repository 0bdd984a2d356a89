//! What is printed: tables, numbers for people, text that cannot move the terminal's cursor.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// A mebibyte, in bytes.
pub(super) const MIB: u64 = 1 << 20;

/// Standard output, buffered. Its errors say that it is standard output which cannot be written.
pub(super) struct Stdout(BufWriter<StdoutLock<'static>>);

/// Standard output; whoever writes flushes at the end, so that a closed pipe is noticed.
pub(super) fn stdout() -> Stdout {
    Stdout(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| unwritten(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| unwritten(&error))
    }
}

fn unwritten(error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot write standard output: {error}"),
    )
}

/// Says something on standard error. If nobody can be told, there is nobody left to tell.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether standard output is a terminal, where control characters must be escaped.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Rows under a header, each column as wide as its widest cell; columns of numbers stand at the right.
pub(super) struct Table {
    columns_count: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub(super) fn new(header: &[&str]) -> Self {
        Self {
            columns_count: header.len(),
            rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// Adds a row, which must have as many cells as the header.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.columns_count, "a row has a cell for each column");
        self.rows.push(cells.into());
    }

    /// Prints all rows.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let columns: Vec<Column> = (0..self.columns_count)
            .map(|i| Column::of(self.rows.iter().filter_map(|row| row.get(i))))
            .collect();
        for row in &self.rows {
            let line: Vec<String> = row
                .iter()
                .zip(&columns)
                .map(|(cell, column)| column.pad(cell))
                .collect();
            writeln!(out, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// How a column is laid out.
struct Column {
    width: usize,
    is_number: bool,
}

impl Column {
    /// The layout for a head and the cells under it.
    fn of<'a>(mut cells: impl Iterator<Item = &'a String> + Clone) -> Self {
        let width = cells.clone().map(|cell| cell.chars().count()).max();
        cells.next();
        Self {
            width: width.unwrap_or(0),
            is_number: cells.all(|cell| is_number(cell)),
        }
    }

    fn pad(&self, cell: &str) -> String {
        let width = self.width;
        match self.is_number {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        }
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-"
        || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
            && cell
                .chars()
                .all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '-'))
}

/// A count with a comma every three digits: `1,234,567`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the largest binary unit that leaves at least 1: `64.0 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", MIB),
        ("KiB", 1 << 10),
    ];
    match UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", ratio(count, *size)),
        None => format!("{count} B"),
    }
}

/// A rate for people: `9.87 M`, `12.3 k`, `42`.
pub(super) fn short(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} G", v / 1e9),
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.1} k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

/// `part` divided by `whole`, for display.
#[allow(clippy::cast_precision_loss, reason = "shown with a few digits")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// `text` with control characters other than tabs escaped, so that a stranger's record cannot command the terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && c != '\t';
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_harmful(c) {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(table: &Table) -> String {
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_align_names_left_and_numbers_right() {
        let mut table = Table::new(&["topic", "records"]);
        table.row(["lines".into(), "7".into()]);
        table.row(["word-counts".into(), "1,234".into()]);
        assert_eq!(
            printed(&table),
            "topic        records\nlines              7\nword-counts    1,234\n"
        );
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0, 1023, 1024, 64 << 20].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "64.0 MiB"]
        );
        assert_eq!(
            [0.5, 123.0, 12_345.0, 9.87e6].map(short),
            ["0.50", "123", "12.3 k", "9.87 M"]
        );
    }

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        assert_eq!(printable("\x1b[2Jtea\tcup"), "\\u{1b}[2Jtea\tcup");
        assert!(matches!(printable("Tee ☕"), Cow::Borrowed(_)));
    }
}
