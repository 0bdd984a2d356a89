//! `onceflow letters`: lists, shows and gives back dead and late letters.

use std::path::Path;
use std::sync::{Arc, Mutex};

use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::Cli;
use crate::jobs::letters::{Kind, assert_counted, counting, texts};
use crate::jobs::support::{OFTEN, run};

/// A stopped job with ten letters in the topic `dead`, of the partition 0 of `in`.
fn with_letters() -> Cli {
    let cli = Cli::new();
    cli.ok("topic create in --partitions 1");
    cli.ok_with_input("produce in", texts(30).join("\n").as_bytes());
    run_job(&cli, false);
    cli
}

fn run_job(cli: &Cli, is_mended: bool) {
    let log = Log::embedded(cli.data()).unwrap();
    run(counting(Kind::Topic, Path::new(""), is_mended), &log).unwrap();
    if is_mended {
        assert_counted(&log, 30);
    }
    log.close().unwrap();
}

#[test]
fn letters_are_listed_shown_and_given_back_to_their_job() {
    let cli = with_letters();
    let listed = cli.ok("letters list --job parse");
    let line = |of: &str, text: &str| {
        let lines: Vec<&str> = of.lines().filter(|line| line.contains(text)).collect();
        lines.first().map(|line| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        line(&listed, "dead").unwrap()[..4],
        ["dead", "10", "0", "0"],
        "{listed}"
    );
    assert!(listed.contains("\"x27\": invalid digit"), "{listed}");
    let newest = cli.ok("--output json letters newest dead --count 2 --job parse");
    let newest: serde_json::Value = serde_json::from_str(&newest).unwrap();
    let newest = newest["letters"].as_array().unwrap();
    assert_eq!(newest.len(), 2);
    assert!(newest[0]["offset"].as_i64() > newest[1]["offset"].as_i64());
    assert_eq!(newest[0]["state"], "not replayed");
    let table = cli.ok("letters newest dead --job parse");
    assert_eq!(table.lines().count(), 11, "{table}");
    let shown = cli.ok("letters show dead 1 --job parse");
    for part in [
        "source: in-0, offset 3\n",
        "reason: \"x3\": invalid digit",
        "attempts: 1\n",
        "state: not replayed\n",
        "value: x3\nvalue (hex): 7833\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    assert!(
        cli.ok("letters replay dead --job parse --offsets 0-1")
            .contains("2 letters")
    );
    let rest = cli.ok("letters replay dead --job parse --source in");
    assert!(
        rest.contains("8 letters are given back to the job; 2 were before"),
        "{rest}"
    );
    assert!(
        cli.ok("letters show dead 1 --job parse")
            .contains("waits for the job")
    );
    let listed = cli.ok("letters list dead --job parse");
    assert_eq!(
        line(&listed, "dead").unwrap()[..4],
        ["dead", "10", "0", "10"],
        "{listed}"
    );
    run_job(&cli, true);
    let listed = cli.ok("letters list dead --job parse");
    assert_eq!(
        line(&listed, "dead").unwrap()[..4],
        ["dead", "10", "10", "0"],
        "{listed}"
    );
    let again = cli.fails("letters replay dead --job parse --all");
    assert!(again.contains("were replayed before"), "{again}");
    run_job(&cli, true);
}

#[test]
fn wrong_questions_about_letters_get_an_answer_that_says_what_to_do() {
    let cli = with_letters();
    for (line, said) in [
        (
            "letters list --job pars",
            "no job of this name has run on this log, but these have: parse.",
        ),
        ("letters list --job par:se", "but these have: parse."),
        (
            "letters list deed --job parse",
            "there is no topic \"deed\"",
        ),
        (
            "letters show dead 99 --job parse",
            "dead has no letter at 99; the nearest one is 0:9",
        ),
        (
            "letters show in 0 --job parse",
            "in has no letters at all: `onceflow letters list --job parse`",
        ),
        (
            "letters replay dead --job parse --reason nothing",
            "has none that fit",
        ),
        (
            "letters replay dead --job parse --all --time noon",
            "give own, now, or a time",
        ),
    ] {
        let told = cli.fails(line);
        assert!(told.contains(said), "{line}: {told}");
    }
    for line in [
        "letters list",
        "letters replay dead --job parse",
        "letters replay dead --job parse --offsets 9-3",
        "letters show dead x --job parse",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        assert_eq!(cli.run(&arguments).code, 2, "{line}");
    }
}

#[test]
fn letters_that_are_long_binary_or_of_others_and_topics_without_any_are_shown_for_what_they_are() {
    let cli = with_letters();
    assert_eq!(
        cli.ok("letters list in --job parse").lines().count(),
        2,
        "a table of one line, and no reasons"
    );
    let long = "ä".repeat(3_000);
    let headers = "--header onceflow.job=other --header onceflow.error=";
    let produce = |reason: &str, value: &[u8]| {
        cli.ok_with_input(&format!("produce dead {headers}{reason}"), value);
    };
    produce(&"why".repeat(90), long.as_bytes());
    produce("binary", b"\xff\xfe\x00");
    let listed = cli.ok("letters list dead --job parse");
    let shortened = format!("{}…", &"why".repeat(60)[..160]);
    assert!(listed.contains(&shortened), "{listed}");
    let last = cli.ok("consume dead --offset --max 100");
    let offsets: Vec<&str> = last
        .lines()
        .filter_map(|it| it.split('\t').next())
        .collect();
    let [.., long_at, binary_at] = offsets[..] else {
        panic!("{last}")
    };
    let shown = cli.ok(&format!("letters show dead {long_at} --job parse"));
    for part in [
        "state: of another job than parse\n",
        "ä… and 3952 bytes more: --whole shows them\n",
        "c3a4… and 3952 bytes more: --whole shows them\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    let whole = cli.ok(&format!("letters show dead {long_at} --job parse --whole"));
    assert!(whole.contains(&format!("value: {long}\n")), "{whole}");
    let binary = cli.ok(&format!("letters show dead {binary_at} --job parse"));
    assert!(binary.contains("value (hex): fffe00\n"), "{binary}");
    let offset = |place: &str| place.trim_start_matches("0:").to_owned();
    let (first, last) = (offset(long_at), offset(binary_at));
    let refused = cli.fails(&format!(
        "letters replay dead --job parse --offsets {first}-{last}"
    ));
    assert!(
        refused.contains("dead has 2 that fit, and all of them are of other jobs"),
        "{refused}"
    );
}

/// A job whose mails to addresses with an `x` cannot be delivered, until that is mended.
fn mails(is_mended: bool, told: &Arc<Mutex<Vec<String>>>) -> Launch {
    let job = Job::new("mails");
    let told = Arc::clone(told);
    let again = job.replayed::<String, String>("undeliverable");
    job.source(topic::<str>("in").until_end())
        .key_by(|text: &str| text.to_owned())
        .map(|text: &str| format!("to {text}"))
        .merge(again)
        .effect(
            "mail",
            EffectPolicy::parallel(4),
            move |effect: Effect<String, String>| {
                let told = Arc::clone(&told);
                async move {
                    if effect.key.starts_with('x') && !is_mended {
                        return Delivery::never("no such address");
                    }
                    told.lock().unwrap().push(effect.value);
                    Delivery::Done
                }
            },
        )
        .sink(topic("undeliverable").keep_headers());
    job.exactly_once(Commit::every(OFTEN)).state_partitions(4)
}

#[test]
fn o11_effects_that_can_never_be_delivered_are_letters_that_go_back_to_their_step() {
    let cli = Cli::new();
    cli.ok("topic create in --partitions 1");
    cli.ok_with_input("produce in", texts(30).join("\n").as_bytes());
    let told = Arc::default();
    let run_job = |is_mended| {
        let log = Log::embedded(cli.data()).unwrap();
        run(mails(is_mended, &told), &log).unwrap();
        log.close().unwrap();
    };
    run_job(false);
    assert_eq!(told.lock().unwrap().len(), 20);
    let listed = |numbers: [&str; 3]| {
        let listed = cli.ok("letters list --job mails");
        let line = listed.lines().find(|it| it.starts_with("undeliverable"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        assert_eq!(words[1..4], numbers, "{listed}");
        assert!(listed.contains("no such address"), "{listed}");
    };
    listed(["10", "0", "0"]);
    let shown = cli.ok("letters show undeliverable 0 --job mails --value-format bincode-string");
    for part in [
        "failed outside\n",
        "reason: no such address\n",
        "idempotency key: mails/",
        "state: not replayed\n",
        "value: to x",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    // One goes back too early, and is a new letter.
    let asked = cli.ok("letters replay undeliverable --job mails --partition 0 --offsets 0");
    assert!(asked.contains("1 letter is given back"), "{asked}");
    run_job(false);
    listed(["11", "1", "0"]);
    let asked = cli.ok("letters replay undeliverable --job mails --reason address");
    assert!(
        asked.contains("10 letters are given back to the job; 1 was before"),
        "{asked}"
    );
    listed(["11", "1", "10"]);
    run_job(true);
    listed(["11", "11", "0"]);
    let mut told = told.lock().unwrap().clone();
    told.sort();
    let mut expected: Vec<String> = texts(30).iter().map(|it| format!("to {it}")).collect();
    expected.sort();
    assert_eq!(told, expected, "each once");
}
