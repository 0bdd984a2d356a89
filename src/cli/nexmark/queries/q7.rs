//! q7: of each ten seconds the bids with the highest price, and those of that price with which the next ten seconds begin: the SQL's window
//! takes its end, too.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::events::Bid;
use super::Inputs;
use crate::operators::WindowFold;
use crate::runtime::{FixedWindows, Job, Windowed};

const WINDOW_MILLIS: i64 = 10_000;
const WINDOW: Duration = Duration::from_secs(10);
/// The highest price is found in parts first, so that no worker has to see all bids.
const PARTS_COUNT: u64 = 16;

/// A bid, as the SQL gives it.
type Row = (u64, u64, u64, i64, String);

/// The facts of a window.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Highest {
    price: u64,
    bids: Vec<Row>,
    /// The bids with which the window begins.
    first: Vec<Row>,
}

impl Highest {
    fn of(row: &Row) -> Self {
        let is_first = row.3.rem_euclid(WINDOW_MILLIS) == 0;
        Self {
            price: row.2,
            bids: vec![row.clone()],
            first: if is_first {
                vec![row.clone()]
            } else {
                Vec::new()
            },
        }
    }

    fn add(&mut self, other: &Self) {
        match self.price.cmp(&other.price) {
            Ordering::Less => {
                self.price = other.price;
                self.bids.clone_from(&other.bids);
            }
            Ordering::Equal => self.bids.extend_from_slice(&other.bids),
            Ordering::Greater => {}
        }
        self.first.extend_from_slice(&other.first);
    }
}

/// The highest bids of single bids, or of parts.
#[derive(Clone)]
struct Fold;

impl WindowFold<Row> for Fold {
    type State = Highest;

    fn first(&self, row: &Row) -> Highest {
        Highest::of(row)
    }

    fn add(&self, highest: &mut Highest, row: &Row) {
        let is_first = row.3.rem_euclid(WINDOW_MILLIS) == 0;
        if row.2 >= highest.price || is_first {
            highest.add(&Highest::of(row));
        }
    }

    fn merge(&self, highest: &mut Highest, other: &Highest) {
        highest.add(other);
    }
}

impl WindowFold<Highest> for Fold {
    type State = Highest;

    fn first(&self, part: &Highest) -> Highest {
        part.clone()
    }

    fn add(&self, highest: &mut Highest, part: &Highest) {
        highest.add(part);
    }

    fn merge(&self, highest: &mut Highest, other: &Highest) {
        highest.add(other);
    }
}

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .timed_bids(job, |bid| Some(row(bid)))
        .key_by(|(_, bidder, ..)| bidder % PARTS_COUNT)
        .window(FixedWindows::tumbling(WINDOW))
        .fold("highest-of-part", Fold)
        .entries(|_: &Windowed<u64>, part| part.clone())
        .key_by(|_| 0u8)
        .window(FixedWindows::tumbling(WINDOW))
        .fold("highest", Fold)
        .entries(|at: &Windowed<u8>, highest| (at.window.start.0, highest.clone()))
        // Windows close in the order of their times, and all come here.
        .key_by(|_| 0u8)
        .stateful(
            "before",
            |before: &mut Option<(i64, u64)>, (start, highest): &(i64, Highest), rows| {
                let last = before.filter(|(end, _)| end == start);
                let at_its_end = highest
                    .first
                    .iter()
                    .filter(|row| last.is_some_and(|(_, price)| row.2 == price));
                at_its_end
                    .chain(&highest.bids)
                    .for_each(|row| rows.push(row.clone()));
                *before = Some((start + WINDOW_MILLIS, highest.price));
            },
        )
        .sink(inputs.results());
}

fn row(bid: &Bid) -> Row {
    let extra = bid.extra.clone();
    (bid.auction, bid.bidder, bid.price, bid.date_time, extra)
}
