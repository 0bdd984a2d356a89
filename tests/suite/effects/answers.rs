//! The classes of a target's answers, what becomes of effects that can never be delivered, and the bounds.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use onceflow::client::wait;
use onceflow::prelude::*;

use super::support::{Target, assert_told, clicks, clicks_of, tells, tells_of};
use crate::jobs::support::{Place, committed, run, until};
use crate::time::support::{Click, feed, left_in_store, ms, topic_of_clicks};

/// Deliveries by number: the idempotency keys.
type Keys = Arc<Mutex<BTreeMap<i64, Vec<String>>>>;

/// Notes a delivery; says which time it is.
fn note(keys: &Keys, effect: &Effect<String, Click>) -> usize {
    let mut keys = keys.lock().unwrap();
    let of_number = keys.entry(effect.value.1).or_default();
    of_number.push(effect.idempotency_key());
    of_number.len()
}

#[test]
fn o6_o11_an_effect_is_told_again_until_its_fate_is_known_and_dead_letters_say_why() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let all = clicks(0, 60, 7);
    feed(&log, "in", 0, &all);
    let (keys, order) = (Keys::default(), Arc::new(Mutex::new(Vec::new())));
    let (noted, done) = (Arc::clone(&keys), Arc::clone(&order));
    let target = move |effect: Effect<String, Click>| {
        let time = note(&noted, &effect);
        let done = Arc::clone(&done);
        async move {
            match (effect.value.1 % 6, time) {
                // At the first time, in different ways; the last ones each time.
                (0, 1) => Delivery::again("busy"),
                (1, 1) => panic!("its function fails"),
                (2, 1) => std::future::pending().await,
                (3, 1) => Delivery::again_after(ms(1), "busy"),
                (4, _) => Delivery::never("no such thing"),
                (5, _) if effect.value.1 == 5 => Err::<(), _>("always busy").into(),
                _ => {
                    done.lock().unwrap().push(effect.value);
                    Delivery::Done
                }
            }
        }
    };
    let policy = EffectPolicy::parallel(3)
        .timeout(ms(40))
        .pause(ms(1), ms(4))
        .attempts(4);
    run(tells(target, policy, false), &log).unwrap();
    let mut expected = BTreeMap::<String, Vec<i64>>::new();
    for (user, number) in all.iter().filter(|(_, n)| n % 6 != 4 && *n != 5) {
        expected.entry(user.clone()).or_default().push(*number);
    }
    let mut found = BTreeMap::<String, Vec<i64>>::new();
    for (user, number) in order.lock().unwrap().iter() {
        found.entry(user.clone()).or_default().push(*number);
    }
    assert_eq!(found, expected, "each once, those of a user in order");
    let mut dead = Vec::new();
    let keys = keys.lock().unwrap();
    for seen in committed(&log, "dead") {
        let number = seen.value::<Click>().1;
        let expected = match number {
            5 => "always busy (the last of 4 attempts)",
            _ => "no such thing",
        };
        assert_eq!(seen.header("onceflow.failed"), expected);
        assert_eq!(seen.header("onceflow.effect"), keys[&number][0]);
        dead.push(number);
    }
    dead.sort_unstable();
    let never = (0..60).filter(|number| number % 6 == 4 || *number == 5);
    assert_eq!(dead, never.collect::<Vec<_>>());
    for (number, keys) in &*keys {
        let times = match number % 6 {
            0..=3 => 2,
            _ if *number == 5 => 4,
            _ => 1,
        };
        assert_eq!(keys.len(), times, "{number}");
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        assert!(keys[0].starts_with("tells/"), "{keys:?}");
    }
    assert_eq!(left_in_store(&log, "tells", "tell"), 0);
}

