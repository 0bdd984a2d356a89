//! Each query beside the oracle.

use std::collections::BTreeMap;

use onceflow::cli::nexmark::Query;
use serde_json::Value;

use super::{EVENTS, KILLS, Results, Run, are_same, world};

/// Runs a query whose process is killed `kills` times, and compares its rows with the oracle's.
fn is_as_the_oracle_says(query: Query, kills: u64) -> Option<Results> {
    let oracle = world().oracle.as_ref()?;
    let run = Run::of(query);
    run.kill(kills);
    run.finish();
    let results = run.results();
    are_same(query, results.rows.clone(), oracle.rows(query));
    Some(results)
}

macro_rules! queries {
    ($($name:ident $query:ident)*) => {$(
        #[test]
        fn $name() {
            is_as_the_oracle_says(Query::$query, KILLS);
        }
    )*};
}

queries! {
    q0_gives_every_bid_through_kills Q0
    q1_gives_prices_in_euros_through_kills Q1
    q2_gives_bids_for_some_auctions_through_kills Q2
    q3_joins_sellers_with_their_auctions_through_kills Q3
    q5_gives_the_auctions_with_the_most_bids_through_kills Q5
    q6_gives_the_average_of_the_last_ten_auctions_through_kills Q6
    q7_gives_the_highest_bids_through_kills Q7
    q8_gives_newcomers_who_sell_through_kills Q8
    q11_counts_the_bids_of_sessions_through_kills Q11
    q13_joins_bids_with_a_table_through_kills Q13
    q14_tells_the_time_of_day_through_kills Q14
    q16_counts_by_channel_and_day_through_kills Q16
    q20_joins_bids_with_their_auctions_through_kills Q20
    q21_gives_ids_of_channels_through_kills Q21
    q22_gives_directories_through_kills Q22
}

/// All rows of a query that were written, by key and in order.
type Updates = BTreeMap<Vec<u8>, Vec<Option<Vec<Value>>>>;

/// Whether the rows of each key only ever grow in the columns that `of` gives.
fn grow<T: PartialOrd>(updates: &Updates, of: impl Fn(&[Value]) -> T) {
    for rows in updates.values() {
        let rows: Vec<T> = rows.iter().flatten().map(|row| of(row)).collect();
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

#[test]
fn q4_gives_the_average_of_each_category_through_kills() {
    if let Some(results) = is_as_the_oracle_says(Query::Q4, KILLS) {
        assert_eq!(results.updates.len(), 5);
    }
}

#[test]
fn q9_gives_each_winning_bid_and_what_it_took_the_place_of_through_kills() {
    if let Some(results) = is_as_the_oracle_says(Query::Q9, KILLS) {
        // Each row wins against the one before: by its price, or its time, or its bidder.
        grow(&results.updates, |row| {
            (number(&row[11]), -number(&row[12]), -number(&row[10]))
        });
    }
}

#[test]
fn q12_counts_each_bid_in_one_window_of_the_clock_through_kills() {
    let Some(oracle) = &world().oracle else {
        return;
    };
    let run = Run::of(Query::Q12);
    run.kill(KILLS);
    run.finish();
    let mut counts = BTreeMap::<i64, i64>::new();
    for row in run.results().rows {
        assert_eq!(number(&row[3]) - number(&row[2]), 10_000);
        *counts.entry(number(&row[0])).or_default() += number(&row[1]);
    }
    let sums = counts
        .into_iter()
        .map(|(bidder, bids)| vec![bidder.into(), bids.into()]);
    are_same(Query::Q12, sums.collect(), oracle.rows(Query::Q12));
}

#[test]
fn q15_counts_by_day_through_kills() {
    if let Some(results) = is_as_the_oracle_says(Query::Q15, KILLS) {
        assert_eq!(results.updates.len(), 2);
        grow(&results.updates, |row| number(&row[1]));
    }
}

#[test]
fn q17_gives_each_update_of_an_auction_once_through_kills() {
    if let Some(results) = is_as_the_oracle_says(Query::Q17, KILLS) {
        // The n-th row of a key counts n bids: none is there twice, and none is left out.
        for rows in results.updates.values() {
            let counts = rows.iter().flatten().map(|row| number(&row[2]));
            assert!(counts.eq(1..=i64::try_from(rows.len()).unwrap()));
        }
        let all: usize = results.updates.values().map(Vec::len).sum();
        assert_eq!(all as u64, EVENTS / 50 * 46);
    }
}

#[test]
fn q18_gives_the_last_bid_and_each_before_it_through_kills() {
    if let Some(results) = is_as_the_oracle_says(Query::Q18, KILLS) {
        grow(&results.updates, |row| (number(&row[5]), number(&row[2])));
    }
}

#[test]
fn q19_gives_the_ten_highest_bids_of_each_auction_through_kills() {
    if let Some(results) = is_as_the_oracle_says(Query::Q19, KILLS) {
        // Whoever takes a rank bids more than who had it, or as much and earlier.
        grow(&results.updates, |row| {
            (number(&row[5]), -number(&row[3]), -number(&row[1]))
        });
    }
}
