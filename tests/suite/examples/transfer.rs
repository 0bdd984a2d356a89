//! No cent is made or lost, whatever happens to the job.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::testing::crash_test;

use crate::support::transfers::example::{Account, keep_accounts};

fn transfers() -> Launch {
    let job = Job::new("transfer");
    keep_accounts(&job, "transfers", "balances");
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

#[test]
fn no_cent_is_made_or_lost() {
    crash_test(transfers)
        .inputs(
            |chance| {
                let names = ["ada", "bob", "eve"];
                chance.list(1..30, |chance| {
                    let (from, to) = (*chance.pick(&names), *chance.pick(&names));
                    format!("{from} {to} {}", chance.below(100))
                })
            },
            |bed, line| bed.send_value("transfers", line.as_str()),
        )
        .check(|bed, lines| {
            let rows = bed.rows::<str, str>("balances");
            assert_eq!(rows.len(), 2 * lines.len(), "two sides of each transfer");
            let mut last = BTreeMap::new();
            for row in rows {
                let account: Account = serde_json::from_str(&row.value.unwrap()).unwrap();
                last.insert(row.key, account.balance);
            }
            assert_eq!(last.values().sum::<i64>(), 0);
        })
        .run();
}
