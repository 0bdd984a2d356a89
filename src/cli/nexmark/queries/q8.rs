//! q8: who registered and began an auction within the same ten seconds.

use std::time::Duration;

use super::{Inputs, in_auctions, in_people};
use crate::runtime::{FixedWindows, Job, Windowed};

const WINDOW: Duration = Duration::from_secs(10);

/// The name of who registered in a window, and whether they sell.
type Newcomer = (Option<String>, bool);

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let (people, auctions) = inputs.timed_events(job).tee();
    let people = people.filter_map(in_people(|it| Some((it.id, it.name.clone()))));
    let sellers = auctions.filter_map(in_auctions(|it| Some(it.seller)));
    people
        .key_by(|(id, _)| *id)
        .cogroup(|it: &mut Newcomer, (_, name): &(u64, String)| it.0 = Some(name.clone()))
        .and("sellers", sellers.key_by(|seller| *seller), |it, _| {
            it.1 = true;
        })
        .window_aggregate(
            "newcomers",
            FixedWindows::tumbling(WINDOW),
            Newcomer::default,
            |it, other| {
                it.0 = it.0.take().or_else(|| other.0.clone());
                it.1 |= other.1;
            },
        )
        .filter_map(|(name, sells)| name.clone().filter(|_| *sells))
        .entries(|at: &Windowed<u64>, name| (at.key, name.clone(), at.window.start.0))
        .sink(inputs.results());
}
