//! q2: the bids for each 123rd auction.

use super::Inputs;
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| {
            let is_chosen = bid.auction.is_multiple_of(123);
            is_chosen.then_some((bid.auction, bid.price))
        })
        .sink(inputs.results());
}
