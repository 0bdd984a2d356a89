//! A job's process stays within its bound of memory, however much state there is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use onceflow::broker::BrokerConfig;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::Durability;
use tempfile::TempDir;

/// Memory of the job: a quarter of its state.
const MEMORY_BYTES: usize = 64 << 20;
const KEYS_COUNT: u64 = 4 * (MEMORY_BYTES / VALUE_BYTES) as u64;
const VALUE_BYTES: usize = 1024;
/// State of next to no size: what the process takes with it is there without any.
const KEYS_COUNT_LITTLE: u64 = 100;
/// Names the child's directory.
const VARIABLE: &str = "ONCEFLOW_TEST_MEMORY";

#[test]
fn s12_a_process_with_four_times_its_bound_of_state_stays_within_the_bound_and_a_tenth() {
    let folder = TempDir::new().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("jobs::memory::child_says_what_it_takes")
        .env(VARIABLE, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}\n{child:?}");
    let number = |name: &str| -> usize {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name:?} in {said}"))
            .trim()
            .parse()
            .unwrap()
    };
    let (little, much) = (number("@little"), number("@much"));
    assert!(
        much <= little + MEMORY_BYTES / 10 * 11,
        "{} MiB with little state, {} MiB with much: more than the bound of {} MiB and a tenth between them",
        little >> 20,
        much >> 20,
        MEMORY_BYTES >> 20
    );
}

#[test]
#[ignore = "run by s12 in a process of its own"]
fn child_says_what_it_takes() {
    let Some(folder) = std::env::var_os(VARIABLE) else {
        return;
    };
    let folder = Path::new(&folder);
    run_job(&folder.join("little"), KEYS_COUNT_LITTLE);
    println!("\n@little {}", peak_bytes());
    run_job(&folder.join("much"), KEYS_COUNT);
    println!("\n@much {}", peak_bytes());
}

/// The most that this process ever had resident.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().trim_end_matches("kB").trim();
    kibibytes.parse::<usize>().unwrap() << 10
}

/// Gives each key a text, and a second one to every fourth.
fn run_job(data: &Path, keys: u64) {
    let config = BrokerConfig {
        durability: Durability::Process,
        ..BrokerConfig::default()
    };
    let log = Log::embedded_with(data, config).unwrap();
    let job = Job::new("memory");
    job.source(values("numbers", 0..keys + keys / 4))
        .key_by(move |number: &u64| number % keys)
        .aggregate("texts", String::new, |text, number| fill(text, *number))
        .changes()
        .filter(|text: &String| text.starts_with('A'))
        .map(|text: &String| text.len() as u64)
        .sink(topic("lengths"));
    let running = job
        .exactly_once(Commit::every(Duration::from_millis(100)))
        .memory_bytes(MEMORY_BYTES)
        .workers(2)
        .start(&log)
        .unwrap();
    wait(running.finished()).unwrap();
    log.close().unwrap();
}

/// Text that is another one for each number, and does not compress.
fn fill(text: &mut String, number: u64) {
    text.clear();
    let mut state = number;
    while text.len() < VALUE_BYTES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (0..8).for_each(|i| text.push(char::from(b'A' + (state >> (24 + 5 * i) & 0x1f) as u8)));
    }
}
