//! Word count from the topic `lines` to the topic `word-counts`, exactly once:
//! `cargo run --release --example word_count_topic -- --data DIR|--log kafka://HOST:PORT`.
//! Several processes share the work on Kafka, each with a name of its own: `--instance NAME` (`--standbys COUNT`).

use std::time::Duration;

use onceflow::prelude::*;

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = JobArguments::from_env()?;
    let log = arguments.open_log()?;
    let job = Job::new("word-count-topic");
    job.source(topic::<str>("lines").codec(Text))
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    let launch = job.exactly_once(Commit::every(Duration::from_millis(100)));
    arguments.spread(launch).run(&log).await?;
    log.close()?;
    Ok(())
}
