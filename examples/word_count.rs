//! How often does each word occur in these files?
//!
//! ```text
//! cargo run --release --example word_count -- --data ./data FILE…      (or --log kafka://HOST:PORT)
//! onceflow consume word-counts --key --value-format bincode-u64 --from beginning --data ./data
//! ```
//! `--follow` waits for the files to grow; without files the lines are those of standard input.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::{Launch, Lines};

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

pub(crate) fn job(lines: Lines) -> Launch {
    let job = Job::new("word-count");
    job.source(lines)
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
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
