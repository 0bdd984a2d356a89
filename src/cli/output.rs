//! Output: tables or JSON, numbers for people, errors in colour, text that cannot move the terminal's cursor.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use serde_json::Value;

/// A mebibyte, in bytes.
pub(super) const MIB: u64 = 1 << 20;

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Tables and sentences for people
    Table,
    /// One line of JSON: an array for a table, an object for a description; records and batches are a line each
    Json,
}

/// The form of this process's output. A command line is run once a process, and says the form before anything is printed.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Chooses the form of everything that is printed from here on.
pub(super) fn choose(form: Form) {
    IS_JSON.store(form == Form::Json, Ordering::Relaxed);
}

/// Whether results are printed as JSON.
pub(super) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Prints a result: the sentence for people, or the same as JSON.
pub(super) fn tell(out: &mut impl Write, sentence: &str, json: &Value) -> io::Result<()> {
    match is_json() {
        true => writeln!(out, "{json}"),
        false => writeln!(out, "{sentence}"),
    }
}

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

/// Says on standard error why a command failed. On a terminal the name is red and what stands in backticks is bold, since it
/// is what to type next; elsewhere, or if `NO_COLOR` is set, it is plain.
pub(super) fn say_error(message: &str) {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty())
        || std::env::var_os("TERM").is_some_and(|it| it == "dumb")
        || !io::stderr().is_terminal();
    match is_plain {
        true => say(&format!("onceflow: {message}")),
        false => say(&coloured(message)),
    }
}

fn coloured(message: &str) -> String {
    let mut text = "\x1b[1;31monceflow:\x1b[0m ".to_owned();
    for (i, part) in message.split('`').enumerate() {
        match i % 2 {
            0 => text.push_str(part),
            _ => text.push_str(&format!("`\x1b[1m{part}\x1b[0m`")),
        }
    }
    text
}

/// Whether standard output is a terminal, where control characters must be escaped.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Rows under a header, each column as wide as its widest cell; columns of numbers stand at the right.
pub(super) struct Table {
    columns_count: usize,
    /// The columns whose cells are numbers in JSON; all others are strings, whatever they look like.
    numbers: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    pub(super) fn new(header: &[&str]) -> Self {
        Self {
            columns_count: header.len(),
            numbers: &[],
            rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// The same, with these columns as numbers in JSON.
    pub(super) fn with_numbers(mut self, columns: &'static [&'static str]) -> Self {
        self.numbers = columns;
        self
    }

    /// The rows as objects; a cell that is `-` is null. Names of columns have `_` for spaces.
    pub(super) fn json(&self) -> Value {
        let mut rows = self.rows.iter();
        let header: &[String] = rows.next().map_or(&[], Vec::as_slice);
        let object = |row: &Vec<String>| {
            let cells = header.iter().zip(row);
            let cells = cells.map(|(name, cell)| (name.replace(' ', "_"), self.cell(name, cell)));
            Value::Object(cells.collect())
        };
        Value::Array(rows.map(object).collect())
    }

    fn cell(&self, column: &str, cell: &str) -> Value {
        let number = || cell.parse::<i64>().ok().map(Value::from);
        match cell {
            "-" => Value::Null,
            _ if self.numbers.contains(&column) => number().unwrap_or_else(|| cell.into()),
            _ => cell.into(),
        }
    }

    /// Adds a row, which must have as many cells as the header.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.columns_count, "a row has a cell for each column");
        self.rows.push(cells.into());
    }

    /// Prints all rows, in the form that was chosen.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        match is_json() {
            true => writeln!(out, "{}", self.json()),
            false => self.print_columns(out),
        }
    }

    /// The rows as lines, whatever the form is.
    pub(super) fn lines(&self) -> String {
        let mut text = String::new();
        for line in self.columns() {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    fn print_columns(&self, out: &mut impl Write) -> io::Result<()> {
        self.columns().try_for_each(|line| writeln!(out, "{line}"))
    }

    fn columns(&self) -> impl Iterator<Item = String> {
        let columns: Vec<Column> = (0..self.columns_count)
            .map(|i| Column::of(self.rows.iter().filter_map(|row| row.get(i))))
            .collect();
        self.rows.iter().map(move |row| {
            let cells = row.iter().zip(&columns);
            let line: Vec<String> = cells.map(|(cell, column)| column.pad(cell)).collect();
            line.join("  ").trim_end().to_owned()
        })
    }
}

/// Layout of a column.
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

/// A size for a table: in bytes as JSON, else as people read it.
pub(super) fn size(count: u64) -> String {
    match is_json() {
        true => count.to_string(),
        false => bytes(count),
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
        table.print_columns(&mut out).unwrap();
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
    fn x19_tables_are_arrays_of_objects_in_json() {
        let mut table = Table::new(&["topic", "end offset", "lag"]).with_numbers(&["end offset"]);
        table.row(["7".into(), "12".into(), "-".into()]);
        assert_eq!(
            table.json(),
            serde_json::json!([{ "topic": "7", "end_offset": 12, "lag": null }])
        );
        assert_eq!(Table::new(&["topic"]).json(), serde_json::json!([]));
    }

    #[test]
    fn what_to_type_next_is_bold_on_a_terminal() {
        assert_eq!(
            coloured("no topic: see `onceflow topic list`"),
            "\x1b[1;31monceflow:\x1b[0m no topic: see `\x1b[1monceflow topic list\x1b[0m`"
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
