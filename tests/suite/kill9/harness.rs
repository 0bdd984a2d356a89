//! The harness: one data directory that lives on, a child that is killed again and again, and the oracle between.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::life::{Fate, Life, live};
use super::oracle::Oracle;
use super::parts::Parts;
use super::plan::{FILES_FOLDER, LEDGER_FOLDER, Plan, Random};

/// Chooses the seed, which otherwise the clock does.
const SEED_VARIABLE: &str = "ONCEFLOW_KILL_SEED";
/// Asks each harness for more, or fewer, kills than CI makes.
const KILLS_VARIABLE: &str = "ONCEFLOW_KILLS";

/// Returns a harness's kills.
pub(super) fn kills_wanted(default: u64) -> u64 {
    number_of(KILLS_VARIABLE).unwrap_or(default)
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// One data directory, and what is known of it.
pub(super) struct Harness {
    name: &'static str,
    seed: u64,
    input_seed: u64,
    pub(super) random: Random,
    folder: TempDir,
    pub(super) oracle: Oracle,
    /// Whether a second job reads what the first one writes.
    pub(super) is_chained: bool,
    /// Whether a job copies the input into files.
    pub(super) has_files: bool,
    pub(super) kills: u64,
    lives: u64,
    /// Kills of each failpoint.
    pub(super) hits: BTreeMap<&'static str, u64>,
    /// Step in progress, for the message of a failure.
    now: String,
}

impl Drop for Harness {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let errors = fs::read_to_string(self.data().with_extension("stderr")).unwrap_or_default();
        let tail = errors.lines().rev().take(40).collect::<Vec<_>>();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        let (name, seed, kills, lives) = (self.name, self.seed, self.kills, self.lives);
        // The data is evidence.
        let kept =
            std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder")).keep();
        eprintln!(
            "{name}: life {lives}, after {kills} kills, {SEED_VARIABLE}={seed}, data kept in {}\n{}\nthe child's messages:\n{tail}",
            kept.display(),
            self.now
        );
    }
}

impl Harness {
    pub(super) fn new(name: &'static str) -> Self {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let by_clock = || clock.map_or(1, |now| now.subsec_nanos().into());
        let seed = number_of(SEED_VARIABLE).unwrap_or_else(by_clock);
        let mut random = Random::new(seed);
        let input_seed = random.next();
        Self {
            name,
            seed,
            input_seed,
            random,
            folder: tempfile::tempdir().expect("a folder for the data"),
            oracle: Oracle::new(input_seed),
            is_chained: false,
            has_files: false,
            kills: 0,
            lives: 0,
            hits: BTreeMap::new(),
            now: String::new(),
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A configuration for the next life.
    pub(super) fn draw(&mut self) -> Plan {
        let data = self.data();
        let mut plan = Plan::draw(&mut self.random, data, self.input_seed);
        plan.is_chained = self.is_chained;
        plan.has_files = self.has_files;
        plan
    }

    /// Lives one life, and judges what it said of the lives before.
    pub(super) fn live(&mut self, mut plan: Plan, fate: &Fate) -> Life {
        self.lives += 1;
        plan.from = self.oracle.ends().clone();
        self.now = format!("fate {fate:?}, plan {plan:?}");
        let parts = [FILES_FOLDER, LEDGER_FOLDER].map(|folder| {
            let parts = Parts::read(&self.folder.path().join(folder));
            (folder, parts)
        });
        let life = live(&plan, fate);
        self.kills += u64::from(life.was_killed());
        if let (Fate::Failpoint(name, _) | Fate::Terminate(_, Some(name)), true) =
            (fate, life.is_at_failpoint)
        {
            *self.hits.entry(name).or_default() += 1;
        }
        self.oracle.judge(&life.lines);
        if self.has_files && life.said("checked") {
            for (folder, parts) in parts {
                self.oracle.judge_files(folder, parts);
            }
        }
        let ended_well = life.status.success() && life.said("finished");
        assert!(
            life.was_killed() || ended_well,
            "the child ended by itself: {}",
            life.status
        );
        assert!(
            !life.was_killed() || !matches!(fate, Fate::Finish),
            "the last life was killed"
        );
        life
    }

    /// At any moment: while the directory is opened, or while the job runs.
    pub(super) fn any_moment(&mut self) -> Fate {
        let after = Duration::from_millis(self.random.log_uniform(600));
        match self.random.between(0, 100) {
            0..20 => Fate::KillWhileOpening(after / 4),
            20..23 => Fate::Terminate(after, None),
            _ => Fate::KillWhileRunning(after),
        }
    }

    /// F1: begins a batch behind the last one of some partition, as a torn write would.
    pub(super) fn tear_a_tail(&mut self) {
        let mut active = BTreeMap::new();
        for entry in files(&self.data().join("log")) {
            if entry
                .extension()
                .is_some_and(|extension| extension == "log")
            {
                active.insert(entry.parent().map(Path::to_owned), entry);
            }
        }
        let active: Vec<PathBuf> = active.into_values().collect();
        if active.is_empty() {
            return;
        }
        let file = self.random.pick(&active).clone();
        let written = fs::read(&file).expect("the log can be read");
        let length = self.random.between(1, 61) as usize;
        let torn = match self.random.between(0, 2) {
            0 if written.len() > length => written[..length].to_vec(),
            _ => vec![0; length * 64],
        };
        let mut out = OpenOptions::new()
            .append(true)
            .open(&file)
            .expect("the log can be written");
        out.write_all(&torn).expect("there is space");
    }

    /// S2, S8: RocksDB is lost; the changelog has it all.
    pub(super) fn lose_the_state(&self) {
        let state = self.data().join("state");
        if state.exists() {
            fs::remove_dir_all(state).expect("the state can be removed");
        }
    }

    /// Lets the job catch up, and checks what it left once more in a life of its own.
    pub(super) fn finish(&mut self) {
        for _ in 0..2 {
            let mut plan = self.draw();
            plan.is_last = true;
            self.live(plan, &Fate::Finish);
        }
        assert!(
            self.oracle.is_caught_up(self.is_chained),
            "the job did not read all its input"
        );
        if self.has_files {
            for folder in [FILES_FOLDER, LEDGER_FOLDER] {
                let lines = self.oracle.files_complete(folder);
                let lines = lines.expect("sealed files hold every line once");
                println!("{}: {lines} lines in {folder} exactly once", self.name);
            }
        }
        let (words, checks, lives) = (
            self.oracle.words_count(),
            self.oracle.checks_count,
            self.lives,
        );
        println!(
            "{}: {} kills in {lives} lives, {checks} checks, {words} words exactly once",
            self.name, self.kills
        );
        assert!(
            words >= 20 * lives,
            "only {words} words were counted: the kills met no work"
        );
    }
}

/// All files below `folder`, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}
