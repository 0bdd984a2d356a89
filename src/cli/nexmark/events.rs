//! The events of an auction site: new people, new auctions, bids; and the two forms in which topics have them.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{Bincode, Codec, CodecError, CodecId, Json};

/// A person who sells or bids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Unique among people.
    pub id: u64,
    /// First and last name.
    pub name: String,
    /// An address for mail.
    pub email_address: String,
    /// Sixteen digits in four groups.
    pub credit_card: String,
    /// A city of the United States.
    pub city: String,
    /// A state of the United States, two letters.
    pub state: String,
    /// The event time, in milliseconds since 1970.
    pub date_time: i64,
    /// Filling.
    pub extra: String,
}

/// An item that is for sale until its auction ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auction {
    /// Unique among auctions.
    pub id: u64,
    /// The name of the item.
    pub item_name: String,
    /// More about the item.
    pub description: String,
    /// The first price.
    pub initial_bid: u64,
    /// The price from which the seller sells.
    pub reserve: u64,
    /// The event time, in milliseconds since 1970.
    pub date_time: i64,
    /// The last time at which bids count.
    pub expires: i64,
    /// The id of a person.
    pub seller: u64,
    /// One of five, from 10 on.
    pub category: u64,
    /// Filling.
    pub extra: String,
}

/// An offer for an auction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// The id of the auction, which may come later than the bid.
    pub auction: u64,
    /// The id of a person.
    pub bidder: u64,
    /// The price, in cents.
    pub price: u64,
    /// The channel by which it came.
    pub channel: String,
    /// The page on which it was made.
    pub url: String,
    /// The event time, in milliseconds since 1970.
    pub date_time: i64,
    /// Filling.
    pub extra: String,
}

/// One event of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Somebody registered.
    Person(Person),
    /// An auction began.
    Auction(Auction),
    /// Somebody made an offer.
    Bid(Bid),
}

impl Event {
    /// The event time, in milliseconds since 1970.
    #[must_use]
    pub fn date_time(&self) -> i64 {
        match self {
            Self::Person(person) => person.date_time,
            Self::Auction(auction) => auction.date_time,
            Self::Bid(bid) => bid.date_time,
        }
    }

    /// The person, if it is one.
    #[must_use]
    pub fn person(&self) -> Option<&Person> {
        match self {
            Self::Person(person) => Some(person),
            _ => None,
        }
    }

    /// The auction, if it is one.
    #[must_use]
    pub fn auction(&self) -> Option<&Auction> {
        match self {
            Self::Auction(auction) => Some(auction),
            _ => None,
        }
    }

    /// The bid, if it is one.
    #[must_use]
    pub fn bid(&self) -> Option<&Bid> {
        match self {
            Self::Bid(bid) => Some(bid),
            _ => None,
        }
    }
}

/// The form of events and rows in topics: compact, or as other systems read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// The crate's default codec.
    #[default]
    Native,
    /// JSON; a row is an array of its columns.
    Json,
}

impl<T: Serialize + DeserializeOwned + Clone> Codec<T> for Format {
    fn id(&self) -> CodecId {
        match self {
            Self::Native => Codec::<T>::id(&Bincode),
            Self::Json => Codec::<T>::id(&Json),
        }
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Self::Native => Bincode.encode(value, out),
            Self::Json => Json.encode(value, out),
        }
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        match self {
            Self::Native => Bincode.decode(bytes),
            Self::Json => Json.decode(bytes),
        }
    }
}
