//! q0: every bid, as it is.

use super::Inputs;
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| {
            let extra = bid.extra.clone();
            Some((bid.auction, bid.bidder, bid.price, bid.date_time, extra))
        })
        .sink(inputs.results());
}
