//! q11: how many bids each bidder makes in a session, which ends when ten seconds have passed without any. Bids that are exactly ten seconds
//! apart are of one session, as in Flink and Kafka Streams.

use std::time::Duration;

use super::Inputs;
use crate::operators::SessionWindows;
use crate::runtime::{Job, Windowed};

const GAP: Duration = Duration::from_secs(10);

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .timed_bids(job, |bid| Some(bid.bidder))
        .key_by(|bidder| *bidder)
        .window(SessionWindows::gap(GAP))
        .count("bids")
        .entries(|at: &Windowed<u64>, bids| {
            // The SQL's end is the last bid and the gap; our window holds that time, too.
            (at.key, *bids, at.window.start.0, at.window.last().0)
        })
        .sink(inputs.results());
}
