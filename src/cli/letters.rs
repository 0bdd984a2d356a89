//! `onceflow letters`: lists and shows dead and late letters of a job, and has it take them back.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::RangeInclusive;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::UsageError;
use super::format::{self, ByteFormat, Formatter, NULL};
use super::output::{self, Table};
use super::session::{Absent, DataOption, Session, with_session};
use super::time;
use crate::env::Env;
use crate::runtime::{Letter, LetterChoice, LetterKind, LetterState, LetterTime, Letters};
use crate::types::{Offset, Timestamp};

const EXAMPLES: &str = "\
Examples:
  onceflow letters list --job parse
  onceflow letters newest dead --count 5 --job parse
  onceflow letters show dead 17 --job parse
  onceflow letters replay dead --job parse --all
  onceflow letters replay dead --job parse --reason \"invalid digit\" --source clicks
  onceflow letters replay late-clicks --job per-minute --all --time now --log kafka://broker:9092

A letter that is replayed enters the job once, in its transaction, where it came from. On Kafka the job may run meanwhile. A data directory
is in use while it does: stop it first, and what is asked for waits for its next run; or ask from its program (`Running::letters`).";

/// The most reasons that are listed of a topic, and the most characters of each.
const REASONS_MAX: usize = 20;
const REASON_CHARACTERS_MAX: usize = 160;
/// Bytes of a key, a value or a reason to show, unless the whole is asked for.
const SHOWN_BYTES_MAX: usize = 2048;

/// List, show and replay dead and late letters.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LettersArguments {
    #[command(flatten)]
    data: DataOption,
    /// The job's name
    #[arg(long, global = true, value_name = "NAME")]
    job: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say how many letters there are, by reason, and how many of them were replayed
    List {
        /// The topics of letters; else all topics are looked into
        topics: Vec<String>,
    },
    /// Show the newest letters of a topic, the newest first
    Newest {
        /// The topic
        topic: String,
        /// The most to show
        #[arg(long, default_value_t = 20, value_name = "NUMBER")]
        count: usize,
    },
    /// Show one letter, as text and in hexadecimal
    Show {
        /// The topic
        topic: String,
        /// Its offset in the topic, with the partition in front if that is not 0: 17, or 2:17
        place: String,
        /// Format of the key
        #[arg(long, value_enum, default_value_t = ByteFormat::Text)]
        key_format: ByteFormat,
        /// Format of the value
        #[arg(long, value_enum, default_value_t = ByteFormat::Text)]
        value_format: ByteFormat,
        /// Show long keys and values to their end
        #[arg(long)]
        whole: bool,
    },
    /// Have the job take letters back
    Replay(ReplayArguments),
}

#[derive(Debug, Args)]
struct ReplayArguments {
    /// The topic
    topic: String,
    /// All of them
    #[arg(long, conflicts_with_all = ["reason", "source", "offsets", "partition"])]
    all: bool,
    /// Those whose reason has this text in it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Those of this split, such as clicks-3, or of this topic
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Those at these offsets of the topic of letters: 17, or 17-30
    #[arg(long, value_name = "RANGE")]
    offsets: Option<String>,
    /// Those in this partition of it
    #[arg(long, value_name = "NUMBER")]
    partition: Option<i32>,
    /// The time that they have: own, now, or a time such as 2026-11-27T12:00:00
    #[arg(long, value_name = "TIME", default_value = "own")]
    time: String,
}

/// Runs `onceflow letters`.
pub(super) fn run(env: &Env, arguments: LettersArguments) -> anyhow::Result<()> {
    let job = arguments.job.ok_or_else(|| {
        UsageError("no job is named: give --job NAME, whose letters they are".to_owned())
    })?;
    let action = arguments.action;
    with_session(env, &arguments.data, Absent::Refuse, |session| {
        let letters = of_job(session, &job)?;
        let mut out = output::stdout();
        match action {
            Action::List { topics } => list(&letters, &job, topics, &mut out)?,
            Action::Newest { topic, count } => newest(&letters, &job, &topic, count, &mut out)?,
            Action::Show {
                topic,
                place,
                key_format,
                value_format,
                whole,
            } => {
                let letter = find(&letters, &job, &topic, &place)?;
                let shown = Shown {
                    job: &job,
                    topic: &topic,
                    letter: &letter,
                    formats: (key_format, value_format),
                    is_whole: whole,
                };
                shown.write(&mut out)?;
            }
            Action::Replay(arguments) => replay(env, &letters, &arguments, &mut out)?,
        }
        Ok(out.flush()?)
    })
}

