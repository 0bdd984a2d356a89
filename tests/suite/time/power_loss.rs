//! A job with windows and timers on a disk that loses power: every result is right and comes once, every timer fires once.
//!
//! The log is on simulated files. RocksDB writes real ones, of which a power loss may leave any earlier state beside the newer log:
//! its folder is left as it is, wiped, or put back to what it was some lives before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceflow::broker::BrokerError;
use onceflow::client::wait;
use onceflow::internals::env::simulated::{PowerLoss, SimulatedWorld};
use onceflow::internals::env::{
    Access, Dir, DirEntry, Env, File, Files, Lock, LockError, OpenMode,
};
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::{Durability, Timestamp};

use super::everything::{Given, Input, create_topics, finish, launch, open};
use super::support::ms;

/// Chooses the seed, which otherwise is always the same.
const SEED_VARIABLE: &str = "ONCEFLOW_POWER_SEED";
const LIVES: usize = 24;
const CALLS_OF_AN_OPENING: u64 = 1_000;
const CALLS_OF_A_LIFE: u64 = 6_000;
/// Longest life of a job before the power is lost, where a test does not say otherwise.
const LIFE_MAX: Duration = Duration::from_millis(400);

/// The state of jobs in real files, everything else in simulated ones.
struct TwoDisks {
    state: PathBuf,
    real: Arc<dyn Files>,
    simulated: Arc<dyn Files>,
}

impl TwoDisks {
    fn of(&self, path: &Path) -> &dyn Files {
        match path.starts_with(&self.state) {
            true => &*self.real,
            false => &*self.simulated,
        }
    }
}

impl Files for TwoDisks {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        self.of(path).open(path, mode)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.of(path).create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.of(path).read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.of(from).rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove_dir(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        self.of(path).open_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.of(path).exists(path)
    }

    fn access(&self, path: &Path) -> io::Result<Access> {
        self.of(path).access(path)
    }

    fn cache_life(&self, path: &Path) -> io::Result<Option<String>> {
        self.of(path).cache_life(path)
    }

    fn modified(&self, path: &Path) -> io::Result<Timestamp> {
        self.of(path).modified(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, LockError> {
        self.of(path).lock(path)
    }
}

/// One data directory on a machine that loses power again and again.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    pub(crate) world: SimulatedWorld,
    /// The longest life of a job, if the power is not lost before.
    pub(crate) life_max: Duration,
    /// Copies of the state before each life.
    copies: usize,
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = SimulatedWorld::with_threads(seed);
        let files = world.env().files;
        let above: Vec<_> = folder.path().ancestors().collect();
        for path in above
            .into_iter()
            .rev()
            .filter(|path| path.parent().is_some())
        {
            files.create_dir(path).unwrap();
            files.sync_dir(path.parent().unwrap()).unwrap();
        }
        std::fs::create_dir(folder.path().join("data")).unwrap();
        Self {
            folder,
            world,
            life_max: LIFE_MAX,
            copies: 0,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.data().join("state")
    }

    fn copy(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("copy-{number}"))
    }

    pub(crate) fn open(&self) -> Result<Log, BrokerError> {
        let env = Env {
            files: Arc::new(TwoDisks {
                state: self.state(),
                real: Env::real().files,
                simulated: self.world.env().files,
            }),
            ..Env::real()
        };
        open(env, &self.data(), Durability::Fsync)
    }

    /// Puts the state of an earlier life back; 0 is the newest.
    pub(crate) fn restore(&self, lives_ago: usize) {
        std::fs::remove_dir_all(self.state()).unwrap();
        copy_tree(&self.copy(self.copies - 1 - lives_ago), &self.state());
    }

    pub(crate) fn keep_a_copy(&mut self) {
        if self.state().exists() {
            copy_tree(&self.state(), &self.copy(self.copies));
            self.copies += 1;
        }
    }

    pub(crate) fn has_copies(&self) -> bool {
        self.copies > 0
    }

    /// Feeds and runs the job until the power is lost, after so many calls or a while.
    fn live(&mut self, workers: usize, after: Cut, loss: PowerLoss, input: &mut Input) {
        self.live_with(after, loss, launch(true).workers(workers), |log| {
            let keys_count = u64::from(input.random(8) == 0);
            input.feed(log, 4, keys_count);
        });
    }

    /// The same, of any job.
    pub(crate) fn live_with(
        &mut self,
        after: Cut,
        loss: PowerLoss,
        launch: Launch,
        mut feed: impl FnMut(&Log),
    ) {
        if let Cut::WhileOpening(calls_count) = after {
            self.world.power_off_after(calls_count);
        }
        if let Ok(log) = self.open() {
            if let Cut::WhileRunning(calls_count) = after {
                self.world.power_off_after(calls_count);
            }
            let running = launch.start(&log).unwrap();
            let begin = Instant::now();
            while !self.world.is_off() && begin.elapsed() < self.life_max {
                feed(&log);
                std::thread::sleep(ms(3));
            }
            self.world.power_off();
            drop(wait(running.stop()));
        }
        self.world = self.world.after_power_loss(loss);
    }
}

/// After how many calls of the file system the power is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    WhileOpening(u64),
    WhileRunning(u64),
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a1_a3_s2_s8_t8_w15_windows_and_timers_are_right_after_power_losses_whatever_is_left_of_the_state()
 {
    let seed = std::env::var(SEED_VARIABLE).map_or(7, |seed| seed.parse().unwrap());
    println!("{SEED_VARIABLE}={seed}");
    let mut machine = Machine::new(seed);
    let mut input = Input::new(seed);
    // Chances of their own, so that what happens does not depend on how much is fed.
    let mut chances = Input::new(seed ^ 0x5eed);
    let log = machine.open().unwrap();
    create_topics(&log);
    log.close().unwrap();
    drop(log);
    let (mut wiped, mut older) = (0, 0);
    for life in 0..LIVES {
        match life % 3 {
            1 if machine.state().exists() => {
                std::fs::remove_dir_all(machine.state()).unwrap();
                wiped += 1;
            }
            2 if machine.copies > 0 && machine.state().exists() => {
                let copies = machine.copies.min(9) as u64;
                let lives_ago = usize::try_from(chances.random(copies)).unwrap();
                machine.restore(lives_ago);
                older += 1;
            }
            _ => machine.keep_a_copy(),
        }
        let cut = match chances.random(5) {
            0 => Cut::WhileOpening(chances.random(CALLS_OF_AN_OPENING)),
            _ => Cut::WhileRunning(chances.random(CALLS_OF_A_LIFE)),
        };
        let nth = usize::try_from(chances.random(32)).unwrap();
        let loss = PowerLoss::every_mode(seed ^ life as u64).nth(nth).unwrap();
        let calls_before = machine.world.calls_count();
        println!("life {life}: {cut:?}, {loss:?}");
        let world = machine.world.clone();
        machine.live(1 + life % 3, cut, loss, &mut input);
        println!("{} calls", world.calls_count() - calls_before);
        let log = machine.open().unwrap();
        input.read_again(&log);
        Given::found(&log).assert_begins(&Given::expected(&input));
        log.close().unwrap();
    }
    assert!(
        wiped > 3 && older > 3,
        "{wiped} times wiped, {older} times older"
    );
    let log = machine.open().unwrap();
    println!("out after the lives: {:?}", Given::found(&log).counts());
    finish(&log, &input);
    log.close().unwrap();
}
