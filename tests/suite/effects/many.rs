//! Ten thousand random cases of effects: a case is a user of a random job, with records of its own.

use std::time::Instant;

use onceflow::client::wait;
use onceflow::prelude::*;

use super::support::{Target, assert_told, tells_of};
use crate::jobs::support::{Place, run};
use crate::time::support::{Click, click, feed, left_in_store, ms, topic_of_clicks};

const JOBS: u64 = 40;
/// Of each job: `JOBS * USERS` cases.
const USERS: usize = 256;
const PARTITIONS: usize = 3;
const RECORDS: usize = 1_500;

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % bound as u64).unwrap()
    }
}

/// Each click is told under one key, those of a user in order, whatever runs the job and however small its bounds are.
#[test]
fn o6_o8_o11_ten_thousand_users_are_told_of_each_of_their_clicks_under_one_key_in_order() {
    for seed in 0..JOBS {
        let mut chance = Chance((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", i32::try_from(PARTITIONS).unwrap());
        let mut clicks = vec![Vec::<Click>::new(); PARTITIONS];
        for number in 0..RECORDS {
            // A user's clicks are of one partition, so that they have an order.
            let user = chance.below(USERS);
            let number = i64::try_from(number).unwrap();
            clicks[user % PARTITIONS].push(click(&format!("u{user}"), number));
        }
        let batch = [1, 7, 64, 4_096][chance.below(4)];
        for (partition, clicks) in clicks.iter().enumerate() {
            for clicks in clicks.chunks(batch) {
                feed(&log, "in", i32::try_from(partition).unwrap(), clicks);
            }
        }
        let (limit, undelivered_max) = (1 + chance.below(64), 1 + chance.below(400));
        let what = format!("job {seed}: {limit} at a time, {undelivered_max} undelivered");
        let target = Target::opened();
        let launch = || {
            let policy = EffectPolicy::parallel(limit).undelivered_max(undelivered_max);
            tells_of(&target, policy, false)
        };
        for _ in 0..chance.below(3) {
            let (workers, enough) = (1 + chance.below(4), chance.below(40) as u64);
            let running = launch().workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(20) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(launch().workers([1, 2, 4][chance.below(3)]), &log).unwrap();
        println!("{what}");
        assert_told(&target.told(), &clicks.concat());
        assert_eq!(left_in_store(&log, "tells", "tell"), 0, "{what}");
    }
}
