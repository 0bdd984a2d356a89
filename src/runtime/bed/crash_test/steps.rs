//! The steps of one run of a crash test, drawn from its seed before it begins, so that fewer of them can be tried.

use std::fmt::{self, Debug, Display};
use std::time::Duration;

use crate::env::simulated::{Call, Fault, FaultEffect, PowerLoss};
use crate::runtime::bed::chance::Chance;

/// The most turns that a job gets in one step.
const ROUNDS_MAX: usize = 30;
/// The most calls on files that pass before one of them is a process's last, or fails. Half of the draws are much smaller.
const CALLS_MAX: u64 = 200;
/// The least space that a full disk has left is none, the most this.
const ROOM_BYTES_MAX: u64 = 64 << 10;
/// The most workers that a job is restarted with.
const WORKERS_MAX: usize = 4;
/// The most that a zombie stands still, in half commit intervals.
const SUSPENDED_MAX: u32 = 20;
/// The most instances of a job that is scaled out.
pub(super) const INSTANCES_MAX: usize = 4;
/// The ways to lose power: see [`PowerLoss::every_mode`].
const WAYS: usize = 32;

/// One thing that happens in a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step<I> {
    /// An input is put into the log.
    Send(I),
    /// The job gets so many turns, which may end anywhere within a cycle.
    Work(usize),
    /// Time passes.
    Wait(Duration),
    /// Something goes wrong.
    Trouble(Trouble),
    /// The job processes and commits all that was sent, and everything is compared.
    Check,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The process dies, and another one goes on.
    Death(Death),
    /// As the death by `kill -9` at rest, but the other process has so many workers.
    Workers(usize),
    /// The job stops as asked, and another process goes on.
    Stop,
    /// Another process goes on, of which this one hears nothing: it lives on as a zombie, after it has stood still for so long.
    TakeOver(Duration),
    /// Requests and answers between the job and its log get lost, repeated and late for a while, by this seed.
    LostAnswers(u64),
    /// An instance of a job that is scaled out comes, goes, dies or stands still, while the others and the log go on.
    Instance(Coming, usize),
    /// The disk has so little room left for a while.
    FullDisk(u64),
    /// A call on files fails, is short, or takes long.
    BadCall {
        call: Call,
        after: u64,
        effect: FaultEffect,
    },
}

/// Coming or going of an instance. Its number is taken modulo the number of those that it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coming {
    /// One more joins, or one that is away starts again.
    Join,
    /// It stops as asked.
    Leave,
    /// It is killed, and stays away.
    Kill,
    /// It is killed and started again at once.
    Restart,
    /// It stands still for so long.
    StandStill(Duration),
    /// Another process of its name starts; it stands still for so long, and goes on as a zombie.
    Replace(Duration),
}

/// The times of a job, from which those of its steps are drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The commit interval.
    pub(super) interval: Duration,
    /// The session timeout of its instances, if it is scaled out.
    pub(super) session: Option<Duration>,
}

impl Pace {
    /// Up to twice the commit interval, so that a commit is due in half of the cases; of instances also up to twice a session.
    fn draw_wait(self, chance: &mut Chance) -> Duration {
        match self.session {
            Some(session) if chance.one_in(3) => draw_up_to(chance, session * 2),
            _ => draw_up_to(chance, self.interval * 2),
        }
    }
}

/// Death of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Death {
    /// The power loss, if there is one; else the machine keeps all that was written.
    pub(super) loss: Option<PowerLoss>,
    /// It dies within this call on files, counted from here; else between two turns.
    pub(super) in_call: Option<u64>,
    /// The next process dies too, within this call on files of its start.
    pub(super) again_in_call: Option<u64>,
}

impl Death {
    /// `kill -9` between two turns.
    pub(super) const PLAIN: Self = Self {
        loss: None,
        in_call: None,
        again_in_call: None,
    };
}

