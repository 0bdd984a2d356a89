//! q5: of each window of ten seconds, every two seconds, the auctions with the most bids, all of them where several have as many.

use std::time::Duration;

use super::Inputs;
use crate::operators::WindowFold;
use crate::runtime::{FixedWindows, Job, Windowed};

const WINDOW: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_secs(2);

/// The auctions with the most bids, and how many these are.
#[derive(Clone)]
struct Hottest;

impl WindowFold<(u64, u64)> for Hottest {
    type State = (u64, Vec<u64>);

    fn first(&self, (auction, bids): &(u64, u64)) -> Self::State {
        (*bids, vec![*auction])
    }

    fn add(&self, state: &mut Self::State, value: &(u64, u64)) {
        self.merge(state, &self.first(value));
    }

    fn merge(&self, state: &mut Self::State, other: &Self::State) {
        match state.0.cmp(&other.0) {
            std::cmp::Ordering::Less => state.clone_from(other),
            std::cmp::Ordering::Equal => state.1.extend_from_slice(&other.1),
            std::cmp::Ordering::Greater => {}
        }
    }
}

pub(super) fn build(job: &Job, inputs: &Inputs) {
    inputs
        .timed_bids(job, |bid| Some(bid.auction))
        .key_by(|auction| *auction)
        .window(FixedWindows::hopping(WINDOW, STEP))
        .count("bids")
        .entries(|windowed: &Windowed<u64>, bids| (windowed.key, *bids))
        // A count has the last time of its window. Windows end every two seconds, so each is alone in its two seconds.
        .key_by(|_| 0u8)
        .window(FixedWindows::tumbling(STEP))
        .fold("hottest", Hottest)
        .flat_map_into(|(bids, auctions)| {
            let bids = *bids;
            auctions.clone().into_iter().map(move |it| (it, bids))
        })
        .sink(inputs.results());
}
