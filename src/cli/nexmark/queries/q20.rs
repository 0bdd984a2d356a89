//! q20: every bid with its auction, for auctions of category 10. Both are kept for ever in the SQL; here only bids for auctions that have not
//! come.

use super::super::events::{Auction, Bid};
use super::{Inputs, in_auctions, in_bids, join};
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let (auctions, bids) = inputs.events(job).tee();
    // An auction of another category is known, too, so that bids do not wait for it.
    let auctions = auctions.filter_map(in_auctions(|it| {
        Some((it.id, (it.category == 10).then(|| it.clone())))
    }));
    let bids = bids.filter_map(in_bids(|it| Some(it.clone())));
    join::one_to_many(
        "auctions",
        auctions.key_by(|(id, _)| *id).map(|(_, it)| it.clone()),
        bids.key_by(|bid| bid.auction),
        |auction: &Option<Auction>, bid: &Bid| {
            let auction = auction.as_ref()?;
            Some((bid.clone(), auction.clone()))
        },
    )
    .sink(inputs.results());
}