#[test]
fn o6_an_effect_that_can_never_be_delivered_stops_the_job_where_nobody_takes_it_and_keeps_its_key()
{
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &clicks(1, 1, 1));
    let keys = Keys::default();
    let launch = |is_broken: bool| {
        let keys = Arc::clone(&keys);
        let job = Job::new("tells");
        let target = move |effect: Effect<String, Click>| {
            note(&keys, &effect);
            async move {
                match is_broken {
                    true => Delivery::never("it is gone"),
                    false => Delivery::Done,
                }
            }
        };
        let _ = clicks_of(&job, false).effect("tell", EffectPolicy::parallel(1), target);
        job.exactly_once(Commit::every(ms(5)))
    };
    let error = run(launch(true), &log).unwrap_err();
    let said = error.to_string();
    let key = keys.lock().unwrap()[&1][0].clone();
    assert!(said.contains("it is gone") && said.contains(&key), "{said}");
    run(launch(false), &log).unwrap();
    let keys = keys.lock().unwrap();
    assert!(keys[&1].iter().all(|it| *it == key), "{keys:?}");
    assert_eq!(left_in_store(&log, "tells", "tell"), 0);
}

#[test]
fn o11_attempts_are_counted_over_restarts() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[("broken".to_owned(), 1)]);
    let keys = Keys::default();
    let launch = |is_endless, stalls_at: usize| {
        let keys = Arc::clone(&keys);
        let target = move |effect: Effect<String, Click>| {
            let time = note(&keys, &effect);
            async move {
                match effect.key.as_str() {
                    "broken" if time == stalls_at => std::future::pending().await,
                    "broken" => Delivery::again("it is broken"),
                    _ => Delivery::Done,
                }
            }
        };
        let policy = EffectPolicy::parallel(4).pause(ms(1), ms(2)).attempts(7);
        tells(target, policy, is_endless)
    };
    let times = |number: i64| keys.lock().unwrap().get(&number).map_or(0, Vec::len);
    // Of each run the last attempt has no answer, and is not counted.
    for (other, stalls_at) in [(2, 3), (3, 6)] {
        let running = launch(true, stalls_at).start(&log).unwrap();
        until("it is told so often", || times(1) == stalls_at);
        // Behind this one all is noted that was known before.
        feed(&log, "in", 0, &[("fine".to_owned(), other)]);
        until("the other one is told", || times(other) == 1);
        wait(running.stop()).unwrap();
    }
    run(launch(false, 0), &log).unwrap();
    assert_eq!(times(1), 7 + 2);
    let dead = committed(&log, "dead");
    let why: Vec<&str> = dead.iter().map(|it| it.header("onceflow.failed")).collect();
    assert_eq!(why, ["it is broken (the last of 7 attempts)"]);
    let keys = keys.lock().unwrap();
    assert!(keys[&1].iter().all(|key| *key == keys[&1][0]), "{keys:?}");
}

#[test]
fn o12_a_slow_target_stops_no_commit_and_at_the_bound_sources_stand_still() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let target = Target::closed();
    let policy = EffectPolicy::parallel(4).undelivered_max(500);
    let running = tells_of(&target, policy, true).start(&log).unwrap();
    let mut all = Vec::new();
    for round in 0..10 {
        let some = clicks(round * 40, 40, 9);
        let before = running.commits();
        feed(&log, "in", 0, &some);
        all.extend(some);
        until("they are committed, though nothing is delivered", || {
            running.commits() > before && running.progress().undelivered_effects == all.len()
        });
    }
    for round in 0..200 {
        let some = clicks(400 + round * 100, 100, 9);
        feed(&log, "in", 0, &some);
        all.extend(some);
    }
    until("the bound is reached", || {
        running.progress().undelivered_effects >= 500
    });
    std::thread::sleep(ms(300));
    let undelivered = running.progress().undelivered_effects;
    // What was on its way from the source is in the outbox, too.
    assert!(undelivered < 5_000, "{undelivered} effects wait");
    let under_way = target.under_way.load(Ordering::SeqCst);
    assert!((1..=4).contains(&under_way), "{under_way}");
    target.open();
    until("all are delivered", || {
        running.progress().undelivered_effects == 0 && target.count() >= all.len()
    });
    wait(running.stop()).unwrap();
    assert_told(&target.told(), &all);
    assert!(target.most.load(Ordering::SeqCst) <= 4);
    assert_eq!(committed(&log, "dead").len(), 0);
}
