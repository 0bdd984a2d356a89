//! q17: of each auction and day how many bids there are, in all and in three bands of prices, and the least, greatest, average and sum of
//! their prices. A row is written with each change.

use serde::{Deserialize, Serialize};

use super::Inputs;
use super::bands::{Counts, add, bands};
use super::calendar::{day, day_name};
use crate::runtime::Job;

/// The bids of an auction on a day.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Day {
    auction: u64,
    day: i64,
    bids: Counts,
    min: u64,
    max: u64,
    sum: u64,
}

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| {
            Some((bid.auction, day(bid.date_time), bid.price))
        })
        .key_by(|(auction, day, _)| (*auction, *day))
        .aggregate(
            "days",
            || Day {
                auction: 0,
                day: 0,
                bids: Counts::default(),
                min: u64::MAX,
                max: 0,
                sum: 0,
            },
            |it, (auction, day, price)| {
                (it.auction, it.day) = (*auction, *day);
                add(&mut it.bids, bands(*price));
                it.min = it.min.min(*price);
                it.max = it.max.max(*price);
                it.sum += price;
            },
        )
        .changes()
        .map(|it| {
            let average = it.sum / it.bids[0].max(1);
            let day = day_name(it.day);
            (it.auction, day, it.bids, it.min, it.max, average, it.sum)
        })
        .sink(inputs.results());
}
