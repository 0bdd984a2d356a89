//! How many clicks has each user in each minute, in whatever order they come?
//!
//! ```text
//! printf 'ann 1000\nbob 2000\nann 61000\n' | cargo run --release --example clicks_per_minute -- --data ./data
//! cargo run --release --features cli -- consume clicks-per-minute --data ./data
//! ```
//! A line is a user and a time in milliseconds. Clicks are up to five seconds out of order; those that are later go to the topic
//! `late-clicks`. The end of the input closes the last minute.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::{Launch, Lines};

type Click = (String, i64);

fn parse(line: &str) -> Result<Click, String> {
    let (user, millis) = line
        .split_once(' ')
        .ok_or("a line is a user, a space, and milliseconds")?;
    let millis = millis
        .parse()
        .map_err(|e| format!("{millis:?} is no time in milliseconds: {e}"))?;
    Ok((user.to_owned(), millis))
}

pub(crate) fn job(lines: Lines) -> Launch {
    let job = Job::new("clicks-per-minute");
    let (clicks, late) = job
        .source(lines)
        .try_map(parse)
        .event_time(
            |(_, millis)| *millis,
            Watermarks::out_of_order(Duration::from_secs(5)),
        )
        .key_by_ref(|(user, _): &Click| user)
        .window(FixedWindows::tumbling(Duration::from_secs(60)))
        .late();
    late.entries(|user, (_, millis)| format!("{user} {millis}"))
        .sink(topic("late-clicks").codec(Text));
    clicks
        .count("per-minute")
        .entries(|user, clicks| format!("{} {} {clicks}", user.window.start, user.key))
        .sink(topic("clicks-per-minute").codec(Text));
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = JobArguments::from_env()?;
    let log = arguments.open_log()?;
    job(arguments.lines()).run(&log).await?;
    log.close()?;
    Ok(())
}
