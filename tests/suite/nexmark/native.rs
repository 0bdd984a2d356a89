//! Each query on one worker, events and rows in the crate's default codec: the rows are those of the oracle, too.

use std::collections::BTreeMap;

use onceflow::cli::nexmark::{Auction, Bid, Query};
use onceflow::codec::{Bincode, Codec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Results, Run, are_same, world};

/// Counts in all and in three bands of prices.
type Counts = [u64; 4];
/// A bid, as the SQL of q0, q1, q7 and, for its last column, q13 gives it.
type BidRow = (u64, u64, u64, i64, String);
type ChannelRow = (u64, u64, u64, String, String);
type BandsRow = (String, Counts, Counts, Counts);
type ChannelBandsRow = ((String, String), String, Counts, Counts, Counts);

/// A row as JSON, read as the type that the query writes.
fn row_of<R: Serialize + DeserializeOwned + Clone>(bytes: &[u8]) -> Value {
    let row = Codec::<R>::decode(&Bincode, bytes).unwrap().into_owned();
    serde_json::to_value(row).unwrap()
}

fn results<R: Serialize + DeserializeOwned + Clone>(query: Query) -> Results {
    let run = Run::with(query, "native", "1");
    run.finish();
    run.results_by(row_of::<R>)
}

fn is_as_the_oracle_says<R: Serialize + DeserializeOwned + Clone>(query: Query) {
    if let Some(oracle) = &world().oracle {
        are_same(query, results::<R>(query).rows, oracle.rows(query));
    }
}

macro_rules! queries {
    ($($name:ident $query:ident $row:ty;)*) => {$(
        #[test]
        fn $name() {
            is_as_the_oracle_says::<$row>(Query::$query);
        }
    )*};
}

queries! {
    q0_on_one_worker_in_native_form Q0 BidRow;
    q1_on_one_worker_in_native_form Q1 BidRow;
    q2_on_one_worker_in_native_form Q2 (u64, u64);
    q3_on_one_worker_in_native_form Q3 (String, String, String, u64);
    q4_on_one_worker_in_native_form Q4 (u64, u64);
    q5_on_one_worker_in_native_form Q5 (u64, u64);
    q6_on_one_worker_in_native_form Q6 (u64, u64);
    q7_on_one_worker_in_native_form Q7 BidRow;
    q8_on_one_worker_in_native_form Q8 (u64, String, i64);
    q9_on_one_worker_in_native_form Q9 (Auction, u64, u64, i64, String);
    q11_on_one_worker_in_native_form Q11 (u64, u64, i64, i64);
    q13_on_one_worker_in_native_form Q13 BidRow;
    q14_on_one_worker_in_native_form Q14 (u64, u64, u64, String, i64, String, u64);
    q15_on_one_worker_in_native_form Q15 BandsRow;
    q16_on_one_worker_in_native_form Q16 ChannelBandsRow;
    q17_on_one_worker_in_native_form Q17 (u64, String, Counts, u64, u64, u64, u64);
    q18_on_one_worker_in_native_form Q18 (u64, u64, u64, String, String, i64, String);
    q19_on_one_worker_in_native_form Q19 (Bid, u64);
    q20_on_one_worker_in_native_form Q20 (Bid, Auction);
    q21_on_one_worker_in_native_form Q21 ChannelRow;
    q22_on_one_worker_in_native_form Q22 (u64, u64, u64, String, String, String, String);
}

#[test]
fn q12_on_one_worker_in_native_form() {
    let Some(oracle) = &world().oracle else {
        return;
    };
    // The windows depend on the run, and the sums do not.
    let mut counts = BTreeMap::<u64, u64>::new();
    for row in results::<(u64, u64, i64, i64)>(Query::Q12).rows {
        let (bidder, bids) = (row[0].as_u64().unwrap(), row[1].as_u64().unwrap());
        *counts.entry(bidder).or_default() += bids;
    }
    let sums = counts
        .into_iter()
        .map(|(bidder, bids)| vec![bidder.into(), bids.into()]);
    are_same(Query::Q12, sums.collect(), oracle.rows(Query::Q12));
}
