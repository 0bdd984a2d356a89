//! q15: of each day how many bids there are, of how many bidders, for how many auctions: in all, and in three bands of prices. A changed row is
//! written once a commit.

use super::Inputs;
use super::bands::{Counted, Counts, count_bands};
use super::calendar::{day, day_name, minute};
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let bids = inputs.bids(job, |bid| {
        let counted = Counted {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            minute: minute(bid.date_time),
        };
        Some((day(bid.date_time), counted))
    });
    let by_day = bids.key_by(|(day, _)| *day).map(|(_, bid)| *bid);
    count_bands(by_day)
        .changes_per_commit()
        .entries(|day, it| -> (String, Counts, Counts, Counts) {
            (day_name(*day), it.bids, it.bidders, it.auctions)
        })
        .key_by_ref(|(day, ..)| day)
        .sink(inputs.results());
}
