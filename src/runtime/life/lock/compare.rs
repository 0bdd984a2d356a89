//! The differences between a lock file and a program, each with what it does to a job that runs.

use std::fmt::{self, Write as _};

use super::{Lock, LockedTypes, LookedAt};
use crate::codec::{Misread, Schema};
use crate::state::StateError;

/// The effect of a difference on the state of a job that has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    /// State would be lost or misread: the job would not start.
    Refused,
    /// State is given up, as the program says.
    GivesUp,
    /// Values are converted when they are read.
    Migrates,
    /// State is kept under its first name.
    Renamed,
    /// Nothing that was stored is concerned.
    Safe,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::GivesUp => "gives up state",
            Self::Migrates => "migrates",
            Self::Renamed => "renamed",
            Self::Safe => "safe",
        })
    }
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) effect: Effect,
    what: String,
}

impl Change {
    fn new(effect: Effect, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { effect, what }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.effect, self.what)
    }
}

/// All differences, the gravest first.
pub(super) fn changes(before: &Lock, now: &LookedAt) -> Vec<Change> {
    let mut changes = Vec::new();
    whole_job(before, &now.lock, &mut changes);
    stores(before, now, &mut changes);
    shuffles(before, now, &mut changes);
    names(before, &now.lock, &mut changes);
    changes.sort_by_key(|change| change.effect);
    changes
}

/// The differences as lines, and what to do.
pub(super) fn in_words(changes: &[Change]) -> String {
    let mut words = "the job differs from it:".to_owned();
    for change in changes {
        let _ = write!(words, "\n  {change}");
    }
    let is_refused = changes.iter().any(|it| it.effect == Effect::Refused);
    words.push_str(match is_refused {
        true => "\nMend what is refused. A job that never ran anywhere may begin anew: remove the file and write it again.",
        false => "\nIf all of that is meant, write the file again (ONCEFLOW_LOCK=write, or `onceflow check --write`) and commit it.",
    });
    words
}

fn whole_job(before: &Lock, now: &Lock, changes: &mut Vec<Change>) {
    if before.job != now.job {
        let what = format!(
            "the job {:?} is called {:?} now: under another name it begins with no state and no positions; give it the old one",
            before.job, now.job
        );
        changes.push(Change::new(Effect::Refused, what));
    }
    match (before.state_partitions, now.state_partitions) {
        (Some(was), Some(is)) if was != is => {
            let what = format!(
                "the state is cut into {was} partitions, and the program asks for {is}: keep {was}, or restore a savepoint into the other \
                 number where the job has not run yet"
            );
            changes.push(Change::new(Effect::Refused, what));
        }
        (was, is) if was != is => {
            let what = "the program says another thing about the number of state partitions: a job that has run keeps its own";
            changes.push(Change::new(Effect::Safe, what));
        }
        _ => {}
    }
}

fn stores(before: &Lock, now: &LookedAt, changes: &mut Vec<Change>) {
    for (name, was) in &before.stores {
        let change = match now.lock.stores.get(name) {
            Some(is) if is == was => continue,
            Some(is) => retyped(name, was, is, now),
            None => missing_store(before, name, was, now),
        };
        changes.push(change);
    }
    for name in now.lock.stores.keys() {
        if !before.stores.contains_key(name) {
            let what = format!("the store {name:?} is new, and begins empty");
            changes.push(Change::new(Effect::Safe, what));
        }
    }
}

fn missing_store(before: &Lock, name: &str, was: &LockedTypes, now: &LookedAt) -> Change {
    if now.forgotten.iter().any(|it| it == name) {
        let what = format!("the store {name:?} is given up, as `forget({name:?})` says");
        return Change::new(Effect::GivesUp, what);
    }
    let mut same = now.lock.stores.iter();
    let same = same.find(|(name, is)| !before.stores.contains_key(*name) && *is == was);
    let what = match same {
        Some((new, _)) => format!(
            "the store {name:?} is gone, and {new:?} of the same types is new: if its step was renamed, put `.was({name:?})` behind it; if \
             not, give up the state with `forget({name:?})` where the job is launched"
        ),
        None => format!(
            "the store {name:?} is gone, and with it all that it holds: bring its step back; or, if it was renamed, put `.was({name:?})` \
             behind it; or give up the state with `forget({name:?})` where the job is launched"
        ),
    };
    Change::new(Effect::Refused, what)
}

