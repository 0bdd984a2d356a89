//! How long does each visit last, and how many pages does it see? A visit ends after half an hour without a click.
//!
//! ```text
//! onceflow topic create clicks --data ./data
//! printf 'ann 1000 home\nann 61000 cart\nbob 9000000 home\n' | onceflow produce clicks --data ./data
//! cargo run --release --example click_sessions -- --data ./data      (stop it with Ctrl-C)
//! onceflow consume visits --from beginning --data ./data
//! ```
//! A click is a user, its time in milliseconds, and a page. Ann's visit is over once time has come to Bob's click.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use serde::{Deserialize, Serialize};

type Click = (String, i64, String);

pub(crate) const GAP_MS: i64 = 30 * 60_000;
pub(crate) const DISORDER_MS: i64 = 5_000;

fn millis(count: i64) -> Duration {
    Duration::from_millis(count.unsigned_abs())
}

/// A visit so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Visit {
    pages: Vec<String>,
}

fn parse(line: &str) -> anyhow::Result<Click> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [user, time, page] = words[..] else {
        anyhow::bail!("{line:?} is no click: write USER MILLISECONDS PAGE");
    };
    Ok((user.to_owned(), time.parse()?, page.to_owned()))
}

pub(crate) fn job() -> Launch {
    let job = Job::new("click-sessions");
    job.source(topic::<str>("clicks").codec(Text))
        .try_map(parse)
        .event_time(
            |(_, time, _)| *time,
            Watermarks::out_of_order(millis(DISORDER_MS)),
        )
        .key_by_ref(|click: &Click| click.0.as_str())
        .window(SessionWindows::gap(millis(GAP_MS)))
        .aggregate(
            "visits",
            Visit::default,
            |visit: &mut Visit, (_, _, page)| visit.pages.push(page.clone()),
            |visit, other| visit.pages.extend(other.pages.iter().cloned()),
        )
        .entries(|user, visit| {
            // A session ends with its gap.
            let millis = user.window.end.0 - user.window.start.0 - 1 - GAP_MS;
            format!(
                "{} saw {} pages in {} s",
                user.key,
                visit.pages.len(),
                millis / 1000
            )
        })
        .sink(topic("visits").codec(Text));
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = JobArguments::from_env()?.open_log()?;
    job().run(&log).await?;
    log.close()?;
    Ok(())
}