fn of_job(session: &Session, job: &str) -> anyhow::Result<Letters> {
    Ok(Letters::on(session.transport(), job)?)
}

/// The account of the letters of one topic.
#[derive(Default)]
struct Tally {
    reasons: BTreeMap<String, u64>,
    count: u64,
    asked: u64,
    replayed: u64,
    times: Option<(Timestamp, Timestamp)>,
}

impl Tally {
    fn add(&mut self, letter: &Letter) {
        self.count += 1;
        self.asked += u64::from(letter.state == LetterState::Asked);
        self.replayed += u64::from(letter.state == LetterState::Replayed);
        *self.reasons.entry(letter.reason.clone()).or_default() += 1;
        let (first, last) = self.times.unwrap_or((letter.written, letter.written));
        self.times = Some((first.min(letter.written), last.max(letter.written)));
    }
}

fn list(
    letters: &Letters,
    job: &str,
    topics: Vec<String>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let topics = match topics.is_empty() {
        false => topics,
        true => letters.topics()?.iter().map(ToString::to_string).collect(),
    };
    if topics.is_empty() {
        let sentence = format!("no topic of this log has letters of the job {job}");
        let object = json!({ "topics": [], "reasons": [] });
        return Ok(output::tell(out, &sentence, &object)?);
    }
    let header = ["topic", "letters", "replayed", "asked", "oldest", "newest"];
    let (mut table, mut reasons) = (
        Table::new(&header).with_numbers(&["letters", "replayed", "asked"]),
        Table::new(&["topic", "letters", "reason"]).with_numbers(&["letters"]),
    );
    let mut has_letters = false;
    for topic in topics {
        let mut tally = Tally::default();
        letters.visit(&topic, &mut |letter| tally.add(letter))?;
        let (oldest, newest) = match tally.times {
            Some((oldest, newest)) => (time::format(oldest), time::format(newest)),
            None => (String::new(), String::new()),
        };
        table.row([
            topic.clone(),
            tally.count.to_string(),
            tally.replayed.to_string(),
            tally.asked.to_string(),
            oldest,
            newest,
        ]);
        let mut by_count: Vec<(String, u64)> = tally.reasons.into_iter().collect();
        by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (reason, count) in by_count.into_iter().take(REASONS_MAX) {
            reasons.row([topic.clone(), count.to_string(), short_reason(&reason)]);
            has_letters = true;
        }
    }
    if output::is_json() {
        let object = json!({ "topics": table.json(), "reasons": reasons.json() });
        return Ok(writeln!(out, "{object}")?);
    }
    table.print(out)?;
    if !has_letters {
        return Ok(());
    }
    writeln!(out)?;
    Ok(reasons.print(out)?)
}

fn newest(
    letters: &Letters,
    job: &str,
    topic: &str,
    count: usize,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let newest = letters.newest(topic, count)?;
    let shown = newest.iter().map(|letter| Shown {
        job,
        topic,
        letter,
        formats: (ByteFormat::Text, ByteFormat::Text),
        is_whole: true,
    });
    if output::is_json() {
        let letters: Vec<_> = shown.map(|it| it.json()).collect();
        return Ok(writeln!(out, "{}", json!({ "letters": letters }))?);
    }
    let mut table = Table::new(&["letter", "kind", "source", "reason", "written", "state"]);
    for it in shown {
        let letter = it.letter;
        let at = letter
            .source_offset
            .map_or_else(String::new, |at| format!("@{at}"));
        let source = format!("{}{at}", letter.source.as_deref().unwrap_or_default());
        table.row([
            format!("{}:{}", letter.partition, letter.offset),
            it.kind().to_owned(),
            output::printable(&source).into_owned(),
            short_reason(&letter.reason),
            time::format(letter.written),
            it.state(),
        ]);
    }
    Ok(table.print(out)?)
}

/// The beginning of a reason, which cannot move the cursor.
fn short_reason(reason: &str) -> String {
    let mut shown: String = reason.chars().take(REASON_CHARACTERS_MAX).collect();
    if shown.len() < reason.len() {
        shown.push('…');
    }
    output::printable(&shown).into_owned()
}

/// A partition and an offset.
fn parse_place(text: &str) -> Option<(i32, Offset)> {
    let (partition, offset) = text.split_once(':').unwrap_or(("0", text));
    Some((partition.parse().ok()?, Offset(offset.parse().ok()?)))
}

