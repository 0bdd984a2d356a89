//! q22: every bid with the first three directories of its page.

use super::Inputs;
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| {
            // In front of the first one are the scheme, nothing, and the host.
            let mut directories = bid.url.split('/').skip(3).map(str::to_owned);
            let mut next = || directories.next().unwrap_or_default();
            let (first, second, third) = (next(), next(), next());
            let channel = bid.channel.clone();
            Some((
                bid.auction,
                bid.bidder,
                bid.price,
                channel,
                first,
                second,
                third,
            ))
        })
        .sink(inputs.results());
}
