//! Runs rounds on both sides, finds where they differ, and makes a round that differs as small as it can.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::accepted::{self, Accepted};
use super::side::Side;
use super::steps::{Ask, Round, Step};

/// Longest time to make a round smaller.
const SHRINKING_MAX: Duration = Duration::from_secs(20);

/// An answer that is not the same on both sides. Without a step: the topic's creation, or what readers saw in the end.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    pub(super) step: Option<Step>,
    /// The settings that the topic has, or may have been given in this round.
    pub(super) settings: Vec<&'static str>,
    pub(super) kafka: String,
    pub(super) ours: String,
}

impl Difference {
    /// The lines that are not the same, Kafka's and ours.
    pub(super) fn lines(&self) -> Vec<(&str, &str)> {
        let (mut kafka, mut ours) = (self.kafka.lines(), self.ours.lines());
        let mut pairs = Vec::new();
        loop {
            match (kafka.next(), ours.next()) {
                (None, None) => return pairs,
                (left, right) if left != right => {
                    pairs.push((left.unwrap_or("(nothing)"), right.unwrap_or("(nothing)")));
                }
                _ => {}
            }
        }
    }
}

impl Difference {
    /// The kind of the difference: the request, and the first lines that differ, without their numbers.
    pub(super) fn kind(&self) -> String {
        let asked = self.step.as_ref().map(|step| format!("{:?}", step.ask));
        let asked = asked.as_deref().unwrap_or("outcome");
        let end = asked.find([' ', '(']).unwrap_or(asked.len());
        let first = self
            .lines()
            .first()
            .map(|it| format!("{} | {}", it.0, it.1));
        let first = first.unwrap_or_default();
        let first: String = first.chars().filter(|it| !it.is_ascii_digit()).collect();
        format!("{} {first}", &asked[..end])
    }
}

impl Difference {
    /// One difference for each partition, where a request was to write to several.
    pub(super) fn parts(&self) -> Vec<Difference> {
        let Some(Step {
            version,
            ask:
                Ask::Produce {
                    acks,
                    transactional,
                    partitions,
                },
        }) = &self.step
        else {
            return vec![self.clone()];
        };
        let (kafka, ours) = (by_partition(&self.kafka), by_partition(&self.ours));
        let differs: BTreeSet<i32> = kafka.keys().chain(ours.keys()).copied().collect();
        let differs = differs
            .into_iter()
            .filter(|it| kafka.get(it) != ours.get(it));
        let part = |index: i32| {
            let ask = Ask::Produce {
                acks: *acks,
                transactional: *transactional,
                partitions: partitions
                    .iter()
                    .filter(|it| it.0 == index)
                    .cloned()
                    .collect(),
            };
            let text = |of: &BTreeMap<i32, String>| of.get(&index).cloned().unwrap_or_default();
            Difference {
                step: Some(Step {
                    version: *version,
                    ask,
                }),
                settings: self.settings.clone(),
                kafka: text(&kafka),
                ours: text(&ours),
            }
        };
        let parts: Vec<Difference> = differs.map(part).collect();
        match parts.is_empty() {
            true => vec![self.clone()],
            false => parts,
        }
    }
}

/// The lines of an answer to Produce, by partition.
fn by_partition(text: &str) -> BTreeMap<i32, String> {
    let (mut parts, mut at) = (BTreeMap::<i32, String>::new(), 0);
    for line in text.lines() {
        let index = line.strip_prefix("partition ");
        let index = index.and_then(|it| it.split_once(':')?.0.parse().ok());
        at = index.unwrap_or(at);
        let part = parts.entry(at).or_default();
        *part += line;
        part.push('\n');
    }
    parts
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => writeln!(f, "  asked: {step:?}")?,
            None => writeln!(f, "  seen at the end")?,
        }
        for (kafka, ours) in self.lines().into_iter().take(12) {
            writeln!(f, "    Kafka: {kafka}\n    ours:  {ours}")?;
        }
        Ok(())
    }
}

