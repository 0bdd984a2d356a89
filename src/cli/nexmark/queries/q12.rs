//! q12: how many bids of each bidder are processed in ten seconds by the clock on the wall. Which window a bid falls into depends on the run;
//! the counts of a bidder add up to the number of bids.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::Inputs;
use crate::runtime::{FixedWindows, Job, Watermarks, Windowed};

const WINDOW: Duration = Duration::from_secs(10);

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let clock = Arc::clone(&inputs.clock);
    // The clock may jump back; no bid is late for that.
    let latest = Arc::new(AtomicI64::new(i64::MIN));
    let now = move |_: &u64| {
        let wall = clock.wall().0;
        latest.fetch_max(wall, Ordering::Relaxed).max(wall)
    };
    inputs
        .bids(job, |bid| Some(bid.bidder))
        .event_time(now, Watermarks::out_of_order(WINDOW))
        .key_by(|bidder| *bidder)
        .window(FixedWindows::tumbling(WINDOW))
        .count("bids")
        .entries(|at: &Windowed<u64>, bids| (at.key, *bids, at.window.start.0, at.window.end.0))
        .sink(inputs.results());
}
