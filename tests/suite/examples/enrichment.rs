//! Each order is answered once, and each that is refused is told of under one key, whatever happens to the job.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// The cities of the customers come first, then orders: a customer and goods.
#[derive(Debug, Clone, Copy)]
enum Input {
    Cities,
    Order(&'static str, &'static str),
}

fn inputs(chance: &mut Chance) -> Vec<Input> {
    let orders = chance.list(1..20, |chance| {
        let customer = *chance.pick(&["ann", "bob", "eve"]);
        let goods = *chance.pick(&["tea", "rum"]);
        Input::Order(customer, goods)
    });
    [Input::Cities].into_iter().chain(orders).collect()
}

/// Each order with the city that its customer lives in.
fn enriched(inputs: &[Input]) -> Vec<Order> {
    let mut cities = BTreeMap::new();
    let mut orders = Vec::new();
    for input in inputs {
        match *input {
            Input::Cities => cities.extend(CITIES),
            Input::Order(customer, goods) => {
                let city = *cities.get(customer).unwrap_or(&"nowhere");
                orders.push((customer.to_owned(), goods.to_owned(), city.to_owned()));
            }
        }
    }
    orders
}

/// Takes one of these away.
fn take(orders: &mut BTreeMap<Order, usize>, order: &Order) {
    let count = orders.get_mut(order).filter(|count| **count > 0);
    *count.unwrap_or_else(|| panic!("nobody asked for {order:?}")) -= 1;
}

/// The mails; an assertion that failed while somebody had them is told by itself.
fn told(mails: &Mails) -> MutexGuard<'_, BTreeMap<String, Order>> {
    mails.lock().unwrap_or_else(PoisonError::into_inner)
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
            let mut mails = told(&mails);
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
        told(&of_seed).clear();
        inputs(chance)
    };
    crash_test(build)
        .inputs(draw, |bed, input| match input {
            Input::Cities => {
                for (customer, city) in CITIES {
                    let now = bed.now();
                    let (key, value) = (customer.as_bytes(), city.as_bytes());
                    bed.send_bytes("customers", Some(key), Some(value), now);
                }
                // Some commits later the job has them: an order never comes before them.
                bed.advance(Duration::from_secs(1));
            }
            Input::Order(customer, goods) => {
                bed.send_value("orders", format!("{customer} {goods}").as_str());
            }
        })
        .check(move |bed, inputs| {
            bed.advance(Duration::from_secs(60));
            let rows = bed.rows::<String, str>("answers").into_iter();
            let answers = rows.map(|row| (row.key.unwrap(), row.value.unwrap()));
            let rows = bed.rows::<String, Order>("unanswered").into_iter();
            let unanswered: Vec<Order> = rows.map(|row| row.value.unwrap()).collect();
            // Each order has an answer, or is in the other topic with its city.
            let mut due = counted(enriched(inputs).into_iter());
            for order in &unanswered {
                take(&mut due, order);
            }
            let answered = counted(due.iter().flat_map(|(order, count)| {
                let (customer, goods, city) = order;
                let word = if is_delivered(order) { "" } else { "not " };
                let text = format!("{goods}: {word}delivered to {city}");
                std::iter::repeat_n((customer.clone(), text), *count)
            }));
            assert_eq!(counted(answers), answered);
            due.retain(|order, count| !is_delivered(order) && *count > 0);
            let mails = counted(told(&of_check).values().cloned());
            assert_eq!(mails, due);
        })
        .seeds(60)
        .run();
}
