//! A savepoint of a job at work with much state: how long it takes, how long the job stands still, and how long the way back takes.
//!
//! The job is that of `restart.rs`. The baseline is a plain copy of the savepoint's files, read and written in the same run.

use std::path::Path;
use std::time::Duration;

use super::report::Figure;
use super::restart::{COMMIT_INTERVAL, MEMORY_BYTES, VALUE_BYTES, launch};
use super::{Bench, millis};
use crate::broker::BrokerConfig;
use crate::cli::text::remove_tree;
use crate::client::wait;
use crate::env::{Env, OpenMode};
use crate::runtime::{Log, Running};

const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The job goes on for so long behind the savepoint, before it goes back.
const WORK: Duration = Duration::from_secs(2);
const COPY_BYTES: usize = 1 << 20;

/// Takes two savepoints, and goes back to the second.
pub(super) fn measure(bench: &Bench<'_>) -> anyhow::Result<Vec<Figure>> {
    // On the disk the log has them as well, and the copy.
    let keys = bench.scaled((bench.state_gib << 30) / VALUE_BYTES as u64);
    let (env, clock) = (bench.env, &bench.env.clock);
    let (data, path) = (
        bench.directory.join("data"),
        bench.directory.join("savepoint"),
    );
    let log = Log::in_env(env.clone(), &data, BrokerConfig::default())?;
    let running = launch(keys, MEMORY_BYTES).start(&log)?;
    work(env, &running, |position| position >= keys);
    // The first one brings to the disk what has not been there: what a job at work has to save is measured with the second.
    let first = bench.directory.join("first");
    wait(running.savepoint(&first))?;
    remove_tree(env, &first);
    let begin = clock.now();
    work(env, &running, |_| clock.now().since(begin) > WORK);
    let begin = clock.now();
    let savepoint = wait(running.savepoint(&path))?;
    let taken = clock.now().since(begin);
    let begin = clock.now();
    work(env, &running, |_| clock.now().since(begin) > WORK);
    wait(running.stop())?;

    let begin = clock.now();
    copy_tree(env, savepoint.path(), &bench.directory.join("copy"))?;
    let copied = millis(clock.now().since(begin));
    remove_tree(env, &bench.directory.join("copy"));
    let begin = clock.now();
    launch(keys, MEMORY_BYTES).restore(&log, &savepoint)?;
    let restored = clock.now().since(begin);
    let running = launch(keys, MEMORY_BYTES).start(&log)?;
    work(env, &running, |_| true);
    let at_work = clock.now().since(begin);
    wait(running.stop())?;
    log.close()?;
    let figure = |name: &str, took, baseline| {
        Figure::new(format!("savepoint.{name}"), millis(took), "ms").against(baseline)
    };
    Ok(vec![
        figure("taken", taken, copied),
        figure("job-held", savepoint.held(), millis(COMMIT_INTERVAL)),
        figure("restored", restored, copied),
        figure("restored-and-at-work", at_work, copied),
    ])
}

/// Waits until the job has committed, and `is_enough` of it.
fn work(env: &Env, running: &Running, is_enough: impl Fn(u64) -> bool) {
    let position = || {
        let positions = running.positions();
        let first = positions.values().next();
        first.and_then(|it| u64::try_from(it.0).ok())
    };
    while !running.is_finished() && !position().is_some_and(&is_enough) {
        env.clock.sleep(LOOK_EVERY);
    }
}

/// Copies a directory as `cp -r` and a sync would.
fn copy_tree(env: &Env, from: &Path, to: &Path) -> anyhow::Result<()> {
    env.files.create_dir(to)?;
    for entry in env.files.read_dir(from)? {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        if entry.is_dir {
            copy_tree(env, &from, &to)?;
            continue;
        }
        let (source, target) = (
            env.files.open(&from, OpenMode::Read)?,
            env.files.open(&to, OpenMode::CreateNew)?,
        );
        let (length, mut position) = (source.length_bytes()?, 0);
        let mut buffer = vec![0; COPY_BYTES];
        while position < length {
            let read = source.read_full_at(&mut buffer, position)?;
            target.write_all_at(&buffer[..read], position)?;
            position += read as u64;
        }
        target.sync_data()?;
    }
    Ok(())
}