/// The letter at a place of a topic.
fn find(letters: &Letters, job: &str, topic: &str, place: &str) -> anyhow::Result<Letter> {
    let (partition, offset) = parse_place(place).ok_or_else(|| {
        UsageError(format!(
            "{place:?} is no place of a letter: give its offset, such as 17, or 2:17 for offset 17 of partition 2"
        ))
    })?;
    let (mut found, mut nearest) = (None, None);
    let distance = |letter: &Letter| {
        let partitions = (i64::from(letter.partition) - i64::from(partition)).unsigned_abs();
        (partitions, letter.offset.0.abs_diff(offset.0))
    };
    letters.visit(topic, &mut |letter| {
        if (letter.partition, letter.offset) == (partition, offset) {
            found = Some(letter.clone());
        }
        if nearest
            .as_ref()
            .is_none_or(|it| distance(letter) < distance(it))
        {
            nearest = Some(letter.clone());
        }
    })?;
    match (found, nearest) {
        (Some(letter), _) => Ok(letter),
        (
            None,
            Some(Letter {
                partition, offset, ..
            }),
        ) => bail!("{topic} has no letter at {place}; the nearest one is {partition}:{offset}"),
        (None, None) => bail!(
            "{topic} has no letters at all: `onceflow letters list --job {job}` says which topics have some"
        ),
    }
}

/// A letter as it is shown.
struct Shown<'l> {
    job: &'l str,
    topic: &'l str,
    letter: &'l Letter,
    formats: (ByteFormat, ByteFormat),
    is_whole: bool,
}

impl Shown<'_> {
    fn state(&self) -> String {
        let letter = self.letter;
        let is_of_another = letter.job.as_ref().is_some_and(|it| it != self.job);
        match letter.state {
            LetterState::Asked => "asked for, and waits for the job".to_owned(),
            LetterState::Replayed => "replayed".to_owned(),
            _ if is_of_another => format!("of another job than {}", self.job),
            _ => "not replayed".to_owned(),
        }
    }

    /// As much of some bytes as is shown, and how many more there are.
    fn beginning<'b>(&self, bytes: &'b [u8]) -> (&'b [u8], usize) {
        let end = match self.is_whole {
            true => bytes.len(),
            false => bytes.len().min(SHOWN_BYTES_MAX),
        };
        // A character is not cut in two.
        let is_inside = |end: &usize| bytes.get(*end).is_some_and(|byte| byte & 0xc0 == 0x80);
        let end = (end.saturating_sub(3)..=end)
            .rev()
            .find(|end| !is_inside(end))
            .unwrap_or(end);
        (&bytes[..end], bytes.len() - end)
    }

    /// A key or a value, decoded and as it is.
    fn part(&self, name: &str, value: Option<&[u8]>, format: ByteFormat) -> String {
        let formatter = formatter();
        let (shown, more) = match value {
            Some(bytes) => self.beginning(bytes),
            None => (&[][..], 0),
        };
        // What is cut off is no value of its format.
        let format = if more > 0 { ByteFormat::Text } else { format };
        let shown = value.map(|_| shown);
        let decoded = formatter.show(shown, format);
        let raw = formatter.show(shown, ByteFormat::Hex);
        let rest = match more {
            0 => String::new(),
            more => format!("… and {more} bytes more: --whole shows them"),
        };
        format!("{name}: {decoded}{rest}\n{name} (hex): {raw}{rest}\n")
    }

    fn kind(&self) -> &'static str {
        match self.letter.kind {
            LetterKind::Late => "late",
            LetterKind::Failed => "failed outside",
            _ => "dead",
        }
    }

    /// The letter as one object, whole; bytes that are not of the format asked for are in hexadecimal digits.
    fn json(&self) -> serde_json::Value {
        let letter = self.letter;
        let headers = letter.headers.headers();
        let header = |(name, value): (_, Option<&[u8]>)| {
            json!([name, format::json(value, ByteFormat::Text)])
        };
        json!({
            "topic": self.topic,
            "partition": letter.partition,
            "offset": letter.offset.0,
            "kind": self.kind(),
            "job": letter.job,
            "source": letter.source,
            "source_offset": letter.source_offset.map(|it| it.to_string()),
            "reason": letter.reason,
            "idempotency_key": letter.effect,
            "time": time::format(letter.time),
            "written": time::format(letter.written),
            "attempts": letter.attempts,
            "state": self.state(),
            "headers": headers.map(header).collect::<Vec<_>>(),
            "key": format::json(letter.key.as_deref(), self.formats.0),
            "value": format::json(letter.value.as_deref(), self.formats.1),
        })
    }

    fn write(&self, out: &mut impl Write) -> anyhow::Result<()> {
        if output::is_json() {
            return Ok(writeln!(out, "{}", self.json())?);
        }
        let (letter, topic) = (self.letter, self.topic);
        let kind = self.kind();
        let source = match (&letter.source, letter.source_offset) {
            (Some(source), Some(at)) => format!("{source}, offset {at}"),
            (Some(source), None) => source.clone(),
            (None, _) => "unknown".to_owned(),
        };
        let (partition, offset) = (letter.partition, letter.offset);
        writeln!(out, "letter: {topic}-{partition}, offset {offset}, {kind}")?;
        let job = letter.job.as_deref().unwrap_or("unknown");
        writeln!(out, "job: {}", output::printable(job))?;
        writeln!(out, "source: {}", output::printable(&source))?;
        writeln!(out, "reason: {}", output::printable(&letter.reason))?;
        if let Some(effect) = &letter.effect {
            writeln!(out, "idempotency key: {}", output::printable(effect))?;
        }
        writeln!(out, "time: {}", time::format(letter.time))?;
        writeln!(out, "written: {}", time::format(letter.written))?;
        if letter.kind == LetterKind::Dead {
            writeln!(out, "attempts: {}", letter.attempts)?;
        }
        writeln!(out, "state: {}", self.state())?;
        for (name, value) in letter.headers.headers() {
            let value = formatter().show(value, ByteFormat::Text);
            writeln!(out, "header {}: {value}", output::printable(&name))?;
        }
        let (key_format, value_format) = self.formats;
        let key = self.part("key", letter.key.as_deref(), key_format);
        let value = self.part("value", letter.value.as_deref(), value_format);
        Ok(write!(out, "{key}{value}")?)
    }
}

