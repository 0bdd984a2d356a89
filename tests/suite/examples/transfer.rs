//! No cent is made or lost, whatever happens to the job.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::testing::{CrashTest, crash_test};

use crate::support::transfers::example::{Account, keep_accounts};

/// The session of an instance, as short as a log allows.
const SESSION: Duration = Duration::from_secs(6);

fn transfers() -> Launch {
    let job = Job::new("transfer");
    keep_accounts(&job, "transfers", "balances");
    job.exactly_once(Commit::every(Duration::from_millis(100)))
}

/// The accounts after all transfers, in whatever order.
fn held_after(lines: &[String]) -> BTreeMap<String, Account> {
    let mut accounts = BTreeMap::<String, Account>::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let amount: i64 = words[2].parse().unwrap();
        for (name, change) in [(words[0], -amount), (words[1], amount)] {
            let account = accounts.entry(name.to_owned()).or_default();
            account.balance += change;
            account.transfers += 1;
        }
    }
    accounts
}

fn test(job: fn() -> Launch) -> CrashTest<String> {
    crash_test(job)
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
            let mut accounts = BTreeMap::<String, Account>::new();
            for row in rows {
                let account: Account = serde_json::from_str(&row.value.unwrap()).unwrap();
                let before = accounts.insert(row.key.unwrap(), account.clone());
                // In whatever order the transfers are read, each is one more.
                let before = before.unwrap_or_default().transfers;
                assert_eq!(account.transfers, before + 1);
            }
            assert_eq!(accounts, held_after(lines));
        })
}

#[test]
fn no_cent_is_made_or_lost() {
    test(transfers).run();
}

#[test]
fn c29_no_cent_is_made_or_lost_between_instances_that_come_and_go() {
    let test = test(|| {
        transfers().scale_out(
            ScaleOut::instance("host")
                .session_timeout(SESSION)
                .standbys(1),
        )
    });
    test.instances(3).seeds(20).run();
}