/// Draws the steps that carry these inputs, for a job of this pace.
pub(super) fn draw<I>(chance: &mut Chance, inputs: Vec<I>, pace: Pace) -> Vec<Step<I>> {
    let mut steps = Vec::new();
    for input in inputs {
        steps.push(Step::Send(input));
        match chance.below(8) {
            0 => steps.push(Step::Work(1 + chance.index(ROUNDS_MAX))),
            1 => steps.push(Step::Wait(pace.draw_wait(chance))),
            2 => push_trouble(chance, pace, &mut steps),
            _ => {}
        }
    }
    // Each run has one at least.
    push_trouble(chance, pace, &mut steps);
    steps
}

fn push_trouble<I>(chance: &mut Chance, pace: Pace, steps: &mut Vec<Step<I>>) {
    if chance.one_in(2) {
        steps.push(Step::Wait(pace.draw_wait(chance)));
    }
    if chance.one_in(2) {
        steps.push(Step::Work(1 + chance.index(ROUNDS_MAX)));
    }
    let trouble = draw_trouble(chance, pace);
    steps.push(Step::Trouble(trouble));
    if let Trouble::Instance(Coming::StandStill(still), _) = trouble
        && let Some(session) = pace.session
        && still > session
        && chance.one_in(2)
    {
        // The others commit what it has in its transaction, and only then it goes on.
        steps.push(Step::Check);
        steps.push(Step::Wait(session * 3));
    }
    if chance.one_in(3) {
        steps.push(Step::Check);
    }
}

fn draw_up_to(chance: &mut Chance, longest: Duration) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(1 + chance.below(nanos))
}

fn draw_trouble(chance: &mut Chance, pace: Pace) -> Trouble {
    let interval = pace.interval;
    if let Some(session) = pace.session
        && chance.one_in(2)
    {
        let coming = draw_coming(chance, interval, session);
        return Trouble::Instance(coming, chance.index(INSTANCES_MAX));
    }
    match chance.below(14) {
        0..=5 => Trouble::Death(draw_death(chance)),
        6 => Trouble::Workers(1 + chance.index(WORKERS_MAX)),
        7 => Trouble::Stop,
        8 => Trouble::TakeOver(Duration::ZERO),
        9 => Trouble::TakeOver(draw_up_to(chance, interval * SUSPENDED_MAX * 2)),
        10 => Trouble::FullDisk(chance.below(ROOM_BYTES_MAX)),
        11 | 12 => Trouble::LostAnswers(chance.draw()),
        _ => Trouble::BadCall {
            call: *chance.pick(&Call::ALL),
            after: draw_calls(chance),
            effect: *chance.pick(&[
                FaultEffect::InputOutput,
                FaultEffect::StorageFull,
                FaultEffect::TooManyFiles,
                FaultEffect::Interrupted,
                FaultEffect::Short(1),
                FaultEffect::Stall(interval),
            ]),
        },
    }
}

fn draw_coming(chance: &mut Chance, interval: Duration, session: Duration) -> Coming {
    let longest = match chance.one_in(2) {
        true => interval * SUSPENDED_MAX,
        false => session * 2,
    };
    let still = draw_up_to(chance, longest);
    match chance.below(10) {
        0..=2 => Coming::Join,
        3 => Coming::Leave,
        4 | 5 => Coming::Kill,
        6 => Coming::Restart,
        7 => Coming::StandStill(still),
        8 => Coming::StandStill(session + draw_up_to(chance, session)),
        _ => Coming::Replace(still),
    }
}

fn draw_death(chance: &mut Chance) -> Death {
    let (seed, way) = (chance.draw(), chance.index(WAYS));
    let is_power_loss = chance.one_in(2);
    Death {
        loss: PowerLoss::every_mode(seed)
            .nth(way)
            .filter(|_| is_power_loss),
        in_call: chance.one_in(2).then(|| draw_calls(chance)),
        again_in_call: chance.one_in(4).then(|| draw_calls(chance)),
    }
}

