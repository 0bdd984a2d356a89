//! How are events counted once that a producer sends again?
//!
//! ```text
//! onceflow topic create events --data ./data
//! printf 'e1 1000 ann\ne1 1000 ann\ne2 2000 bob\n' | onceflow produce events --data ./data
//! cargo run --release --example dedupe_events -- --data ./data      (stop it with Ctrl-C)
//! onceflow consume events-once --from beginning --data ./data
//! ```
//! An event is an id, a time in milliseconds, and a user. Ids are remembered for an hour of event time.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;

type Event = (String, i64, String);

fn parse(line: &str) -> anyhow::Result<Event> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [id, time, user] = words[..] else {
        anyhow::bail!("{line:?} is no event: write ID MILLISECONDS USER");
    };
    Ok((id.to_owned(), time.parse()?, user.to_owned()))
}

pub(crate) fn job() -> Launch {
    let job = Job::new("dedupe-events");
    job.source(topic::<str>("events").codec(Text))
        .try_map(parse)
        .event_time(
            |(_, time, _)| *time,
            Watermarks::out_of_order(Duration::from_secs(60)),
        )
        .key_by_ref(|event: &Event| event.2.as_str())
        .dedupe("seen", |(id, _, _)| id.clone())
        .within(Duration::from_secs(3600))
        .map(|(id, _, _)| id.clone())
        .sink(topic("events-once").codec(Text));
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = JobArguments::from_env()?.open_log()?;
    job().run(&log).await?;
    log.close()?;
    Ok(())
}
