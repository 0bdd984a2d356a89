//! q18: the last bid of each bidder for each auction; of bids of one time the highest. A row is written with each change.

use super::super::events::Bid;
use super::Inputs;
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| Some(bid.clone()))
        .key_by(|bid| (bid.bidder, bid.auction))
        .stateful("last", |last: &mut Option<(i64, u64)>, bid, results| {
            let time = (bid.date_time, bid.price);
            if last.is_none_or(|last| time > last) {
                *last = Some(time);
                results.push(row(bid));
            }
        })
        .sink(inputs.results());
}

/// A bid, as the SQL gives it.
type Row = (u64, u64, u64, String, String, i64, String);

fn row(bid: &Bid) -> Row {
    let (channel, url, extra) = (bid.channel.clone(), bid.url.clone(), bid.extra.clone());
    (
        bid.auction,
        bid.bidder,
        bid.price,
        channel,
        url,
        bid.date_time,
        extra,
    )
}
