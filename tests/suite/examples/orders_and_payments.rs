//! Every order is settled once, whatever happens to the job.

use std::collections::BTreeSet;

use onceflow::testing::{Chance, crash_test};

/// Orders with their numbers, each paid or not, some of them unreadable.
fn lines(chance: &mut Chance) -> Vec<(&'static str, String)> {
    let mut number = 0;
    chance.list(1..30, |chance| {
        number += 1;
        let time = number * 600_000;
        match chance.below(4) {
            0 => ("orders", "no order".to_owned()),
            1 => ("payments", format!("{} {time} 250", chance.below(number))),
            _ => ("orders", format!("{number} {time} tea")),
        }
    })
}

#[test]
fn every_order_is_settled_once() {
    crash_test(|| super::jobs::orders_and_payments::job().unwrap())
        .inputs(lines, |bed, (topic, line)| {
            bed.send_value(topic, line.as_str())
        })
        .check(|bed, lines| {
            let settled = bed.rows::<[u8], str>("settled");
            let unpaid = settled
                .iter()
                .filter_map(|row| row.value.as_deref()?.strip_suffix(" not paid"));
            let unpaid: Vec<&str> = unpaid.collect();
            assert_eq!(
                unpaid.len(),
                unpaid.iter().collect::<BTreeSet<_>>().len(),
                "told twice: {unpaid:?}"
            );
            let unreadable = lines.iter().filter(|line| line.1 == "no order").count();
            assert_eq!(bed.rows::<[u8], str>("unreadable").len(), unreadable);
        })
        .run();
}
