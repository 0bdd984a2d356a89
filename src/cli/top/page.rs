//! The page of `onceflow top`: a view of a job, as text.

use std::cmp::Reverse;

use serde_json::Value;

use crate::cli::output::{self, Table, printable};
use crate::cli::time;
use crate::types::Timestamp;

/// The rows of a table that are shown; a job may have thousands of splits.
const ROWS_MAX: usize = 20;

/// The view as lines. With the one `before`, rates are those in between; else those since the process began.
pub(super) fn text(view: &Value, before: Option<&Value>) -> String {
    let tables = [
        commits(view),
        splits(view),
        workers(view, before),
        stores(view),
    ];
    let parts = [Some(head(view, before))].into_iter().chain(tables);
    parts.flatten().collect::<Vec<_>>().join("\n")
}

fn head(view: &Value, before: Option<&Value>) -> String {
    let totals = |view: &Value, name: &str| number(&view["totals"][name]);
    let rate = |name: &str| {
        let (now, then) = (totals(view, name), before.map_or(0, |it| totals(it, name)));
        let since = match before {
            Some(before) => &before["now"],
            None => &view["lives"][0]["began"],
        };
        let millis = number(&view["now"]).saturating_sub(number(since)).max(1);
        now.saturating_sub(then).saturating_mul(1000) / millis
    };
    let counts = [
        format!(
            "records {} ({}/s)",
            output::grouped(totals(view, "records")),
            output::grouped(rate("records"))
        ),
        format!(
            "commits {} ({}/s)",
            output::grouped(totals(view, "commits")),
            output::grouped(rate("commits"))
        ),
        format!("late {}", output::grouped(totals(view, "late_records"))),
        format!(
            "dead letters {}",
            output::grouped(totals(view, "dead_letters"))
        ),
        format!("restarts {}", output::grouped(totals(view, "restarts"))),
    ];
    format!(
        "{}  {}  onceflow {}\n{}\n\n{}\n",
        said(&view["job"]),
        said(&view["phase"]),
        said(&view["version"]),
        said(&view["sentence"]),
        counts.join("   ")
    )
}

/// The phases of the last commits, in milliseconds.
fn commits(view: &Value) -> Option<String> {
    const PHASES: [&str; 7] = [
        "drain",
        "flush",
        "positions",
        "sync",
        "decide",
        "markers",
        "apply",
    ];
    let cycles = view["cycles"].as_array().filter(|all| !all.is_empty())?;
    let header = [&["commit, ms"][..], &PHASES, &["whole"]].concat();
    let mut table = Table::new(&header);
    let micros = |cycle: &Value, phase: &str| number(&cycle[format!("{phase}_micros")]);
    let whole = |cycle: &Value| PHASES.iter().map(|phase| micros(cycle, phase)).sum::<u64>();
    for (name, percent) in [("half below", 50), ("99 % below", 99), ("slowest", 100)] {
        let of = |measure: &dyn Fn(&Value) -> u64| {
            let mut all: Vec<u64> = cycles.iter().map(measure).collect();
            all.sort_unstable();
            let place = (all.len() * percent).div_ceil(100).max(1) - 1;
            millis(all[place])
        };
        let [drain, flush, positions, sync, decide, markers, apply] =
            PHASES.map(|phase| of(&|it| micros(it, phase)));
        table.row([
            name.to_owned(),
            drain,
            flush,
            positions,
            sync,
            decide,
            markers,
            apply,
            of(&whole),
        ]);
    }
    Some(lines(&table, 0))
}

