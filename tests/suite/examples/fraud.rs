//! Every theft is told once, whatever happens to the job.

use std::collections::HashMap;

use onceflow::testing::{Chance, crash_test};

type Payment = (&'static str, i64, f64);

fn payments(chance: &mut Chance) -> Vec<Payment> {
    let mut time = 0;
    chance.list(1..30, |chance| {
        time += *chance.pick(&[1_000, 20_000, 50_000]);
        (
            *chance.pick(&["visa-1", "visa-2"]),
            time,
            *chance.pick(&[0.5, 20.0, 900.0]),
        )
    })
}

fn suspects(payments: &[Payment]) -> Vec<(String, String)> {
    let mut tries = HashMap::new();
    let mut suspects = Vec::new();
    for (card, time, amount) in payments {
        if *amount < 1.0 {
            tries.insert(card, time + super::jobs::fraud::MINUTE_MS);
        } else if *amount >= 500.0 && tries.remove(card).is_some_and(|until| *time < until) {
            suspects.push((
                (*card).to_owned(),
                format!("{card} paid {amount} after a try"),
            ));
        }
    }
    suspects
}

#[test]
fn every_theft_is_told_once() {
    crash_test(super::jobs::fraud::job)
        .inputs(payments, |bed, (card, time, amount)| {
            bed.send_value("payments", format!("{card} {time} {amount}").as_str());
        })
        .partitions("payments", 1)
        .expect::<str, str>("suspects", suspects)
        .run();
}
