//! Each order is answered once, and each that is refused is told of under one key, whatever happens to the job.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::testing::{Chance, crash_test};

use super::jobs::enrichment::{Order, job};

const CITIES: [(&str, &str); 2] = [("ann", "Rome"), ("bob", "Oslo")];

/// The mails that the world outside was told, by idempotency key; it does not die with the job.
type Mails = Arc<Mutex<BTreeMap<String, Order>>>;

fn is_delivered((_, goods, city): &Order) -> bool {
    city != "nowhere" && (city.as_str(), goods.as_str()) != ("Oslo", "rum")
}

fn orders(chance: &mut Chance) -> Vec<(&'static str, &'static str)> {
    chance.list(1..20, |chance| {
        (
            *chance.pick(&["ann", "bob", "eve"]),
            *chance.pick(&["tea", "rum"]),
        )
    })
}

/// The number of times that each is there.
fn counted<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts
}

#[test]
fn each_order_is_answered_once_and_each_refusal_told_under_one_key() {
    let mails = Mails::default();
    let (of_job, of_seed, of_check) = (Arc::clone(&mails), Arc::clone(&mails), mails);
    let build = move || {
        let mails = Arc::clone(&of_job);
        // The service is down now and then, and some mails are sent again.
        let delivers = |call: Call<String, Order>| async move {
            match call.id.sequence() % 5 {
                4 => Err("down".to_owned()),
                _ => Ok((call.value.clone(), is_delivered(&call.value))),
            }
        };
        let tell = move |effect: Effect<String, Order>| {
            let mut mails = mails.lock().unwrap();
            let key = effect.idempotency_key();
            let before = mails.insert(key, effect.value.clone());
            assert!(
                before.as_ref().is_none_or(|it| *it == effect.value),
                "one key for two mails"
            );
            // Nobody knows whether the first attempt took effect.
            let is_again = before.is_some();
            async move {
                match is_again {
                    true => Delivery::Done,
                    false => Delivery::again("the line went dead"),
                }
            }
        };
        job(delivers, tell)
    };
    let draw = move |chance: &mut Chance| {
        of_seed.lock().unwrap().clear();
        orders(chance)
    };
    crash_test(build)
        .inputs(draw, |bed, (customer, goods)| {
            for (customer, city) in CITIES {
                let now = bed.now();
                let (key, value) = (customer.as_bytes(), city.as_bytes());
                bed.send_bytes("customers", Some(key), Some(value), now);
            }
            bed.send_value("orders", format!("{customer} {goods}").as_str());
        })
        .check(move |bed, orders| {
            bed.advance(Duration::from_secs(60));
            let rows = bed.rows::<String, str>("answers").into_iter();
            let answers: Vec<_> = rows
                .map(|row| (row.key.unwrap(), row.value.unwrap()))
                .collect();
            let unanswered = bed.rows::<String, Order>("unanswered").len();
            assert_eq!(answers.len() + unanswered, orders.len(), "{answers:?}");
            // Where a customer lives may have come behind the order.
            let refused = answers.iter().filter(|(_, text)| text.contains("not "));
            let refused = counted(refused.map(|(customer, text)| {
                let (goods, city) = text.split_once(": not delivered to ").unwrap();
                (customer.clone(), goods.to_owned(), city.to_owned())
            }));
            assert!(refused.keys().all(|order| !is_delivered(order)));
            let mails = of_check.lock().unwrap();
            assert_eq!(counted(mails.values().cloned()), refused);
        })
        .seeds(60)
        .run();
}