/// The splits, those that are furthest behind first.
fn splits(view: &Value) -> Option<String> {
    let mut all: Vec<&Value> = view["splits"].as_array()?.iter().collect();
    if all.is_empty() {
        return None;
    }
    all.sort_by_key(|split| Reverse(number(&split["lag"])));
    let mut table = Table::new(&["source", "split", "position", "end", "lag", "time", "state"]);
    for split in all.iter().take(ROWS_MAX) {
        let holds_time = split["holds_time"].as_bool().unwrap_or(false);
        let state = [
            Some(said(&split["state"])),
            holds_time.then(|| "holds time".to_owned()),
            split["held_by"]
                .as_str()
                .map(|by| format!("held by {}", printable(by))),
        ];
        let state: Vec<String> = state.into_iter().flatten().collect();
        table.row([
            said(&split["source"]),
            said(&split["split"]),
            counted(&split["position"]),
            counted(&split["last_stable_offset"]),
            counted(&split["lag"]),
            event_time(&split["watermark"]),
            state.join(", "),
        ]);
    }
    Some(lines(&table, all.len().saturating_sub(ROWS_MAX)))
}

/// Shows how workers spend their time, in percent.
fn workers(view: &Value, before: Option<&Value>) -> Option<String> {
    let all = view["workers"].as_array().filter(|all| !all.is_empty())?;
    let mut table = Table::new(&["worker", "busy %", "blocked %", "idle %", "queue"]);
    for worker in all.iter().take(ROWS_MAX) {
        let same = |other: &&Value| other["worker"] == worker["worker"];
        let earlier = before.and_then(|it| it["workers"].as_array()?.iter().find(same));
        let spent = ["busy_micros", "blocked_micros", "idle_micros"].map(|name| {
            let then = earlier.map_or(0, |it| number(&it[name]));
            number(&worker[name]).saturating_sub(then)
        });
        let whole = spent.iter().sum::<u64>().max(1);
        let [busy, blocked, idle] = spent.map(|it| (it.saturating_mul(100) / whole).to_string());
        table.row([
            number(&worker["worker"]).to_string(),
            busy,
            blocked,
            idle,
            output::bytes(number(&worker["queue_bytes"])),
        ]);
    }
    Some(lines(&table, all.len().saturating_sub(ROWS_MAX)))
}

fn stores(view: &Value) -> Option<String> {
    let all = view["stores"].as_array().filter(|all| !all.is_empty())?;
    let header = [
        "store",
        "rows in memory",
        "memory",
        "dirty",
        "rows on disk",
        "disk",
        "tail",
        "hits %",
    ];
    let mut table = Table::new(&header);
    for store in all.iter().take(ROWS_MAX) {
        table.row([
            said(&store["name"]),
            counted(&store["rows_in_memory"]),
            output::bytes(number(&store["memory_bytes"])),
            output::bytes(number(&store["dirty_bytes"])),
            counted(&store["rows_on_disk"]),
            output::bytes(number(&store["disk_bytes"])),
            output::bytes(number(&store["tail_bytes"])),
            hits_percent(store),
        ]);
    }
    Some(lines(&table, all.len().saturating_sub(ROWS_MAX)))
}

/// The part of a store's reads that memory answered; none where all rows are in memory.
fn hits_percent(store: &Value) -> String {
    let (hits, misses) = (number(&store["hits"]), number(&store["misses"]));
    let percent = hits
        .saturating_mul(100)
        .checked_div(hits.saturating_add(misses));
    percent.map_or_else(|| "-".to_owned(), |it| it.to_string())
}

fn lines(table: &Table, left_out: usize) -> String {
    let mut text = table.lines();
    if left_out > 0 {
        text.push_str(&format!("and {left_out} more\n"));
    }
    text
}

/// A number, 0 where there is none.
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn counted(value: &Value) -> String {
    value
        .as_u64()
        .map_or_else(|| "-".to_owned(), output::grouped)
}

/// Text of the job's, which cannot move the cursor.
fn said(value: &Value) -> String {
    printable(value.as_str().unwrap_or("-")).into_owned()
}

fn millis(micros: u64) -> String {
    format!("{}.{}", micros / 1000, micros % 1000 / 100)
}

fn event_time(millis: &Value) -> String {
    match millis.as_i64().map(Timestamp) {
        None => "-".to_owned(),
        Some(Timestamp::MAX) => "ended".to_owned(),
        Some(at) => time::format(at),
    }
}
