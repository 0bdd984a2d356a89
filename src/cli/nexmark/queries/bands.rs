//! Bids of a group in three bands of prices: how many there are, of how many bidders, for how many auctions.
//!
//! Who bid, and for what, is a row of a store in order for each group, with the bands in which that was so far.

use serde::{Deserialize, Serialize};

use crate::codec::Datum;
use crate::runtime::{
    Change, Failure, Flow, Key, Keyed, Operator, OrderedStore, Output, Record, Table, TableStore,
    Upstream,
};

/// A number for all bids, and one for each band.
pub(super) type Counts = [u64; 4];

/// The bands that a price is of: all, and one of three.
pub(super) fn bands(price: u64) -> u8 {
    match price {
        0..10_000 => 0b0011,
        10_000..1_000_000 => 0b0101,
        _ => 0b1001,
    }
}

/// Counts one more in each of these bands.
pub(super) fn add(counts: &mut Counts, bands: u8) {
    for (band, count) in counts.iter_mut().enumerate() {
        *count += u64::from(bands >> band & 1);
    }
}

/// A bid, as far as it is counted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) auction: u64,
    pub(super) bidder: u64,
    pub(super) price: u64,
    pub(super) minute: i64,
}

/// The totals of a group.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Totals {
    /// The last minute of the day with a bid.
    pub(super) minute: i64,
    pub(super) bids: Counts,
    pub(super) bidders: Counts,
    pub(super) auctions: Counts,
}

/// Whom a row of the store is about: a bidder, or an auction.
type Who = (bool, u64);

struct CountBands {
    totals: TableStore<Totals>,
    seen: OrderedStore<Who, u8>,
}

impl CountBands {
    /// The bands in which somebody is new.
    fn see<K: ?Sized>(&mut self, key: Key<'_, K>, who: Who, bands: u8) -> Result<u8, Failure> {
        let before = self.seen.get(key, &who)?.unwrap_or(0);
        let new = bands & !before;
        if new != 0 {
            self.seen.put(key, &who, before | bands)?;
        }
        Ok(new)
    }
}

impl<K: ?Sized> Operator<K, Counted> for CountBands {
    type OutKey = K;
    type Out = Change<Totals>;
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, K, Counted>,
        out: &mut impl Output<K, Change<Totals>>,
    ) -> Flow {
        let (key, bid) = (record.key, *record.value);
        let bands = bands(bid.price);
        let new_bidder = self.see(key, (false, bid.bidder), bands)?;
        let new_auction = self.see(key, (true, bid.auction), bands)?;
        let count = |totals: &mut Option<Totals>| {
            let totals = totals.get_or_insert_default();
            totals.minute = totals.minute.max(bid.minute);
            add(&mut totals.bids, bands);
            add(&mut totals.bidders, new_bidder);
            add(&mut totals.auctions, new_auction);
        };
        self.totals
            .change(key, count, |change| out.push(record.with_value(change)))
    }
}

/// The totals of each group.
pub(super) fn count_bands<K: Datum, U: Upstream<K, Counted>>(
    bids: Keyed<K, Counted, U>,
) -> Table<K, Totals, impl Upstream<K, Change<Totals>> + use<K, U>> {
    let counted = bids
        .with_store::<Totals>("totals")
        .with_ordered_store::<Who, u8>("seen")
        .process("bands", |context| {
            Ok(CountBands {
                totals: context.table_store("totals")?,
                seen: context.ordered_store("seen")?,
            })
        });
    Table::in_store(counted, "totals")
}
