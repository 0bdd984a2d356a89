//! Jobs of several instances in a bed: who joins, leaves, dies or stands still, every word is counted once.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::testing::{TestBed, crash_test};

use super::word_count;

/// As short as a log allows.
const SESSION: Duration = Duration::from_secs(6);

fn scaled_out(standbys: u16) -> Launch {
    let scale_out = ScaleOut::instance("host").session_timeout(SESSION);
    word_count()
        .state_partitions(6)
        .scale_out(scale_out.standbys(standbys))
}

fn bed_of(instances: usize, seed: u64) -> TestBed {
    let bed = TestBed::of(scaled_out(1)).instances(instances).seed(seed);
    bed.partitions("words", 4).start()
}

/// Words that are sent, and the counts that they are to give.
#[derive(Default)]
struct Words {
    counts: BTreeMap<String, u64>,
}

impl Words {
    fn send(&mut self, bed: &mut TestBed, count: u64) -> Vec<(String, u64)> {
        let mut expected = Vec::new();
        for number in 0..count {
            let word = format!("word-{}", number % 7);
            bed.send_value("words", word.as_str());
            let count = self.counts.entry(word.clone()).or_default();
            *count += 1;
            expected.push((word, *count));
        }
        expected
    }

    /// Sends so many, and expects each to be counted once.
    fn count(&mut self, bed: &mut TestBed, count: u64) {
        let expected = self.send(bed, count);
        expect(bed, &expected);
    }
}

fn expect(bed: &mut TestBed, expected: &[(String, u64)]) {
    let expected = expected.iter().map(|(word, count)| (word.as_str(), *count));
    bed.expect::<str, u64>("word-counts", expected);
}

/// Counts the words in each instance's part of the state.
fn rows(bed: &mut TestBed) -> Vec<usize> {
    let rows = (0..bed.instances()).map(|instance| {
        let rows = bed.ask_instance(instance, async |query| {
            let store = query.store::<str, u64>("counts")?;
            Ok::<_, onceflow::runtime::QueryError>(store.page(None, 100).await?.value.len())
        });
        rows.unwrap()
    });
    rows.collect()
}

#[test]
fn c29_a_job_that_is_scaled_out_runs_in_a_bed() {
    let mut bed = TestBed::new(word_count().scale_out(ScaleOut::instance("one")));
    let mut words = Words::default();
    for _ in 0..3 {
        words.count(&mut bed, 5);
        bed.crash();
    }
    bed.advance(Duration::from_secs(60));
    bed.expect_nothing("word-counts");
    bed.stop();
    assert!(matches!(bed.ended(), Some(Ok(()))));
}

#[test]
fn c29_instances_of_a_bed_share_the_work_and_hand_it_over() {
    let mut bed = bed_of(1, 1);
    let mut words = Words::default();
    words.count(&mut bed, 30);
    assert_eq!(rows(&mut bed), [7]);
    assert_eq!(bed.add_instance(), 1);
    words.count(&mut bed, 30);
    let shared = rows(&mut bed);
    assert_eq!(shared.iter().sum::<usize>(), 7);
    assert!(!shared.contains(&0), "{shared:?}");
    bed.add_instance();
    words.count(&mut bed, 30);
    bed.stop_instance(0);
    words.count(&mut bed, 30);
    bed.kill_instance(2);
    words.count(&mut bed, 30);
    bed.start_instance(0);
    bed.start_instance(2);
    words.count(&mut bed, 30);
    bed.lose_power();
    words.count(&mut bed, 30);
    bed.stop();
    assert!(matches!(bed.ended(), Some(Ok(()))));
}

#[test]
fn c29_i4_an_instance_that_stood_still_past_its_session_commits_nothing_of_it() {
    for seed in 0..8 {
        let mut bed = bed_of(3, seed);
        let mut words = Words::default();
        words.count(&mut bed, 10);
        let expected = words.send(&mut bed, 20);
        // It has some of them in its transaction.
        bed.settle();
        bed.suspend_instance(1, SESSION * 3);
        expect(&mut bed, &expected);
        let expected = words.send(&mut bed, 20);
        bed.advance(SESSION * 4);
        expect(&mut bed, &expected);
    }
}

#[test]
fn i4_a_process_that_takes_an_instances_name_fences_the_one_before() {
    for seed in 0..8 {
        let mut bed = bed_of(2, seed);
        let mut words = Words::default();
        words.count(&mut bed, 10);
        let expected = words.send(&mut bed, 20);
        bed.settle();
        bed.replace_instance(1, Duration::from_secs(1));
        expect(&mut bed, &expected);
        words.count(&mut bed, 20);
        bed.advance(SESSION);
        assert_eq!(bed.zombies(), 0);
        bed.expect_nothing("word-counts");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_of_several_instances() {
    let run = |seed| {
        let mut bed = bed_of(2, seed);
        let mut words = Words::default();
        words.count(&mut bed, 20);
        bed.add_instance();
        bed.kill_instance(0);
        words.count(&mut bed, 20);
        let rows = bed.rows::<str, u64>("word-counts");
        (bed.now(), bed.progress().commits, rows)
    };
    assert_eq!(run(3), run(3));
}

#[test]
fn a_bed_of_one_process_has_no_instances_to_add() {
    let mut bed = TestBed::new(word_count());
    let refused = catch_unwind(AssertUnwindSafe(|| bed.add_instance()));
    let told = super::message_of(refused.expect_err("it is refused"));
    assert!(told.contains("`instances`"), "{told}");
}

#[test]
fn c29_c30_i4_counts_are_exact_through_any_rebalance() {
    for standbys in 0..2 {
        crash_test(move || scaled_out(standbys))
            .inputs(
                |chance| {
                    chance.list(1..30, |chance| {
                        *chance.pick(&["tea", "milk", "jam", "salt"])
                    })
                },
                |bed, word| bed.send_value("words", *word),
            )
            .expect::<str, u64>("word-counts", counts_of)
            .expect_state::<str, u64>("counts", |words| {
                let last: BTreeMap<String, u64> = counts_of(words).into_iter().collect();
                last.into_iter().collect()
            })
            .instances(3)
            .seeds(20)
            .run();
    }
}

fn counts_of(words: &[&'static str]) -> Vec<(String, u64)> {
    let mut counts = BTreeMap::new();
    let count = |word: &&'static str| {
        let count = counts.entry(*word).or_insert(0);
        *count += 1;
        ((*word).to_owned(), *count)
    };
    words.iter().map(count).collect()
}