fn draw_calls(chance: &mut Chance) -> u64 {
    let bound = 1 + chance.below(CALLS_MAX);
    chance.below(bound)
}

impl Trouble {
    /// Troubles that are easier to understand, the easiest first.
    pub(super) fn simpler(self) -> Vec<Self> {
        let mut simpler = vec![Self::Death(Death::PLAIN)];
        if matches!(self, Self::TakeOver(_)) {
            simpler.push(Self::TakeOver(Duration::ZERO));
        }
        if let Self::Instance(coming, _) = self {
            let simpler_ones = match coming {
                Coming::Replace(_) => vec![Coming::Kill, Coming::Replace(Duration::ZERO), coming],
                _ => vec![Coming::Kill, coming],
            };
            simpler.extend(simpler_ones.into_iter().map(|it| Self::Instance(it, 0)));
        }
        if let Self::Death(death) = self {
            simpler.extend(
                [
                    Death {
                        loss: None,
                        again_in_call: None,
                        ..death
                    },
                    Death {
                        in_call: None,
                        again_in_call: None,
                        ..death
                    },
                    Death {
                        again_in_call: None,
                        ..death
                    },
                    Death {
                        in_call: None,
                        ..death
                    },
                ]
                .map(Self::Death),
            );
        }
        let itself = simpler.iter().position(|trouble| *trouble == self);
        simpler.truncate(itself.unwrap_or(simpler.len()));
        simpler
    }

    /// The fault to order, if it is one.
    pub(super) fn fault(self) -> Option<Fault> {
        match self {
            Self::BadCall {
                call,
                after,
                effect,
            } => Some(Fault::new(effect).on(&[call]).after(after)),
            _ => None,
        }
    }
}

impl<I: Debug> Display for Step<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(input) => write!(f, "send {input:?}"),
            Self::Work(rounds) => write!(f, "let everybody have {rounds} turns"),
            Self::Wait(time) => write!(f, "wait {time:?}"),
            Self::Trouble(trouble) => Display::fmt(trouble, f),
            Self::Check => f.write_str("commit, and compare"),
        }
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Death(death) => Display::fmt(death, f),
            Self::Workers(count) => write!(f, "kill -9, restart with {count} workers"),
            Self::Stop => f.write_str("stop as asked, restart"),
            Self::TakeOver(suspended) => {
                f.write_str("start another process beside this one, which becomes a zombie")?;
                match suspended.is_zero() {
                    true => Ok(()),
                    false => write!(f, " and stands still for {suspended:?}"),
                }
            }
            Self::Instance(coming, which) => {
                write!(f, "instance {which}, or who stands for it, {coming}")
            }
            Self::LostAnswers(seed) => {
                write!(f, "work while requests and answers get lost, seed {seed}")
            }
            Self::FullDisk(bytes) => write!(f, "work with {bytes} bytes left on the disk"),
            Self::BadCall {
                call,
                after,
                effect,
            } => write!(f, "work with {effect:?} at {call:?} call {}", after + 1),
        }
    }
}

impl Display for Coming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join => f.write_str("starts beside the others"),
            Self::Leave => f.write_str("stops as asked"),
            Self::Kill => f.write_str("is killed"),
            Self::Restart => f.write_str("is killed and starts again"),
            Self::StandStill(time) => write!(f, "stands still for {time:?}"),
            Self::Replace(time) => write!(
                f,
                "is replaced by another process of its name, becomes a zombie and stands still for {time:?}"
            ),
        }
    }
}

impl Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.loss {
            None => f.write_str("kill -9")?,
            Some(loss) => write!(
                f,
                "power loss ({:?} of data, {:?} of names, seed {})",
                loss.data, loss.names, loss.seed
            )?,
        }
        if let Some(calls) = self.in_call {
            write!(f, " within file call {} of the next work", calls + 1)?;
        }
        f.write_str(", restart")?;
        match self.again_in_call {
            Some(calls) => write!(f, ", again within its file call {}, restart", calls + 1),
            None => Ok(()),
        }
    }
}
