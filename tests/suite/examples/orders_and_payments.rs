//! Every order is settled once, whatever happens to the job.

use onceflow::testing::{Chance, crash_test};

const HOUR_MS: i64 = 3_600_000;
const DISORDER_MS: i64 = 10_000;

/// A line as it is sent, and what it is.
#[derive(Debug, Clone, Copy)]
enum Line {
    Order(u64, i64),
    Payment(u64, i64, u64),
    Unreadable,
}

/// Orders with their numbers, each paid or not, or twice, some of them too late; some lines are unreadable. The last two are much
/// later, so that all others are settled.
fn lines(chance: &mut Chance) -> Vec<Line> {
    let (mut number, mut time) = (0, 0);
    let mut lines = chance.list(1..30, |chance| {
        time += *chance.pick(&[60_000, 600_000]);
        match chance.below(5) {
            0 => Line::Unreadable,
            1 | 2 => Line::Payment(chance.below(number + 2), time, 100 + chance.below(100)),
            _ => {
                number += 1;
                Line::Order(number, time)
            }
        }
    });
    lines.push(Line::Order(1_000, time + 3 * HOUR_MS));
    lines.push(Line::Payment(2_000, time + 3 * HOUR_MS, 7));
    lines
}

fn send(line: Line) -> (&'static str, String) {
    match line {
        Line::Order(number, time) => ("orders", format!("{number} {time} tea")),
        Line::Payment(number, time, cents) => ("payments", format!("{number} {time} {cents}")),
        Line::Unreadable => ("orders", "no order".to_owned()),
    }
}

/// Everything that is settled by the time of the topic that is behind.
fn settled(lines: &[Line]) -> Vec<String> {
    let (mut orders, mut payments) = (Vec::new(), Vec::new());
    for line in lines {
        match *line {
            Line::Order(number, time) => orders.push((number, time)),
            Line::Payment(number, time, cents) => payments.push((number, time, cents)),
            Line::Unreadable => {}
        }
    }
    let newest = (orders.last().map(|it| it.1)).min(payments.last().map(|it| it.1));
    let now = newest.map_or(i64::MIN, |newest| newest - DISORDER_MS);
    let belong = |order: &(u64, i64), payment: &(u64, i64, u64)| {
        order.0 == payment.0 && (order.1..=order.1 + HOUR_MS).contains(&payment.1)
    };
    let mut told = Vec::new();
    for order in &orders {
        let (number, time) = *order;
        let mut paid = payments.iter().filter(|it| belong(order, it)).peekable();
        if paid.peek().is_none() && time + HOUR_MS < now {
            told.push(format!("{number}: tea not paid"));
        }
        let paid = paid.filter(|payment| payment.1 < now);
        told.extend(paid.map(|payment| format!("{number}: tea paid with {}", payment.2)));
    }
    for payment in &payments {
        let (number, time, cents) = *payment;
        if time < now && !orders.iter().any(|order| belong(order, payment)) {
            told.push(format!("{number}: {cents} without an order"));
        }
    }
    told.sort();
    told
}

#[test]
fn every_order_is_settled_once() {
    crash_test(|| super::jobs::orders_and_payments::job().unwrap())
        .inputs(lines, |bed, line| {
            let (topic, line) = send(*line);
            bed.send_value(topic, line.as_str());
        })
        // With one partition each it is known how far time has come.
        .partitions("orders", 1)
        .partitions("payments", 1)
        .check(|bed, lines| {
            let rows = bed.rows::<[u8], str>("settled").into_iter();
            let mut told: Vec<String> = rows.filter_map(|row| row.value).collect();
            told.sort();
            assert_eq!(told, settled(lines));
            let is_unreadable = |line: &&Line| matches!(line, Line::Unreadable);
            let unreadable = lines.iter().filter(is_unreadable).count();
            let letters = bed.rows::<[u8], str>("unreadable").into_iter();
            let letters: Vec<_> = letters.filter_map(|row| row.value).collect();
            assert_eq!(letters, vec!["no order"; unreadable]);
        })
        .run();
}
