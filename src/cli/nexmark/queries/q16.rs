//! q16: as q15, for each channel and day, with the last minute that had a bid. A changed row is written once a commit.

use super::Inputs;
use super::bands::{Counted, Counts, count_bands};
use super::calendar::{day, day_name, minute, minute_name};
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let bids = inputs.bids(job, |bid| {
        let counted = Counted {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            minute: minute(bid.date_time),
        };
        Some(((bid.channel.clone(), day(bid.date_time)), counted))
    });
    let by_channel = bids.key_by_ref(|(group, _)| group).map(|(_, bid)| *bid);
    count_bands(by_channel)
        .changes_per_commit()
        .entries(
            |(channel, day), it| -> ((String, String), String, Counts, Counts, Counts) {
                let group = (channel.clone(), day_name(*day));
                let minute = minute_name(it.minute);
                (group, minute, it.bids, it.bidders, it.auctions)
            },
        )
        .key_by_ref(|(group, ..)| group)
        .sink(inputs.results());
}
