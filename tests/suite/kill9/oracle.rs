//! The oracle: knows the input as a function, and judges what each life found and what its readers saw.
//!
//! At every restart: committed output = f(input below the committed position), for each word exactly 1, 2, … n in
//! order; the folded changelogs say the same; no transaction is undecided; no position, no end, no acknowledged line
//! went back; and what live readers saw in the life before is, record for record, what is there now.

use std::collections::{BTreeMap, HashMap};

use super::parts::{Lines, Parts};
use super::plan::{CHAINED_JOB, FILES_JOB, JOB, line};

/// `topic partition`.
type Place = String;

/// A record as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    key: String,
    value: u64,
}

/// View of a live reader.
#[derive(Debug, Default)]
struct Reader {
    records: BTreeMap<(Place, i64), Seen>,
    /// Where it stands.
    positions: BTreeMap<Place, i64>,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    input_seed: u64,
    /// The committed position in each partition of a job's input, by job and place.
    positions: BTreeMap<(String, Place), i64>,
    /// f(input below the committed position).
    expected: HashMap<String, u64>,
    /// The last update of each key, by topic.
    last: HashMap<(String, String), u64>,
    /// The changelogs, folded, by store.
    folded: HashMap<(String, String), u64>,
    /// Where each place was found to end.
    ends: BTreeMap<Place, i64>,
    /// The updates that the chained job has not committed yet.
    to_mirror: BTreeMap<(Place, i64), Seen>,
    /// Its expected output.
    mirrored: HashMap<String, u64>,
    /// Lines that the job of files committed, and the files that it sealed, by folder.
    copied: Lines,
    sealed: BTreeMap<&'static str, Sealed>,
    /// Where each input partition must at least end.
    acked: Vec<i64>,
    /// Views of the readers of the lives since the last check, and where they had begun.
    readers: Vec<(BTreeMap<Place, i64>, HashMap<String, Reader>)>,
    pub(super) checks_count: u64,
}

/// The sealed files of a folder, with their sizes, and their lines.
#[derive(Debug, Default)]
struct Sealed {
    sizes: BTreeMap<String, u64>,
    lines: Lines,
}

/// Words of one life, sorted.
#[derive(Debug, Default)]
struct Said {
    snapshot: Vec<(Place, i64, Seen)>,
    ends: BTreeMap<Place, i64>,
    positions: BTreeMap<(String, Place), i64>,
    readers: HashMap<String, Reader>,
    acked: Vec<i64>,
    is_checked: bool,
}

impl Said {
    fn read(lines: &[String]) -> Self {
        let mut said = Self::default();
        for line in lines {
            said.hear(line);
        }
        said
    }

    fn hear(&mut self, line: &str) {
        let number = |text: &str| text.parse::<i64>().expect("the child says numbers");
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["r", who, topic, index, offset, key, value] => {
                let (place, offset) = (format!("{topic} {index}"), number(offset));
                let value = value.parse().expect("the child says counts");
                let seen = Seen {
                    key: key.to_owned(),
                    value,
                };
                if who == "s" {
                    self.snapshot.push((place, offset, seen));
                    return;
                }
                let reader = self.readers.entry(who.to_owned()).or_default();
                let before = reader.records.insert((place.clone(), offset), seen);
                assert!(
                    before.is_none(),
                    "reader {who} saw offset {offset} of {place} twice"
                );
            }
            ["at", "s", ..] => {}
            ["at", who, topic, index, position] => {
                let reader = self.readers.entry(who.to_owned()).or_default();
                let place = format!("{topic} {index}");
                let before = reader.positions.insert(place, number(position));
                assert!(before.is_none_or(|before| before <= number(position)));
            }
            ["end", topic, index, end] => {
                self.ends.insert(format!("{topic} {index}"), number(end));
            }
            ["position", job, topic, index, offset] => {
                let place = (job.to_owned(), format!("{topic} {index}"));
                self.positions.insert(place, number(offset));
            }
            ["acked", ref ends @ ..] => self.acked = ends.iter().map(|end| number(end)).collect(),
            ["undecided", id, state] => {
                panic!("after recovery, the transaction of {id} is {state}")
            }
            ["failed", ..] => panic!("the child failed: {line}"),
            ["checked"] => self.is_checked = true,
            _ => {}
        }
    }
}

impl Oracle {
    pub(super) fn new(input_seed: u64) -> Self {
        Self {
            input_seed,
            ..Self::default()
        }
    }

    /// Where the next snapshot and the next readers begin.
    pub(super) fn ends(&self) -> &BTreeMap<Place, i64> {
        &self.ends
    }

