//! q1: every bid, its price in euros. The price has three decimals: it is given in thousandths.

use super::Inputs;
use crate::runtime::Job;

/// Thousandths of a euro that a dollar has.
pub(super) const EURO_THOUSANDTHS: u64 = 908;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| {
            let (price, extra) = (bid.price * EURO_THOUSANDTHS, bid.extra.clone());
            Some((bid.auction, bid.bidder, price, bid.date_time, extra))
        })
        .sink(inputs.results());
}
