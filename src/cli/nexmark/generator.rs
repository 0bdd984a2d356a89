//! The generator: each event is a function of its number alone, with the distribution that Nexmark prescribes.
//!
//! Of 50 events one is a person, three are auctions and 46 are bids. Half of all bids go to one hot auction of each hundred, three
//! quarters come from one hot bidder of each hundred, and three quarters of all auctions are of one hot seller. Bids and auctions may name
//! auctions and people that come up to ten ids later. Prices are 10^(6u) · 100 cents.
//!
//! Event time runs at a rate, in groups whose events are out of order, and stands still for a pause now and then: with the default
//! rate alone all events would fall into one hour, and the queries that tell hours and days apart would have one group.

use super::events::{Auction, Bid, Event, Person};
use super::random::Random;

const PERSON_SHARE: u64 = 1;
const AUCTION_SHARE: u64 = 3;
/// Events in a round of one person, three auctions and 46 bids.
pub const ROUND: u64 = 50;
const FIRST_ID: u64 = 1000;
/// Ids that are named before they come.
const LEAD: u64 = 10;
const ACTIVE_PEOPLE: u64 = 1000;
const AUCTIONS_IN_FLIGHT: u64 = 100;
/// One auction, seller and bidder of so many is hot.
const HOT_EVERY: u64 = 100;
const HOT_AUCTION_RATIO: u64 = 2;
const HOT_SELLER_RATIO: u64 = 4;
const HOT_BIDDER_RATIO: u64 = 4;
const HOT_CHANNEL_RATIO: u64 = 2;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES_COUNT: u64 = 5;
const CHANNELS_COUNT: u32 = 10_000;
const PERSON_BYTES: u64 = 200;
const AUCTION_BYTES: u64 = 500;
const BID_BYTES: u64 = 100;
/// A step that is prime to the length of a group: so the events of a group are shuffled.
const STRIDE: u64 = 953;

const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] = [
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];

/// Pace of event time from event to event.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The time of the first event, in milliseconds since 1970.
    pub base_time: i64,
    /// Events in a second of event time.
    pub events_per_second: u64,
    /// Events between two pauses.
    pub pause_every: u64,
    /// Length of a pause, in milliseconds.
    pub pause_millis: i64,
    /// Events out of order among each other: 1 for none.
    pub group: u64,
}

impl Pace {
    /// The pace at which `events` events cover 40 hours: 40 stretches, 59 minutes apart, so that each hour of a day has one and two
    /// days are touched. The first event is at 2015-07-15 00:00 UTC.
    #[must_use]
    pub fn over_days(events: u64, events_per_second: u64) -> Self {
        let stretch = (events / 40).max(ROUND);
        Self {
            base_time: 1_436_918_400_000,
            events_per_second,
            pause_every: stretch - stretch % ROUND,
            pause_millis: 59 * 60_000,
            group: ROUND,
        }
    }

    /// The time of an event, were all in order.
    fn time(&self, number: u64) -> i64 {
        let running = number * 1000 / self.events_per_second;
        let pauses = (number / self.pause_every).cast_signed();
        self.base_time + running.cast_signed() + pauses * self.pause_millis
    }

    /// The number of the event whose time this one has: another one of its group.
    fn shuffled(&self, number: u64) -> u64 {
        let first = number - number % self.group;
        first + number * STRIDE % self.group
    }
}

/// Makes events from their numbers.
#[derive(Debug)]
pub struct Generator {
    pace: Pace,
    /// Names and pages of the channels that are not hot.
    channels: Vec<(String, String)>,
    hot_pages: [String; 4],
}

impl Generator {
    /// A generator whose events have the times of `pace`.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            channels: (0..CHANNELS_COUNT).map(channel).collect(),
            hot_pages: std::array::from_fn(|i| page(&mut Random::of(u64::MAX - i as u64))),
        }
    }

    /// The event of this number.
    #[must_use]
    pub fn event(&self, number: u64) -> Event {
        let random = &mut Random::of(number);
        let from = self.pace.shuffled(number);
        let date_time = self.pace.time(from);
        match number % ROUND {
            share if share < PERSON_SHARE => Event::Person(person(number, date_time, random)),
            share if share < PERSON_SHARE + AUCTION_SHARE => {
                let in_flight = AUCTIONS_IN_FLIGHT * ROUND / AUCTION_SHARE;
                let horizon = self.pace.time(from + in_flight) - date_time;
                Event::Auction(auction(number, date_time, horizon, random))
            }
            _ => Event::Bid(self.bid(number, date_time, random)),
        }
    }

    fn bid(&self, number: u64, date_time: i64, random: &mut Random) -> Bid {
        let auction = match random.below(HOT_AUCTION_RATIO) {
            0 => any_auction(number, random),
            _ => hot(last_auction(number)),
        };
        let bidder = match random.below(HOT_BIDDER_RATIO) {
            0 => any_person(number, random),
            // Another one than the hot seller.
            _ => hot(last_person(number)) + 1,
        };
        let price = random.price();
        let (channel, url) = match random.below(HOT_CHANNEL_RATIO) {
            0 => random.choose(&self.channels).clone(),
            _ => {
                let all: [(&str, &String); 4] =
                    std::array::from_fn(|i| (HOT_CHANNELS[i], &self.hot_pages[i]));
                let (name, page) = random.choose(&all);
                ((*name).to_owned(), (*page).clone())
            }
        };
        Bid {
            auction: FIRST_ID + auction,
            bidder: FIRST_ID + bidder,
            price,
            channel,
            url,
            date_time,
            extra: random.filling(32, BID_BYTES),
        }
    }
}

