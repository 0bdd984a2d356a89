//! Which cards pay a little and then, within a minute, a lot? A thief tries a card before he empties it.
//!
//! ```text
//! onceflow topic create payments --data ./data
//! printf 'visa-7 1000 0.50\nvisa-7 31000 900\n' | onceflow produce payments --data ./data
//! cargo run --release --example fraud -- --data ./data      (stop it with Ctrl-C)
//! onceflow consume suspects --from beginning --data ./data
//! onceflow consume cleared --from beginning --data ./data
//! ```
//! A payment is a card, its time in milliseconds, and an amount. A card that tried a little and paid nothing big for a minute is cleared.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::{Due, Launch, Side};
use onceflow::types::Timestamp;

pub(crate) type Payment = (String, i64, f64);
pub(crate) const MINUTE_MS: i64 = 60_000;

fn parse(line: &str) -> anyhow::Result<Payment> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [card, time, amount] = words[..] else {
        anyhow::bail!("{line:?} is no payment: write CARD MILLISECONDS AMOUNT");
    };
    Ok((card.to_owned(), time.parse()?, amount.parse()?))
}

/// Remembers until when each card that tried a little is watched.
struct Watch {
    cards: TimedStore<i64>,
    cleared: Side<str, String>,
}

impl Operator<str, Payment> for Watch {
    type OutKey = str;
    type Out = String;
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process(
        &mut self,
        payment: Record<'_, str, Payment>,
        out: &mut impl Output<str, String>,
    ) -> Flow {
        let (card, time, amount) = payment.value;
        if *amount < 1.0 {
            let until = time + MINUTE_MS;
            self.cards.update(payment.key, |it| *it = Some(until))?;
            return self.cards.set_timer(payment.key, Timestamp(until));
        }
        if *amount >= 500.0 {
            let tried = self.cards.update(payment.key, Option::take)?;
            if tried.is_some_and(|until| *time < until) {
                out.push(payment.with_value(&format!("{card} paid {amount} after a try")))?;
            }
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: Timestamp, _: &mut impl Output<str, String>) -> Flow {
        let mut due = Due::default();
        while self.cards.next_due(watermark, &mut due)?.is_some() {
            let is_over = |it: &mut Option<i64>| it.take_if(|until| *until == due.time.0).is_some();
            if self.cards.update(due.key::<str>(), is_over)? {
                let card = due.key::<str>().decode()?.into_owned();
                self.cleared.push(Record::at(due.key(), &card, due.time))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn job() -> Launch {
    let disorder = Watermarks::out_of_order(Duration::from_secs(5));
    let job = Job::new("fraud");
    let payments = job
        .source(topic::<str>("payments").codec(Text))
        .try_map(parse)
        .event_time(|(_, time, _)| *time, disorder)
        .key_by_ref(|payment: &Payment| payment.0.as_str())
        .with_timed_store::<i64>("cards");
    let (to_cleared, cleared) = payments.side_output::<str, String>("cleared");
    let suspects = payments.process("watch", move |context| {
        let (cards, cleared) = (context.timed_store("cards")?, context.side(&to_cleared)?);
        Ok(Watch { cards, cleared })
    });
    suspects.sink(topic("suspects").codec(Text));
    cleared.sink(topic("cleared").codec(Text));
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = JobArguments::from_env()?.open_log()?;
    job().run(&log).await?;
    log.close()?;
    Ok(())
}