fn formatter() -> Formatter<'static> {
    Formatter {
        is_terminal: output::is_terminal(),
        null: NULL,
    }
}

fn parse_offsets(text: &str) -> Option<RangeInclusive<i64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (i64, i64) = (first.parse().ok()?, last.parse().ok()?);
    (0 <= first && first <= last).then_some(first..=last)
}

fn parse_time(env: &Env, text: &str) -> Option<LetterTime> {
    match text {
        "own" => Some(LetterTime::Own),
        "now" => Some(LetterTime::At(env.clock.wall())),
        text => time::parse(text).map(LetterTime::At),
    }
}

fn replay(
    env: &Env,
    letters: &Letters,
    arguments: &ReplayArguments,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut choice = LetterChoice::all();
    let mut is_chosen = arguments.all;
    if let Some(reason) = &arguments.reason {
        (choice, is_chosen) = (choice.reason(reason), true);
    }
    if let Some(source) = &arguments.source {
        (choice, is_chosen) = (choice.source(source), true);
    }
    if let Some(partition) = arguments.partition {
        (choice, is_chosen) = (choice.partition(partition), true);
    }
    if let Some(text) = &arguments.offsets {
        let offsets = parse_offsets(text)
            .ok_or_else(|| UsageError(format!("{text:?} are no offsets: give 17, or 17-30")))?;
        (choice, is_chosen) = (choice.offsets(offsets), true);
    }
    if !is_chosen {
        let why =
            "no letters are chosen: give --all, or --reason, --source, --offsets, --partition";
        return Err(UsageError(why.to_owned()).into());
    }
    let time = parse_time(env, &arguments.time).with_context(|| {
        format!(
            "{:?} is no time: give own, now, or a time such as 2026-11-27T12:00:00",
            arguments.time
        )
    })?;
    let asked = letters.replay(&arguments.topic, &choice, time)?;
    let count = asked.count;
    if output::is_json() {
        let (before, others) = (asked.asked_before, asked.of_others);
        let object = json!({ "asked": count, "asked_before": before, "of_others": others });
        return Ok(writeln!(out, "{object}")?);
    }
    match count {
        1 => write!(out, "1 letter is given back to the job")?,
        _ => write!(out, "{count} letters are given back to the job")?,
    }
    match asked.asked_before {
        0 => {}
        1 => write!(out, "; 1 was before")?,
        before => write!(out, "; {before} were before")?,
    }
    match asked.of_others {
        0 => {}
        1 => write!(out, "; 1 is another job's")?,
        others => write!(out, "; {others} are of other jobs")?,
    }
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_offsets_are_read() {
        assert_eq!(parse_place("17"), Some((0, Offset(17))));
        assert_eq!(parse_place("2:17"), Some((2, Offset(17))));
        assert_eq!(parse_place("a:17"), None);
        assert_eq!(parse_offsets("17"), Some(17..=17));
        assert_eq!(parse_offsets("17-30"), Some(17..=30));
        assert_eq!(parse_offsets("30-17"), None);
        assert_eq!(parse_offsets("-3"), None);
    }
}
