//! q4: the average price of each category, over the winning bids of its auctions so far. A changed row is written once a commit.

use super::winning::{Offer, Running, Score, winning};
use super::{Inputs, in_auctions, in_bids};
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let (auctions, bids) = inputs.events(job).tee();
    let auctions = auctions.filter_map(in_auctions(|it| {
        let running = Running {
            begins: it.date_time,
            expires: it.expires,
            auction: it.category,
        };
        Some((it.id, running))
    }));
    let auctions = auctions.key_by(|(id, _)| *id).map(|(_, it)| it.clone());
    let offers = bids.filter_map(in_bids(|it| {
        let score = Score {
            price: it.price,
            time: it.date_time,
            bidder: it.bidder,
        };
        Some((it.auction, Offer { score, bid: () }))
    }));
    let offers = offers.key_by(|(id, _)| *id).map(|(_, it)| it.clone());
    winning(auctions, offers, |auction, offer| {
        Some((auction.auction, offer.score.price))
    })
    .to_table("finals")
    .group_by(|_, &(category, price)| (category, (category, price)))
    .aggregate(
        "averages",
        || (0u64, 0u64, 0u64),
        |(of, sum, count), (category, price)| {
            *of = *category;
            *sum += price;
            *count += 1;
        },
        |(_, sum, count), (_, price)| {
            *sum -= price;
            *count -= 1;
        },
    )
    .map_values(|(category, sum, count)| (*category, sum / (*count).max(1)))
    .changes_per_commit()
    .sink(inputs.results::<(u64, u64)>().as_option());
}