    pub(super) fn words_count(&self) -> u64 {
        self.expected.values().sum()
    }

    /// Whether all the input is counted, and mirrored if it is to be.
    pub(super) fn is_caught_up(&self, is_chained: bool) -> bool {
        let is_read = |job: &str, topic: &str| {
            let of_topic = |place: &&Place| place.starts_with(topic);
            self.ends.keys().filter(of_topic).all(|place| {
                let at = self.positions.get(&(job.to_owned(), place.clone()));
                at.copied().unwrap_or(0) == self.ends[place]
            })
        };
        is_read(JOB, "lines ") && (!is_chained || is_read(CHAINED_JOB, "updates "))
    }

    /// Judges one life.
    ///
    /// # Panics
    /// If anything is not exactly once.
    pub(super) fn judge(&mut self, lines: &[String]) {
        let said = Said::read(lines);
        if said.is_checked {
            self.check_progress(&said);
            self.check_readers(&said);
            self.check_outputs(&said);
            self.checks_count += 1;
            self.ends = said.ends;
            self.readers.clear();
        }
        self.readers.push((self.ends.clone(), said.readers));
        for (known, acked) in self.acked.iter_mut().zip(&said.acked) {
            *known = (*known).max(*acked);
        }
        if self.acked.is_empty() {
            self.acked = said.acked;
        }
    }

    /// Nothing acknowledged went back (I5, I9).
    fn check_progress(&self, said: &Said) {
        for (place, before) in &self.ends {
            if place.starts_with("scratch") {
                continue;
            }
            let now = said.ends.get(place);
            assert!(
                now >= Some(before),
                "{place} ended at {before}, now at {now:?}"
            );
        }
        for (index, acked) in self.acked.iter().enumerate() {
            let end = said.ends.get(&format!("lines {index}"));
            assert!(
                end >= Some(acked),
                "line {acked} of partition {index} was acknowledged, and is lost: {end:?}"
            );
        }
        for (place, before) in &self.positions {
            let now = said.positions.get(place);
            assert!(
                now >= Some(before),
                "the position in {place:?} was {before}, now {now:?}"
            );
        }
    }

    /// Checks that the readers saw what is there, and passed over nothing.
    fn check_readers(&self, said: &Said) {
        let snapshot: BTreeMap<(&str, i64), &Seen> = said
            .snapshot
            .iter()
            .map(|(place, offset, seen)| ((place.as_str(), *offset), seen))
            .collect();
        for (begins, readers) in &self.readers {
            for (who, reader) in readers {
                for ((place, offset), seen) in &reader.records {
                    let there = snapshot.get(&(place.as_str(), *offset));
                    assert_eq!(
                        there,
                        Some(&seen),
                        "reader {who} saw {seen:?} at offset {offset} of {place}"
                    );
                }
                for (place, position) in &reader.positions {
                    let end = said.ends.get(place);
                    assert!(
                        end >= Some(position),
                        "reader {who} stood at {position} of {place}, which ends at {end:?}"
                    );
                    let begin = begins.get(place).copied().unwrap_or(0);
                    for (_, offset) in snapshot
                        .range((place.as_str(), begin)..(place.as_str(), *position))
                        .map(|(at, _)| at)
                    {
                        let is_seen = reader.records.contains_key(&(place.clone(), *offset));
                        assert!(
                            is_seen,
                            "reader {who} passed over offset {offset} of {place}"
                        );
                    }
                }
            }
        }
    }

    fn check_outputs(&mut self, said: &Said) {
        for (place, offset, seen) in &said.snapshot {
            self.take(place, *offset, seen);
        }
        for ((job, place), position) in &said.positions {
            self.advance(job, place, *position);
        }
        for (word, count) in &self.expected {
            self.check_key("updates", "wc-counts-changelog", word, *count);
        }
        let mut letters: BTreeMap<String, u64> = BTreeMap::new();
        for (word, count) in &self.expected {
            *letters.entry(word[..1].to_owned()).or_default() += count;
        }
        for (letter, count) in &letters {
            self.check_key("letters", "wc-letter-counts-changelog", letter, *count);
        }
        // Each expected key has its exact count: equal sums leave no room for a key that is not expected (S3).
        let words = self.words_count();
        assert_eq!(sum(&self.last, "updates"), words, "sum of the updates");
        assert_eq!(sum(&self.last, "letters"), words, "sum of the letters");
        assert_eq!(
            sum(&self.folded, "wc-counts-changelog"),
            words,
            "sum of the store of words"
        );
        assert_eq!(
            sum(&self.folded, "wc-letter-counts-changelog"),
            words,
            "sum of the store of letters"
        );
        for (word, count) in &self.mirrored {
            let last = self.last.get(&("mirror".to_owned(), word.clone()));
            assert_eq!(last, Some(count), "S17: the mirrored updates of {word}");
        }
        assert_eq!(
            sum(&self.last, "mirror"),
            self.mirrored.values().sum::<u64>(),
            "S17: sum of the mirrored updates"
        );
    }

