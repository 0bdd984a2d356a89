//! What does a table of a database hold now, by the changes that its connector writes?
//!
//! ```text
//! onceflow topic create changes --data ./data
//! printf '{"op":"c","id":"7","after":{"name":"Ann","city":"Rome"}}\n{"op":"d","id":"7"}\n' | onceflow produce changes --data ./data
//! cargo run --release --example cdc_table -- --data ./data      (stop it with Ctrl-C)
//! onceflow consume people --key --from beginning --data ./data
//! ```
//! Changes are as Debezium writes them, in short: `c` creates, `u` updates, `d` deletes, `r` is read by a snapshot. The topic `people` has the
//! last row of each id, and a record without a value where the row is deleted; a deletion of what is not there writes nothing.

use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use serde::{Deserialize, Serialize};

/// A change of a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RowChange {
    op: String,
    id: String,
    #[serde(default)]
    after: Option<Person>,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) city: String,
}

pub(crate) fn job() -> Launch {
    let job = Job::new("people");
    job.source(topic::<RowChange>("changes").codec(Json))
        .key_by_ref(|change: &RowChange| change.id.as_str())
        .update("people", |row: &mut Option<Person>, change: &RowChange| {
            *row = change.after.clone().filter(|_| change.op != "d");
        })
        .changes()
        .sink(topic::<Person>("people").codec(Json).as_option());
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = JobArguments::from_env()?.open_log()?;
    job().run(&log).await?;
    log.close()?;
    Ok(())
}
