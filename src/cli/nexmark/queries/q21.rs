//! q21: every bid whose channel has an id: one of four hot channels, or one that says it in the page.

use super::super::events::Bid;
use super::Inputs;
use crate::runtime::Job;

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| {
            let id = channel_id(bid)?;
            Some((bid.auction, bid.bidder, bid.price, bid.channel.clone(), id))
        })
        .sink(inputs.results());
}

/// The id of a bid's channel. The SQL's pattern for pages is `(&|^)channel_id=([^&]*)`.
fn channel_id(bid: &Bid) -> Option<String> {
    let hot = ["apple", "google", "facebook", "baidu"];
    if let Some(id) = hot
        .iter()
        .position(|it| bid.channel.eq_ignore_ascii_case(it))
    {
        return Some(id.to_string());
    }
    let id = bid
        .url
        .split('&')
        .find_map(|part| part.strip_prefix("channel_id="));
    id.map(str::to_owned)
}
