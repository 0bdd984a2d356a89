//! The winning bid of each auction so far: of the bids within the auction's time, the highest; of equal prices the earliest, then the
//! one of the bidder with the lowest id. A record comes with each change.
//!
//! Bids for an auction that has not come wait. Once it is there, only the score of its winning bid is kept.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::join::{Place, place, take_waiting};
use crate::codec::Datum;
use crate::runtime::{
    Flow, Key, KeyValueStore, Keyed, OrderedStore, Output, Record, TwoInputOperator, Upstream,
};

/// An auction, and when it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Running<A> {
    pub(super) begins: i64,
    pub(super) expires: i64,
    pub(super) auction: A,
}

/// A bid, and how good it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Offer<B> {
    pub(super) score: Score,
    pub(super) bid: B,
}

/// Rank of a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Score {
    pub(super) price: u64,
    pub(super) time: i64,
    pub(super) bidder: u64,
}

impl Score {
    /// Whether this bid wins against another one.
    fn wins(self, other: Self) -> bool {
        let key = |it: Self| (it.price, -it.time, std::cmp::Reverse(it.bidder));
        key(self) > key(other)
    }
}

struct Winning<A, B, F> {
    auctions: KeyValueStore<Running<A>>,
    waiting: OrderedStore<Place, Offer<B>>,
    best: KeyValueStore<Score>,
    row: F,
}

impl<A, B, Out, F> Winning<A, B, F>
where
    A: Clone + Send + 'static,
    F: Fn(&Running<A>, &Offer<B>) -> Out,
{
    /// Applies an offer: the row of an auction that it wins for now.
    fn improve(
        &mut self,
        key: Key<'_, u64>,
        auction: &Running<A>,
        offer: &Offer<B>,
    ) -> Result<Option<Out>, crate::runtime::Failure> {
        if !self.is_better(key, auction, offer)? {
            return Ok(None);
        }
        self.best.put(key, offer.score)?;
        Ok(Some((self.row)(auction, offer)))
    }

    fn is_better(
        &self,
        key: Key<'_, u64>,
        auction: &Running<A>,
        offer: &Offer<B>,
    ) -> Result<bool, crate::runtime::Failure> {
        if !(auction.begins..=auction.expires).contains(&offer.score.time) {
            return Ok(false);
        }
        let best = self.best.get(key)?;
        Ok(best.is_none_or(|best| offer.score.wins(best)))
    }
}

impl<A, B, Out, F> TwoInputOperator<u64, Running<A>, Offer<B>> for Winning<A, B, F>
where
    A: Clone + Send + Sync + Serialize + DeserializeOwned + 'static,
    B: Clone + Send + Sync + Serialize + DeserializeOwned + 'static,
    F: Fn(&Running<A>, &Offer<B>) -> Out,
{
    type OutKey = u64;
    type Out = Out;
    const KEEPS_KEY: bool = true;

    fn process_left(
        &mut self,
        record: Record<'_, u64, Running<A>>,
        out: &mut impl Output<u64, Out>,
    ) -> Flow {
        for offer in take_waiting(&mut self.waiting, &record)? {
            if let Some(row) = self.improve(record.key, record.value, &offer)? {
                out.push(record.with_value(&row))?;
            }
        }
        self.auctions.put(record.key, record.value.clone())
    }

    fn process_right(
        &mut self,
        record: Record<'_, u64, Offer<B>>,
        out: &mut impl Output<u64, Out>,
    ) -> Flow {
        let (key, offer) = (record.key, record.value);
        let best = self.best.get(key)?;
        if best.is_some_and(|best| !offer.score.wins(best)) {
            return Ok(());
        }
        let (mut is_known, mut row) = (false, None);
        self.auctions.look(key, |auction| {
            let runs = |it: &&Running<A>| (it.begins..=it.expires).contains(&offer.score.time);
            is_known = auction.is_some();
            row = auction.filter(runs).map(|it| (self.row)(it, offer));
        })?;
        if let Some(row) = row {
            self.best.put(key, offer.score)?;
            return out.push(record.with_value(&row));
        }
        match is_known {
            true => Ok(()),
            false => self.waiting.put(key, &place(&record), offer.clone()),
        }
    }
}

/// The rows that `row` makes of each auction and its winning bid so far.
pub(super) fn winning<A, B, Out, U, W, F>(
    auctions: Keyed<u64, Running<A>, U>,
    offers: Keyed<u64, Offer<B>, W>,
    row: F,
) -> Keyed<u64, Out, impl Upstream<u64, Out> + use<A, B, Out, U, W, F>>
where
    A: Clone + Send + Sync + Serialize + DeserializeOwned + 'static,
    B: Clone + Send + Sync + Serialize + DeserializeOwned + 'static,
    Running<A>: Datum,
    Offer<B>: Datum,
    Out: 'static,
    U: Upstream<u64, Running<A>>,
    W: Upstream<u64, Offer<B>>,
    F: Fn(&Running<A>, &Offer<B>) -> Out + Clone + Send + Sync + 'static,
{
    auctions
        .connect(offers)
        .with_store::<Running<A>>("auctions")
        .with_ordered_store::<Place, Offer<B>>("early-bids")
        .with_store::<Score>("best")
        .process("winning", move |context| {
            Ok(Winning {
                auctions: context.store("auctions")?,
                waiting: context.ordered_store("early-bids")?,
                best: context.store("best")?,
                row: row.clone(),
            })
        })
}
