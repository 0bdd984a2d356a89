//! `onceflow letters`: lists, shows and gives back dead and late letters.

use std::path::Path;

use onceflow::prelude::*;

use super::Cli;
use crate::jobs::letters::{Kind, assert_counted, counting, texts};
use crate::jobs::support::run;

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
        ("letters list --job pars", "no job of this name has run"),
        (
            "letters list deed --job parse",
            "there is no topic \"deed\"",
        ),
        ("letters show dead 99 --job parse", "dead has no letter 99"),
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
