//! Jobs that write clicks to tables, and what the tables must hold.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::runtime::postgres::{Postgres, postgres};

use super::server::Server;
use crate::time::support::{Click, click, ms, parse};

pub(super) const TABLES: &str = "CREATE TABLE clicks (number bigint NOT NULL, user_name text NOT NULL); \
     CREATE TABLE latest (user_name text PRIMARY KEY, number bigint, text text)";

fn clicks_of(job: &Job, is_endless: bool) -> Keyed<String, Click> {
    let input = topic::<str>("in");
    job.source(if is_endless { input } else { input.until_end() })
        .try_map(parse)
        .key_by(|(user, _): &Click| user.clone())
        .boxed()
}

/// A table of clicks that only grows.
pub(super) fn appended(server: &str) -> Postgres<String, Click> {
    postgres(server, "clicks")
        .column("number", |click: &Record<'_, _, Click>| click.value.1)
        .key("user_name")
}

/// A table with a row a user: that of the latest click, unless its number is divisible by 7.
pub(super) fn replaced(server: &str) -> Postgres<String, Click> {
    postgres(server, "latest")
        .text("user_name", |click: &Click| &click.0)
        .column("number", |click| click.value.1)
        .column("text", |click| {
            (click.value.1 % 2 == 0).then(|| format!("{}'s \"{}\"", click.value.0, click.value.1))
        })
        .upsert_by(["user_name"])
        .delete_when(|click| click.value.1 % 7 == 0)
}

/// Writes clicks into a sink, through a step with state, without which there are no savepoints.
pub(super) fn writes(sink: Postgres<String, Click>, is_endless: bool) -> Launch {
    writes_every(sink, is_endless, ms(5))
}

pub(super) fn writes_every(
    sink: Postgres<String, Click>,
    is_endless: bool,
    interval: Duration,
) -> Launch {
    let job = Job::new("writes");
    let seen = clicks_of(&job, is_endless).stateful(
        "seen",
        |seen: &mut Option<u64>, click: &Click, results| {
            *seen = Some(seen.unwrap_or(0) + 1);
            results.push(click.clone());
        },
    );
    seen.sink(sink);
    job.exactly_once(Commit::every(interval))
        .state_partitions(8)
}

pub(super) fn clicks(first: i64, count: i64) -> Vec<Click> {
    let numbers = first..first + count;
    numbers
        .map(|it| click(&format!("u{}", it * it % 23), it))
        .collect()
}

/// The numbers of all clicks in the table, in order.
pub(super) fn numbers(server: &Server) -> Vec<i64> {
    let rows = server.ask("SELECT number FROM clicks ORDER BY number");
    rows.iter().map(|row| row.parse().unwrap()).collect()
}

/// The rows of `latest` by the definition.
pub(super) fn latest(clicks: &[Click]) -> Vec<String> {
    let mut rows = BTreeMap::new();
    for (user, number) in clicks {
        let text = match number % 2 {
            0 => format!("{user}'s \"{number}\""),
            _ => String::new(),
        };
        match number % 7 {
            0 => rows.remove(user),
            _ => rows.insert(user.clone(), format!("{user}|{number}|{text}")),
        };
    }
    rows.into_values().collect()
}

pub(super) fn latest_in(server: &Server) -> Vec<String> {
    server.ask("SELECT * FROM latest ORDER BY user_name")
}
