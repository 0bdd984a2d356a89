//! The distribution of events.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const EVENTS: u64 = 100_000;

fn generator() -> Generator {
    Generator::new(Pace::over_days(EVENTS, 100))
}

fn events() -> Vec<Event> {
    let generator = generator();
    (0..EVENTS).map(|number| generator.event(number)).collect()
}

fn bids() -> Vec<(u64, Bid)> {
    let bids = (0..).zip(events());
    bids.filter_map(|(number, event)| Some((number, event.bid()?.clone())))
        .collect()
}

/// The share of `of` among `all`, in percent.
#[allow(clippy::cast_precision_loss, reason = "a share has a few digits")]
fn percent(of: usize, all: usize) -> f64 {
    100.0 * of as f64 / all as f64
}

fn is_about(percent: f64, expected: f64) {
    assert!(
        (percent - expected).abs() < 1.0,
        "{percent} % instead of {expected} %"
    );
}

#[test]
fn an_event_is_a_function_of_its_number() {
    let (one, other) = (generator(), generator());
    for number in [0, 1, 4, 49, 50, 12_345] {
        assert_eq!(one.event(number), other.event(number));
    }
    assert_ne!(one.event(4), one.event(5));
}

#[test]
fn of_fifty_events_one_is_a_person_and_three_are_auctions() {
    let events = events();
    let people = events.iter().filter_map(Event::person);
    let auctions = events.iter().filter_map(Event::auction);
    // Ids follow each other, so that none is there twice and none is left out.
    assert!(people.map(|it| it.id).eq(1000..1000 + EVENTS / 50));
    assert!(auctions.map(|it| it.id).eq(1000..1000 + 3 * EVENTS / 50));
}

#[test]
fn half_of_the_bids_are_for_the_hot_auction_and_three_quarters_of_the_hot_bidder() {
    let bids = bids();
    let share = |is_hot: &dyn Fn(u64, &Bid) -> bool| {
        let hot = bids.iter().filter(|(number, bid)| is_hot(*number, bid));
        percent(hot.count(), bids.len())
    };
    is_about(
        share(&|n, bid| bid.auction - 1000 == hot(last_auction(n))),
        50.0,
    );
    is_about(
        share(&|n, bid| bid.bidder - 1000 == hot(last_person(n)) + 1),
        75.0,
    );
    is_about(
        share(&|_, bid| HOT_CHANNELS.contains(&bid.channel.as_str())),
        50.0,
    );
}

#[test]
fn some_bids_name_auctions_that_come_later() {
    let early = |(number, bid): &(u64, Bid)| bid.auction - 1000 > last_auction(*number);
    let bids = bids();
    let ahead = bids.iter().filter(|it| early(it));
    let furthest = ahead.map(|(number, bid)| bid.auction - 1000 - last_auction(*number));
    assert_eq!(furthest.max(), Some(LEAD));
}

#[test]
fn each_power_of_ten_is_as_likely_a_price_as_the_next() {
    let bids = bids();
    for exponent in 2..8u32 {
        let range = 10u64.pow(exponent)..10u64.pow(exponent + 1);
        let there = bids.iter().filter(|(_, bid)| range.contains(&bid.price));
        is_about(percent(there.count(), bids.len()), 100.0 / 6.0);
    }
}

#[test]
fn an_event_has_the_bytes_that_are_prescribed_on_average() {
    let bids = bids();
    let filling: usize = bids.iter().map(|(_, bid)| bid.extra.len()).sum();
    let mean = filling / bids.len();
    assert!((65..71).contains(&mean), "{mean}");
}

#[test]
fn times_are_out_of_order_within_groups_of_fifty_only() {
    let times: Vec<i64> = events().iter().map(Event::date_time).collect();
    assert!(!times.is_sorted());
    let groups: Vec<&[i64]> = times.chunks(50).collect();
    for pair in groups.windows(2) {
        assert!(pair[0].iter().max() < pair[1].iter().min());
        let (first, last) = (pair[0].iter().min(), pair[0].iter().max());
        assert_eq!(first.zip(last).map(|(first, last)| last - first), Some(490));
    }
    assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), times.len());
}

#[test]
fn every_hour_of_a_day_and_two_days_have_bids() {
    let mut bids_by_hour = BTreeMap::new();
    let mut days = BTreeSet::new();
    for (_, bid) in bids() {
        *bids_by_hour
            .entry(bid.date_time / 3_600_000 % 24)
            .or_insert(0) += 1;
        days.insert(bid.date_time / 86_400_000);
    }
    assert!((0..24).eq(bids_by_hour.into_keys()));
    assert_eq!(days.len(), 2);
}

#[test]
fn nine_of_ten_other_channels_say_their_id() {
    let bids = bids();
    let without = bids
        .iter()
        .filter(|(_, bid)| bid.channel.starts_with("channel-") && !bid.url.contains("channel_id="));
    is_about(percent(without.count(), bids.len()), 5.0);
}

#[test]
fn an_auction_ends_after_it_began_and_most_overlap() {
    let events = events();
    let auctions: Vec<&Auction> = events.iter().filter_map(Event::auction).collect();
    assert!(auctions.iter().all(|it| it.expires > it.date_time));
    let in_category = auctions.iter().filter(|it| it.category == 10);
    is_about(percent(in_category.count(), auctions.len()), 20.0);
}