    /// One record of the snapshot, in the order of its partition.
    fn take(&mut self, place: &str, offset: i64, seen: &Seen) {
        let topic = place.split(' ').next().unwrap_or_default();
        let key = (topic.to_owned(), seen.key.clone());
        if topic.ends_with("-changelog") {
            self.folded.insert(key, seen.value);
            return;
        }
        if topic == "updates" {
            self.to_mirror
                .insert((place.to_owned(), offset), seen.clone());
        }
        let last = self.last.insert(key, seen.value).unwrap_or(0);
        assert_eq!(
            seen.value,
            last + 1,
            "{:?} at offset {offset} of {place}",
            seen.key
        );
    }

    /// The committed position of a job moved.
    fn advance(&mut self, job: &str, place: &str, position: i64) {
        let known = self
            .positions
            .entry((job.to_owned(), place.to_owned()))
            .or_default();
        let before = std::mem::replace(known, position);
        if job == CHAINED_JOB {
            let range = (place.to_owned(), before)..(place.to_owned(), position);
            let passed: Vec<_> = self
                .to_mirror
                .range(range)
                .map(|(at, _)| at.clone())
                .collect();
            for at in passed {
                let seen = self.to_mirror.remove(&at).expect("it was just found");
                *self.mirrored.entry(seen.key).or_default() += 1;
            }
            return;
        }
        let partition = place
            .rsplit(' ')
            .next()
            .and_then(|index| index.parse().ok());
        let partition = partition.expect("a place ends in its partition");
        if job == FILES_JOB {
            let lines = (before..position).map(|at| line(self.input_seed, partition, at));
            lines.for_each(|line| self.copied.add(line));
            return;
        }
        for offset in before..position {
            for word in line(self.input_seed, partition, offset).split(' ') {
                *self.expected.entry(word.to_owned()).or_default() += 1;
            }
        }
    }

    /// Judges the files as they were when the life that was judged last began: what is sealed is committed and
    /// stays as it is, and what is committed is there.
    ///
    /// # Panics
    /// If a line is lost, doubled, or seen too early.
    pub(super) fn judge_files(&mut self, folder: &'static str, parts: Parts) {
        let known = self.sealed.entry(folder).or_default();
        for (name, length_bytes) in &known.sizes {
            let now = parts.sealed.get(name).map(|text| text.len() as u64);
            assert_eq!(now, Some(*length_bytes), "the sealed file {name} changed");
        }
        for (name, text) in parts.sealed {
            let length_bytes = text.len() as u64;
            if known.sizes.insert(name, length_bytes).is_none() {
                known.lines.add_all(&text);
            }
        }
        let early = known.lines.beyond(&self.copied);
        assert!(early.is_empty(), "sealed and not committed: {early:?}");
        let mut all = known.lines.clone();
        all.add_all(&parts.in_progress);
        let lost = self.copied.beyond(&all);
        assert!(
            lost.is_empty(),
            "committed and in no file of {folder}: {lost:?}"
        );
    }

    /// Counts the lines in sealed files, if those are all that were acknowledged.
    pub(super) fn files_complete(&self, folder: &str) -> Option<u64> {
        let sealed = &self.sealed.get(folder)?.lines;
        let is_complete = *sealed == self.copied;
        let ends = self
            .ends
            .iter()
            .filter(|(place, _)| place.starts_with("lines "));
        let count = sealed.count();
        let fed = ends.map(|(_, end)| end.unsigned_abs()).sum::<u64>();
        (is_complete && count == fed).then_some(count)
    }

    fn check_key(&self, topic: &str, changelog: &str, key: &str, count: u64) {
        let at =
            |of: &HashMap<_, _>, topic: &str| of.get(&(topic.to_owned(), key.to_owned())).copied();
        assert_eq!(at(&self.last, topic), Some(count), "{key:?} in {topic}");
        assert_eq!(
            at(&self.folded, changelog),
            Some(count),
            "{key:?} in {changelog}"
        );
    }
}

fn sum(values: &HashMap<(String, String), u64>, topic: &str) -> u64 {
    let of_topic = values.iter().filter(|((of, _), _)| of == topic);
    of_topic.map(|(_, value)| value).sum()
}
