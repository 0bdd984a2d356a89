//! How often does each word occur in a topic, counted by one process or by many?
//!
//! ```text
//! onceflow topic create lines --data ./data; echo 'to be or not to be' | onceflow produce lines --data ./data
//! cargo run --release --example word_count_topic -- --data ./data      (or --log kafka://HOST:PORT; stop it with Ctrl-C)
//! onceflow consume word-counts --key --value-format bincode-u64 --from beginning --data ./data
//! ```
//! Several processes share the work on Kafka, each with a name of its own: `--instance NAME` (`--standbys COUNT`).

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

pub(crate) fn job() -> Launch {
    let job = Job::new("word-count-topic");
    job.source(topic::<str>("lines").codec(Text))
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
    arguments.spread(job()).run(&log).await?;
    log.close()?;
    Ok(())
}
