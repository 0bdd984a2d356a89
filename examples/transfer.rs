//! How much does each account hold after each transfer, with no cent made or lost?
//!
//! ```text
//! onceflow topic create transfers --data ./data; echo 'alice bob 5' | onceflow produce transfers --data ./data
//! cargo run --release --example transfer -- --data ./data      (or --log kafka://HOST:PORT; stop it with Ctrl-C)
//! onceflow consume balances --key --from beginning --data ./data
//! ```
//! Both sides of a transfer are in one transaction, so the sum of all balances is 0 in whatever a `read_committed` reader
//! sees. (Spread over several processes, each side is in a transaction of its own: then the sum is 0 once all is read.)

use std::time::Duration;

use onceflow::prelude::*;
use serde::{Deserialize, Serialize};

/// Balance of an account, and its transfers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) balance: i64,
    pub(crate) transfers: u64,
}

/// One side of a transfer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Side {
    account: String,
    amount: i64,
}

fn sides(line: &str) -> anyhow::Result<[Side; 2]> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [from, to, amount] = words[..] else {
        anyhow::bail!("`{line}` is not a transfer: write FROM TO AMOUNT");
    };
    let amount: u32 = amount.parse()?;
    let side = |account: &str, amount| Side {
        account: account.to_owned(),
        amount,
    };
    Ok([side(from, -i64::from(amount)), side(to, amount.into())])
}

/// Keeps the accounts of the transfers in one topic, and writes each change to another.
pub(crate) fn keep_accounts(job: &Job, transfers: &str, balances: &str) {
    job.source(topic::<str>(transfers))
        .try_map(sides)
        .flat_map_into(|sides: &[Side; 2]| sides.clone())
        .key_by_ref(|side: &Side| side.account.as_str())
        .aggregate(
            "accounts",
            Account::default,
            |account: &mut Account, side| {
                account.balance += side.amount;
                account.transfers += 1;
            },
        )
        .changes()
        .sink(topic(balances).codec(Json).partitions(1));
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = JobArguments::from_env()?.open_log()?;
    let job = Job::new("transfer");
    keep_accounts(&job, "transfers", "balances");
    job.exactly_once(Commit::every(Duration::from_millis(100)))
        .run(&log)
        .await?;
    log.close()?;
    Ok(())
}
