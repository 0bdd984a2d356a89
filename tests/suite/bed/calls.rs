//! Steps that make calls and have effects, in a bed: their pauses and time limits are of virtual time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::testing::TestBed;

const SECOND: Duration = Duration::from_secs(1);

fn asking<F, Fut>(policy: CallPolicy, ask: F) -> Launch
where
    F: Fn(Call<String, u64>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<u64, String>> + Send + 'static,
{
    let job = Job::new("asking");
    let (answers, failed) = job
        .keyed_source(keyed_topic::<String, u64>("in"))
        .map_async("ask", policy, ask);
    answers.sink(topic("answers"));
    failed.sink(topic("failed"));
    job.exactly_once(Commit::every(SECOND))
}

fn send(bed: &mut TestBed, key: &str, value: u64) {
    bed.send("in", &key.to_owned(), &value);
}

fn answers(bed: &mut TestBed) -> Vec<u64> {
    let rows = bed.take::<String, u64>("answers").into_iter();
    rows.map(|row| row.value.unwrap()).collect()
}

#[test]
fn a5_calls_are_answered_and_made_again_after_a_crash() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&calls);
    let ask = move |call: Call<String, u64>| {
        told.lock().unwrap().push(call.id);
        async move { Ok(call.value * 10) }
    };
    let mut bed = TestBed::new(asking(CallPolicy::unordered(10), ask));
    send(&mut bed, "a", 1);
    send(&mut bed, "b", 2);
    bed.commit();
    // The calls were made behind that commit; their answers are not committed yet.
    bed.crash();
    bed.advance(SECOND * 3);
    let mut found = answers(&mut bed);
    found.sort_unstable();
    assert_eq!(found, [10, 20]);
    let mut calls = calls.lock().unwrap().clone();
    let count = calls.len();
    calls.sort_unstable();
    calls.dedup();
    assert_eq!(calls.len(), 2, "the same ids at each of {count} calls");
}

#[test]
fn a_call_that_fails_is_made_again_after_its_pause_in_virtual_time() {
    let count = Arc::new(AtomicU64::new(0));
    let calls = Arc::clone(&count);
    let ask = move |call: Call<String, u64>| {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            match number {
                0 | 1 => Err("down".to_owned()),
                _ => Ok(call.value),
            }
        }
    };
    let policy = CallPolicy::unordered(10).retries(5, SECOND * 20);
    let mut bed = TestBed::new(asking(policy, ask));
    send(&mut bed, "a", 7);
    bed.advance(SECOND * 3);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    bed.advance(SECOND * 20);
    assert_eq!(count.load(Ordering::Relaxed), 2);
    // The pause doubles.
    bed.advance(SECOND * 30);
    assert_eq!(count.load(Ordering::Relaxed), 2);
    bed.advance(SECOND * 13);
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert_eq!(answers(&mut bed), [7]);
}

#[test]
fn a_call_without_an_answer_runs_out_of_time_in_virtual_time() {
    let ask = |_: Call<String, u64>| std::future::pending::<Result<u64, String>>();
    let policy = CallPolicy::unordered(10).timeout(SECOND * 3600);
    let mut bed = TestBed::new(asking(policy, ask));
    send(&mut bed, "a", 7);
    bed.advance(SECOND * 3500);
    bed.expect_nothing("failed");
    bed.advance(SECOND * 110);
    let failed = bed.take::<String, u64>("failed");
    assert_eq!(failed.len(), 1);
    assert_eq!(answers(&mut bed), [0; 0]);
}

#[test]
fn o6_an_effect_keeps_its_key_from_one_attempt_to_the_next_over_a_crash() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let keys = Arc::clone(&told);
    let target = move |effect: Effect<String, u64>| {
        let mut keys = keys.lock().unwrap();
        keys.push((effect.value, effect.idempotency_key()));
        let is_done = keys.len() > 2;
        async move {
            match is_done {
                true => Delivery::Done,
                false => Delivery::again("down"),
            }
        }
    };
    let job = Job::new("telling");
    job.keyed_source(keyed_topic::<String, u64>("in"))
        .effect(
            "tell",
            EffectPolicy::parallel(4).pause(SECOND * 10, SECOND * 10),
            target,
        )
        .sink(topic("dead"));
    let mut bed = TestBed::new(job.exactly_once(Commit::every(SECOND)));
    send(&mut bed, "a", 7);
    bed.settle();
    assert_eq!(told.lock().unwrap().len(), 0, "not before its commit");
    bed.commit();
    assert_eq!(told.lock().unwrap().len(), 1);
    bed.crash();
    bed.advance(SECOND * 30);
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|it| *it == told[0]), "{told:?}");
    assert_eq!(bed.progress().undelivered_effects, 0);
    bed.expect_nothing("dead");
}