fn person(number: u64, date_time: i64, random: &mut Random) -> Person {
    let name = format!(
        "{} {}",
        random.choose(&FIRST_NAMES),
        random.choose(&LAST_NAMES)
    );
    let email_address = format!("{}@{}.com", random.text(7), random.text(5));
    let digits: [u64; 4] = std::array::from_fn(|_| random.below(10_000));
    let credit_card = digits.map(|group| format!("{group:04}")).join(" ");
    let city = (*random.choose(&CITIES)).to_owned();
    let state = (*random.choose(&STATES)).to_owned();
    let bytes = 8 + name.len() + email_address.len() + credit_card.len() + city.len() + state.len();
    Person {
        id: FIRST_ID + last_person(number),
        name,
        email_address,
        credit_card,
        city,
        state,
        date_time,
        extra: random.filling(bytes as u64, PERSON_BYTES),
    }
}

fn auction(number: u64, date_time: i64, horizon: i64, random: &mut Random) -> Auction {
    let (item_name, description) = (random.text(20), random.text(100));
    let initial_bid = random.price();
    let reserve = initial_bid + random.price();
    let lasts = 1 + random.below((horizon * 2).max(1).cast_unsigned());
    let seller = match random.below(HOT_SELLER_RATIO) {
        0 => any_person(number, random),
        _ => hot(last_person(number)),
    };
    let category = FIRST_CATEGORY + random.below(CATEGORIES_COUNT);
    let bytes = 48 + item_name.len() + description.len();
    Auction {
        id: FIRST_ID + last_auction(number),
        item_name,
        description,
        initial_bid,
        reserve,
        date_time,
        expires: date_time + lasts.cast_signed(),
        seller: FIRST_ID + seller,
        category,
        extra: random.filling(bytes as u64, AUCTION_BYTES),
    }
}

/// The hot one of the hundred that an id is of.
fn hot(id: u64) -> u64 {
    id - id % HOT_EVERY
}

/// The person who came last, at this event or before, counted from 0.
fn last_person(number: u64) -> u64 {
    number / ROUND
}

/// The auction that came last, at this event or before, counted from 0.
fn last_auction(number: u64) -> u64 {
    let (round, share) = (number / ROUND, number % ROUND);
    let in_round = (share + 1).saturating_sub(PERSON_SHARE).min(AUCTION_SHARE);
    (round * AUCTION_SHARE + in_round).saturating_sub(1)
}

/// Somebody who is active, or comes soon.
fn any_person(number: u64, random: &mut Random) -> u64 {
    let people = last_person(number) + 1;
    let active = people.min(ACTIVE_PEOPLE);
    people - active + random.below(active + LEAD)
}

/// An auction that is under way, or comes soon.
fn any_auction(number: u64, random: &mut Random) -> u64 {
    let last = last_auction(number);
    let first = last.saturating_sub(AUCTIONS_IN_FLIGHT);
    first + random.below(last - first + 1 + LEAD)
}

/// A channel that is not hot: nine of ten say their id in the page.
fn channel(number: u32) -> (String, String) {
    let random = &mut Random::of(u64::from(number) << 32);
    let mut page = page(random);
    if random.below(10) > 0 {
        let id = number.reverse_bits().cast_signed().unsigned_abs();
        page.push_str(&format!("&channel_id={id}"));
    }
    (format!("channel-{number}"), page)
}

fn page(random: &mut Random) -> String {
    let mut directory = || random.text_with(5, '_');
    let (first, second, third) = (directory(), directory(), directory());
    format!("https://www.nexmark.com/{first}/{second}/{third}/item.htm?query=1")
}

#[cfg(test)]
mod tests;
