//! q6: of each seller the average price of the last ten auctions that closed with a bid.
//!
//! No engine runs the published SQL, so this is our definition: an auction closes when the watermark has passed its end; its price is
//! that of its winning bid; a seller's auctions close in the order of their ends, those of one end by id; each gives a row, the average
//! of its price and those of up to nine before it, without the fraction.

use super::winning::{Offer, Running, Score, winning};
use super::{Inputs, in_auctions, in_bids};
use crate::runtime::{Came, Due, Flow, Job, Meta, Operator, Origin, Output, Record, TimedStore};
use crate::types::Timestamp;

const AUCTIONS_COUNT: usize = 10;

/// An auction's seller, end, and price so far.
type Priced = (u64, i64, u64);

/// Holds the price of each auction until it closes.
struct Closing {
    open: TimedStore<Priced>,
    due: Due,
}

/// A closed auction: its seller, its id and its price.
type Closed = (u64, u64, u64);

impl Operator<u64, Priced> for Closing {
    type OutKey = u64;
    type Out = Closed;
    const USES_TIME: bool = true;

    fn process(
        &mut self,
        record: Record<'_, u64, Priced>,
        _out: &mut impl Output<u64, Closed>,
    ) -> Flow {
        let expires = Timestamp(record.value.1);
        let priced = *record.value;
        self.open
            .update_at(record.key, expires, |open| *open = Some(priced))
    }

    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Output<u64, Closed>) -> Flow {
        while let Some(came) = self.open.next_due(before(watermark), &mut self.due)? {
            let Came::Value((seller, _, price)) = came else {
                continue;
            };
            let auction = *self.due.key::<u64>().decode()?;
            let meta = Meta {
                timestamp: self.due.time,
                origin: Origin::TIME,
            };
            let closed = (seller, auction, price);
            out.push(Record::new(self.due.key(), &closed, meta))?;
        }
        Ok(())
    }
}

/// The auctions of a seller: those that closed at a time, or the last ten; each with its id and price.
type Auctions = Vec<(u64, u64)>;

/// Keeps the last ten auctions of each seller, and puts those that close together in order.
struct LastTen {
    store: TimedStore<Auctions>,
    due: Due,
}

impl Operator<u64, Closed> for LastTen {
    type OutKey = u64;
    type Out = (u64, u64);
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(
        &mut self,
        record: Record<'_, u64, Closed>,
        _out: &mut impl Output<u64, (u64, u64)>,
    ) -> Flow {
        let (_, auction, price) = *record.value;
        self.store
            .update_at(record.key, record.meta.timestamp, |closed| {
                closed.get_or_insert_default().push((auction, price));
            })
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        out: &mut impl Output<u64, (u64, u64)>,
    ) -> Flow {
        while let Some(came) = self.store.next_due(before(watermark), &mut self.due)? {
            let Came::Value(mut closed) = came else {
                continue;
            };
            closed.sort_unstable();
            let (key, time) = (self.due.key::<u64>(), self.due.time);
            let meta = Meta {
                timestamp: time,
                origin: Origin::TIME,
            };
            let seller = *key.decode()?;
            for auction in closed {
                let average = self.store.update(key, |last| close(last, auction))?;
                out.push(Record::new(key, &(seller, average), meta))?;
            }
        }
        Ok(())
    }
}

/// Adds an auction to the last ten; returns their average price.
fn close(last: &mut Option<Auctions>, auction: (u64, u64)) -> u64 {
    let last = last.get_or_insert_default();
    if last.len() == AUCTIONS_COUNT {
        last.remove(0);
    }
    last.push(auction);
    let sum: u64 = last.iter().map(|(_, price)| price).sum();
    sum / last.len() as u64
}

/// The last time that the watermark has passed.
fn before(watermark: Timestamp) -> Timestamp {
    watermark.plus_millis(-1)
}

pub(super) fn build(job: &Job, inputs: &Inputs) {
    let (auctions, bids) = inputs.timed_events(job).tee();
    let auctions = auctions.filter_map(in_auctions(|it| {
        let running = Running {
            begins: it.date_time,
            expires: it.expires,
            auction: it.seller,
        };
        Some((it.id, running))
    }));
    let offers = bids.filter_map(in_bids(|it| {
        let score = Score {
            price: it.price,
            time: it.date_time,
            bidder: it.bidder,
        };
        Some((it.auction, Offer { score, bid: () }))
    }));
    winning(
        auctions.key_by(|(id, _)| *id).map(|(_, it)| it.clone()),
        offers.key_by(|(id, _)| *id).map(|(_, it)| it.clone()),
        |auction, offer| (auction.auction, auction.expires, offer.score.price),
    )
    .with_timed_store::<Priced>("open")
    .process("closing", |context| {
        Ok(Closing {
            open: context.timed_store("open")?,
            due: Due::default(),
        })
    })
    .entries(|_, closed| *closed)
    .key_by(|(seller, _, _)| *seller)
    .with_timed_store::<Auctions>("last-ten")
    .process("last-ten", |context| {
        Ok(LastTen {
            store: context.timed_store("last-ten")?,
            due: Due::default(),
        })
    })
    .sink(inputs.results());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_of_the_last_ten() {
        let mut last = None;
        let averages: Vec<u64> = (1..=12)
            .map(|price| close(&mut last, (price, price)))
            .collect();
        assert_eq!(averages[..3], [1, 1, 2]);
        assert_eq!(averages[9..], [5, 6, 7]);
    }
}
