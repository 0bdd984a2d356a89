//! q14: the bids of a range of prices in euros, with the time of day and how often the letter c occurs. Hours 7 and 19 are neither day nor
//! night. The price is in thousandths.

use super::Inputs;
use super::calendar::hour;
use super::q1::EURO_THOUSANDTHS;
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| {
            let price = bid.price * EURO_THOUSANDTHS;
            if !(1_000_000_001..50_000_000_000).contains(&price) {
                return None;
            }
            let kind = match hour(bid.date_time) {
                8..=18 => "dayTime",
                0..=6 | 20..=23 => "nightTime",
                _ => "otherTime",
            };
            let letters = bid.extra.bytes().filter(|it| *it == b'c').count() as u64;
            let (kind, extra) = (kind.to_owned(), bid.extra.clone());
            Some((
                bid.auction,
                bid.bidder,
                price,
                kind,
                bid.date_time,
                extra,
                letters,
            ))
        })
        .sink(inputs.results());
}
