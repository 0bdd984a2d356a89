//! q19: the ten highest bids of each auction, with their ranks; of equal prices the earlier one first, then the one of the bidder with the
//! lower id. A rank is written each time that another bid has it.

use std::ops::ControlFlow;

use super::super::events::Bid;
use super::Inputs;
use crate::runtime::{
    Failure, Flow, Job, Key, KeyValueStore, Operator, OrderedStore, Output, Record,
};

const RANKS_COUNT: u64 = 10;

/// Where a bid comes in the order, the highest first.
type Place = (i64, i64, u64);

fn place(bid: &Bid) -> Place {
    (-bid.price.cast_signed(), bid.date_time, bid.bidder)
}

/// Number of bids among an auction's highest, and the last of them.
type Bottom = (u64, Place);

struct TopTen {
    top: OrderedStore<Place, Bid>,
    bottom: KeyValueStore<Bottom>,
}

impl TopTen {
    /// Takes a bid that is one of the highest, and lets go of the last one if there are too many.
    fn insert(&mut self, key: Key<'_, u64>, bid: &Bid, bottom: Option<Bottom>) -> Flow {
        let place = place(bid);
        self.top.put(key, &place, bid.clone())?;
        let (count, last) = bottom.map_or((1, place), |(count, last)| (count + 1, last.max(place)));
        if count <= RANKS_COUNT {
            return self.bottom.put(key, (count, last));
        }
        self.top.remove(key, &last)?;
        let last = self.top.last(key, ..)?.map_or(place, |(last, _)| last);
        self.bottom.put(key, (RANKS_COUNT, last))
    }

    /// The bids from a place on, with their ranks.
    fn behind(&mut self, key: Key<'_, u64>, first: &Place) -> Result<Vec<Ranked>, Failure> {
        let (mut rank, mut ranked) = (0, Vec::new());
        self.top.visit(key, .., |place, bid| {
            rank += 1;
            if place >= *first {
                ranked.push((bid.clone(), rank));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(ranked)
    }
}

/// A bid and its rank.
type Ranked = (Bid, u64);

impl Operator<u64, Bid> for TopTen {
    type OutKey = u64;
    type Out = Ranked;
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, u64, Bid>,
        out: &mut impl Output<u64, Ranked>,
    ) -> Flow {
        let (key, bid) = (record.key, record.value);
        let bottom = self.bottom.get(key)?;
        let place = place(bid);
        if bottom.is_some_and(|(count, last)| count == RANKS_COUNT && place >= last) {
            return Ok(());
        }
        self.insert(key, bid, bottom)?;
        let changed = self.behind(key, &place)?;
        changed
            .iter()
            .try_for_each(|it| out.push(record.with_value(it)))
    }
}

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .bids(job, |bid| Some(bid.clone()))
        .key_by(|bid| bid.auction)
        .with_ordered_store::<Place, Bid>("top")
        .with_store::<Bottom>("bottom")
        .process("top-ten", |context| {
            Ok(TopTen {
                top: context.ordered_store("top")?,
                bottom: context.store("bottom")?,
            })
        })
        .entries(|_, ranked: &Ranked| ranked.clone())
        .key_by(|(bid, rank)| (bid.auction, *rank))
        .sink(inputs.results());
}
