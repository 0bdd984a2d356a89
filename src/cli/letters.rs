//! `onceflow letters`: lists and shows dead and late letters of a job, and has it take them back.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::RangeInclusive;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::UsageError;
use super::format::{ByteFormat, Formatter, NULL};
use super::output::{self, Table};
use super::session::{Absent, DataOption, Session, with_session};
use super::time;
use crate::env::Env;
use crate::runtime::{Letter, LetterChoice, LetterKind, LetterState, LetterTime, Letters};
use crate::types::{Offset, Timestamp};

const EXAMPLES: &str = "\
Examples:
  onceflow letters list --job parse
  onceflow letters show dead 17 --job parse
  onceflow letters replay dead --job parse --all
  onceflow letters replay dead --job parse --reason \"invalid digit\" --source clicks
  onceflow letters replay late-clicks --job per-minute --all --time now --log kafka://broker:9092

A letter that is replayed enters the job once, in its transaction, where it came from. On Kafka the job may run meanwhile. A data directory
is in use while it does: stop it first, and what is asked for waits for its next run; or ask from its program (`Running::letters`).";

/// The most reasons that are listed of a topic.
const REASONS_MAX: usize = 20;

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
    /// Show one letter, as text and in hexadecimal
    Show {
        /// The topic
        topic: String,
        /// Its offset in the topic, with the partition in front if that is not 0: 17, or 2:17
        place: String,
        /// How to decode the key
        #[arg(long, value_enum, default_value_t = ByteFormat::Text)]
        key_format: ByteFormat,
        /// How to decode the value
        #[arg(long, value_enum, default_value_t = ByteFormat::Text)]
        value_format: ByteFormat,
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
            Action::List { topics } => list(&letters, topics, &mut out)?,
            Action::Show {
                topic,
                place,
                key_format,
                value_format,
            } => {
                let formats = (key_format, value_format);
                show(&letters, &topic, &place, formats, &mut out)?;
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

fn list(letters: &Letters, topics: Vec<String>, out: &mut impl Write) -> anyhow::Result<()> {
    let topics = match topics.is_empty() {
        false => topics,
        true => letters.topics()?.iter().map(ToString::to_string).collect(),
    };
    let header = ["topic", "letters", "replayed", "asked", "oldest", "newest"];
    let (mut table, mut reasons) = (
        Table::new(&header),
        Table::new(&["topic", "letters", "reason"]),
    );
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
            let reason = output::printable(&reason).into_owned();
            reasons.row([topic.clone(), count.to_string(), reason]);
        }
    }
    table.print(out)?;
    writeln!(out)?;
    Ok(reasons.print(out)?)
}

/// A partition and an offset.
fn parse_place(text: &str) -> Option<(i32, Offset)> {
    let (partition, offset) = text.split_once(':').unwrap_or(("0", text));
    Some((partition.parse().ok()?, Offset(offset.parse().ok()?)))
}

fn show(
    letters: &Letters,
    topic: &str,
    place: &str,
    (key_format, value_format): (ByteFormat, ByteFormat),
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (partition, offset) = parse_place(place).ok_or_else(|| {
        UsageError(format!(
            "{place:?} is no place of a letter: give its offset, or PARTITION:OFFSET"
        ))
    })?;
    let mut found = None;
    letters.visit(topic, &mut |letter| {
        if (letter.partition, letter.offset) == (partition, offset) {
            found = Some(letter.clone());
        }
    })?;
    let Some(letter) = found else {
        bail!(
            "{topic} has no letter {place}: `onceflow consume {topic} --offset` shows what is there"
        );
    };
    let formatter = Formatter {
        is_terminal: output::is_terminal(),
        null: NULL,
    };
    let text = |name: &str, value: Option<&[u8]>, format| {
        let decoded = formatter.show(value, format);
        let raw = formatter.show(value, ByteFormat::Hex);
        format!("{name}: {decoded}\n{name} (hex): {raw}\n")
    };
    let kind = match letter.kind {
        LetterKind::Late => "late",
        LetterKind::Failed => "failed outside",
        _ => "dead",
    };
    let state = match letter.state {
        LetterState::Asked => "asked for, and waits for the job",
        LetterState::Replayed => "replayed",
        _ => "not replayed",
    };
    let source = match (&letter.source, letter.source_offset) {
        (Some(source), Some(at)) => format!("{source}, offset {at}"),
        (Some(source), None) => source.clone(),
        (None, _) => "unknown".to_owned(),
    };
    let job = letter.job.as_deref().unwrap_or("unknown");
    writeln!(out, "letter: {topic}-{partition}, offset {offset}, {kind}")?;
    writeln!(out, "job: {}", output::printable(job))?;
    writeln!(out, "source: {}", output::printable(&source))?;
    writeln!(out, "reason: {}", output::printable(&letter.reason))?;
    writeln!(out, "time: {}", time::format(letter.time))?;
    writeln!(out, "written: {}", time::format(letter.written))?;
    writeln!(out, "attempts: {}", letter.attempts)?;
    writeln!(out, "state: {state}")?;
    for (name, value) in letter.headers.headers() {
        let value = formatter.show(value, ByteFormat::Text);
        writeln!(out, "header {}: {value}", output::printable(&name))?;
    }
    write!(out, "{}", text("key", letter.key.as_deref(), key_format))?;
    let value = text("value", letter.value.as_deref(), value_format);
    Ok(write!(out, "{value}")?)
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
    write!(out, "{} letters are given back to the job", asked.count)?;
    if asked.asked_before > 0 {
        write!(out, "; {} were before", asked.asked_before)?;
    }
    if asked.of_others > 0 {
        write!(out, "; {} are of other jobs", asked.of_others)?;
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
