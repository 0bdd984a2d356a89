//! Every theft is told once, and every card that is cleared, whatever happens to the job.

use std::collections::BTreeMap;

use onceflow::testing::{Chance, crash_test};

use super::jobs::fraud::MINUTE_MS;

/// Payments are so much out of order at most, as the job has it.
const DISORDER_MS: i64 = 5_000;

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

/// Content of the topics of suspects and of cleared cards: a card, and what is told of it.
#[derive(Default)]
struct Told {
    suspects: Vec<(String, String)>,
    cleared: Vec<(String, String)>,
}

fn told(payments: &[Payment]) -> Told {
    let (mut told, mut watched) = (Told::default(), BTreeMap::new());
    for (card, time, amount) in payments {
        if *amount < 1.0 {
            watched.insert(card, time + MINUTE_MS);
        } else if *amount >= 500.0 && watched.remove(card).is_some_and(|until| *time < until) {
            let text = format!("{card} paid {amount} after a try");
            told.suspects.push(((*card).to_owned(), text));
        }
        // Times only grow here.
        let over = watched.extract_if(.., |_, until| *until <= time - DISORDER_MS);
        let over = over.map(|(card, _)| ((*card).to_owned(), (*card).to_owned()));
        told.cleared.extend(over);
    }
    told
}

#[test]
fn every_theft_is_told_once_and_every_cleared_card() {
    crash_test(super::jobs::fraud::job)
        .inputs(payments, |bed, (card, time, amount)| {
            bed.send_value("payments", format!("{card} {time} {amount}").as_str());
        })
        .partitions("payments", 1)
        .expect::<str, str>("suspects", |payments| told(payments).suspects)
        .expect::<str, str>("cleared", |payments| told(payments).cleared)
        .run();
}
