//! Which orders were paid within an hour, which were not, and which payments have no order?
//!
//! ```text
//! onceflow topic create orders --data ./data; onceflow topic create payments --data ./data
//! printf '7 1000 tea\n8 2000 rum\n9 9000000 jam\nno order\n' | onceflow produce orders --data ./data
//! printf '7 5000 250\n9 9000500 199\n' | onceflow produce payments --data ./data
//! cargo run --release --example orders_and_payments -- --data ./data      (stop it with Ctrl-C)
//! onceflow consume settled --from beginning --data ./data
//! onceflow consume unreadable --from beginning --data ./data
//! ```
//! A line is a number of an order, a time in milliseconds, and the goods or cents. Lines that are none go to `unreadable`, and can be
//! mended and given back with `onceflow letters`.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::TopicName;

type Line = (u64, i64, String);

const HOUR: Duration = Duration::from_secs(3600);

fn parse(line: &str) -> anyhow::Result<Line> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [number, time, what] = words[..] else {
        anyhow::bail!("{line:?} is no line: write NUMBER MILLISECONDS WHAT");
    };
    Ok((number.parse()?, time.parse()?, what.to_owned()))
}

fn tell(order: Option<&Line>, payment: Option<&Line>) -> String {
    match (order, payment) {
        (Some((number, _, goods)), Some((_, _, cents))) => {
            format!("{number}: {goods} paid with {cents}")
        }
        (Some((number, _, goods)), None) => format!("{number}: {goods} not paid"),
        (None, Some((number, _, cents))) => format!("{number}: {cents} without an order"),
        (None, None) => String::new(),
    }
}

pub(crate) fn job() -> anyhow::Result<Launch> {
    let job = Job::new("orders-and-payments");
    let read = |name: &str| {
        job.source(topic::<str>(name).codec(Text))
            .try_map(parse)
            .event_time(
                |(_, time, _)| *time,
                Watermarks::out_of_order(Duration::from_secs(10)),
            )
            .key_by(|(number, _, _)| *number)
    };
    read("orders")
        .join("settle", read("payments"))
        .within(Duration::ZERO, HOUR)
        .outer(tell)
        .entries(|_, told| told.clone())
        .sink(topic("settled").codec(Text));
    let unreadable = PoisonPolicy::DeadLetter(TopicName::new("unreadable")?);
    Ok(job
        .exactly_once(Commit::every(Duration::from_millis(100)))
        .on_poison(unreadable))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = JobArguments::from_env()?.open_log()?;
    job()?.run(&log).await?;
    log.close()?;
    Ok(())
}
