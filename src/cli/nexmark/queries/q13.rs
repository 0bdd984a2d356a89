//! q13: every bid with the value that a table of 10,000 rows has for it. The table is complete before the first bid.

use super::{Inputs, SIDE_INPUT, SIDE_INPUT_ROWS};
use crate::runtime::{Job, keyed_topic};

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let side = keyed_topic::<u64, String>(SIDE_INPUT).codec(inputs.format);
    let side = job.broadcast(side.until_end());
    inputs
        .bids(job, |bid| {
            Some((bid.auction, bid.bidder, bid.price, bid.date_time))
        })
        .join_broadcast(
            &side,
            |(auction, ..)| auction % SIDE_INPUT_ROWS,
            |(auction, bidder, price, time), value| {
                (*auction, *bidder, *price, *time, value.clone())
            },
        )
        .sink(inputs.results());
}