fn retyped(name: &str, was: &LockedTypes, is: &LockedTypes, now: &LookedAt) -> Change {
    let (before, after) = (was.schema(), is.schema());
    if before.codec != after.codec {
        let error = StateError::CodecChanged {
            store: name.to_owned(),
            stored: before.codec,
            asked: after.codec,
        };
        return Change::new(Effect::Refused, error.to_string());
    }
    match before.misread(&after) {
        None => migrated(name, &before, &after),
        Some(Misread::Type(_)) if now.accepted.iter().any(|it| it == name) => {
            let what = format!(
                "the types of the store {name:?} are accepted, as `accept_type_change({name:?})` says"
            );
            Change::new(Effect::Safe, what)
        }
        Some(why) => Change::new(Effect::Refused, StateError::misread(name, why).to_string()),
    }
}

fn migrated(name: &str, before: &Schema, after: &Schema) -> Change {
    let (was, is) = (before.value_version, after.value_version);
    if was == is {
        let what = format!("the store {name:?} reads other earlier versions of its values");
        return Change::new(Effect::Safe, what);
    }
    let what = format!(
        "values of the store {name:?} go from version {was} to {is}: they are converted when they are read; once the job has run, an \
         earlier build cannot read them, so take a savepoint first"
    );
    Change::new(Effect::Migrates, what)
}

fn shuffles(before: &Lock, now: &LookedAt, changes: &mut Vec<Change>) {
    for (name, was) in &before.shuffles {
        let what = match now.lock.shuffles.get(name) {
            Some(is) if is == was => continue,
            Some(_) => "goes with other types",
            None => "is gone",
        };
        let what = format!(
            "the shuffle to {name:?} {what}: this matters only where several processes share the job (`scale_out`); let them read to the end \
             first"
        );
        changes.push(Change::new(Effect::Safe, what));
    }
}

fn names(before: &Lock, now: &Lock, changes: &mut Vec<Change>) {
    for (name, first) in &now.renamed {
        if before.renamed.get(name) != Some(first) {
            let what = format!("the step {first:?} is called {name:?} now, and keeps its state");
            changes.push(Change::new(Effect::Renamed, what));
        }
    }
    for (name, was) in &before.steps {
        match now.steps.get(name) {
            Some(is) if is == was => {}
            Some(is) => changes.push(Change::new(
                Effect::Safe,
                format!("the step {name:?} is now a {is}, not a {was}"),
            )),
            None if before.stores.contains_key(name) => {}
            None => changes.push(Change::new(
                Effect::Safe,
                format!("the step {name:?} is gone"),
            )),
        }
    }
    for name in now.steps.keys() {
        if !before.steps.contains_key(name) && !now.stores.contains_key(name) {
            changes.push(Change::new(
                Effect::Safe,
                format!("the step {name:?} is new"),
            ));
        }
    }
    for name in before.sources.difference(&now.sources) {
        let what = format!(
            "the source {name:?} is not read any more; should it come back, it is read on from where it was"
        );
        changes.push(Change::new(Effect::Safe, what));
    }
    for name in now.sources.difference(&before.sources) {
        let what = format!(
            "the source {name:?} is new, and is read from its beginning: if it is an old one under another name, give it the old name"
        );
        changes.push(Change::new(Effect::Safe, what));
    }
    for name in before.sinks.symmetric_difference(&now.sinks) {
        let what = match now.sinks.contains(name) {
            true => "is new",
            false => "is not written any more; its records stay",
        };
        changes.push(Change::new(
            Effect::Safe,
            format!("the sink {name:?} {what}"),
        ));
    }
}
