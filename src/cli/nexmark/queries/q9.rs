//! q9: each auction with its winning bid so far. A row is written with each change.

use super::super::events::{Auction, Bid};
use super::winning::{Offer, Running, Score, winning};
use super::{Inputs, in_auctions, in_bids};
use crate::runtime::Job;

/// An auction, and bidder, price, time and filling of its bid.
type Won = (Auction, u64, u64, i64, String);

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let (auctions, bids) = inputs.events(job).tee();
    let auctions = auctions.filter_map(in_auctions(|it| {
        Some(Running {
            begins: it.date_time,
            expires: it.expires,
            auction: it.clone(),
        })
    }));
    let offers = bids.filter_map(in_bids(|it| Some((it.auction, offer(it)))));
    winning(
        auctions.key_by(|it| it.auction.id),
        offers.key_by(|(id, _)| *id).map(|(_, it)| it.clone()),
        |auction, offer| -> Won {
            let Score {
                price,
                time,
                bidder,
            } = offer.score;
            (
                auction.auction.clone(),
                bidder,
                price,
                time,
                offer.bid.clone(),
            )
        },
    )
    .sink(inputs.results());
}

fn offer(bid: &Bid) -> Offer<String> {
    Offer {
        score: Score {
            price: bid.price,
            time: bid.date_time,
            bidder: bid.bidder,
        },
        bid: bid.extra.clone(),
    }
}