/// The names of the settings that a round's topic has, or is given.
fn settings(round: &Round) -> Vec<&'static str> {
    let mut names: Vec<&str> = round.settings.iter().map(|it| it.0).collect();
    for step in &round.steps {
        match &step.ask {
            Ask::AlterConfig { name, .. } => names.push(name),
            Ask::ReplaceConfigs { settings, .. } | Ask::CreateTopic { settings, .. } => {
                names.extend(settings.iter().map(|it| it.0));
            }
            _ => {}
        }
    }
    names
}

/// Both brokers.
pub(super) struct Pair {
    kafka: Side,
    ours: Side,
    /// Meetings of each accepted difference, by its name and kind.
    pub(super) met: BTreeMap<&'static str, BTreeMap<String, usize>>,
    /// The kinds of differences that were reported: one of each is enough to look at.
    reported: BTreeSet<String>,
}

impl Pair {
    pub(super) fn new(kafka: &str, ours: &str, base_time: i64) -> Self {
        Self {
            kafka: Side::new(kafka, base_time),
            ours: Side::new(ours, base_time),
            met: BTreeMap::new(),
            reported: BTreeSet::new(),
        }
    }

    /// Plays a round; its first difference that is not accepted, if there is one.
    pub(super) fn play(&mut self, round: &Round) -> Option<Difference> {
        // Topics of all rounds are in the same two brokers.
        static ROUNDS: AtomicU64 = AtomicU64::new(0);
        let number = ROUNDS.fetch_add(1, Ordering::Relaxed);
        let suffix = format!("-{}-{number}", std::process::id());
        let settings = settings(round);
        if let Some(end) = self.step(None, &settings, |side| side.begin(round, &suffix)) {
            return end;
        }
        if !self.kafka.has_topic() {
            return None;
        }
        for step in &round.steps {
            if let Some(end) = self.step(Some(step), &settings, |side| side.run(step)) {
                return end;
            }
        }
        self.step(None, &settings, Side::outcome).flatten()
    }

    /// `None` to go on; else the end of the round, with the difference that nobody accepted.
    #[allow(clippy::option_option, reason = "whether to go on, and why not")]
    fn step(
        &mut self,
        step: Option<&Step>,
        settings: &[&'static str],
        act: impl Fn(&mut Side) -> String,
    ) -> Option<Option<Difference>> {
        let (kafka, ours) = (act(&mut self.kafka), act(&mut self.ours));
        if kafka == ours {
            let may_differ = step.is_some_and(|step| accepted::may_differ_behind(step, &kafka));
            return may_differ.then_some(None);
        }
        let difference = Difference {
            step: step.cloned(),
            settings: settings.to_vec(),
            kafka,
            ours,
        };
        let Some(found) = accepted::find(&difference) else {
            // The two may have become different: what follows says nothing.
            let is_new = !self.reported.contains(&difference.kind());
            return Some(is_new.then_some(difference));
        };
        for (Accepted { name, .. }, part) in &found {
            let kinds = self.met.entry(name).or_default();
            *kinds.entry(part.kind()).or_default() += 1;
        }
        match found.iter().all(|(it, _)| it.goes_on) {
            true => None,
            false => Some(None),
        }
    }

    /// Leaves out what the difference does not need.
    pub(super) fn shrink(
        &mut self,
        mut round: Round,
        mut found: Difference,
    ) -> (Round, Difference) {
        let deadline = Instant::now() + SHRINKING_MAX;
        let mut at = round.steps.len();
        while at > 0 && Instant::now() < deadline {
            at -= 1;
            let mut smaller = round.clone();
            smaller.steps.remove(at);
            if let Some(difference) = self.play_again(&smaller, &found) {
                (round, found) = (smaller, difference);
                at = at.min(round.steps.len());
            }
        }
        for index in (0..round.settings.len()).rev() {
            let mut smaller = round.clone();
            smaller.settings.remove(index);
            if let Some(difference) = self.play_again(&smaller, &found) {
                (round, found) = (smaller, difference);
            }
        }
        self.reported.insert(found.kind());
        (round, found)
    }

    /// Plays a smaller round, which is to differ in the same way.
    fn play_again(&mut self, round: &Round, found: &Difference) -> Option<Difference> {
        let difference = self.play(round)?;
        (difference.kind() == found.kind()).then_some(difference)
    }
}
