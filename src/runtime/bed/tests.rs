//! Rows on disk that come back after hours, in beds whose log is compacted meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use super::TestBed;
use crate::client::wait;
use crate::prelude::*;
use crate::types::TopicName;

const KEYS: u64 = 4;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A table, and the number of its rows: a row that comes back is taken out of it once too often.
fn bed(seed: u64) -> TestBed {
    let job = Job::new("kept");
    job.table("rows", keyed_topic::<u64, u64>("in"))
        .group_by(|_, _| (0u64, 1u64))
        .aggregate(
            "count",
            || 0i64,
            |count, _| *count += 1,
            |count, _| *count -= 1,
        )
        .changes()
        .sink(topic::<i64>("count").as_option());
    // Commits are asked for; those that come by themselves, in hours, are few.
    let launch = job.exactly_once(Commit::every(Duration::from_secs(300)));
    let launch = launch
        .state_partitions(1)
        .transaction_timeout(Duration::from_secs(900));
    let bed = TestBed::of(launch).seed(seed).partitions("in", 1).start();
    // Small segments, which compaction takes as soon as they are full.
    for store in ["rows", "count"] {
        let changelog = TopicName::new(&format!("kept-{store}-changelog")).unwrap();
        let changes = [
            ("segment.bytes", "300"),
            ("min.cleanable.dirty.ratio", "0"),
            ("delete.retention.ms", "3600000"),
        ];
        let changes = changes.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
        let transport = bed.log().transport();
        wait(transport.alter_configs(&changelog, changes.into())).unwrap();
    }
    bed
}

/// Each key gets new values, so that segments fill and are compacted.
fn write_on(bed: &mut TestBed, keys: std::ops::Range<u64>) {
    for round in 0..8 {
        for key in keys.clone() {
            bed.send("in", &key, &round);
        }
        bed.commit();
    }
}

fn count(bed: &mut TestBed) -> Option<i64> {
    bed.rows::<u64, i64>("count")
        .pop()
        .and_then(|row| row.value)
}

/// The records of the changelog of the rows, deletions as `None`.
fn last_changes(bed: &mut TestBed) -> BTreeMap<u64, Option<u64>> {
    let rows = bed.rows::<u64, u64>("kept-rows-changelog");
    rows.into_iter()
        .map(|row| (row.key.unwrap(), row.value))
        .collect()
}

#[test]
fn s6_rows_that_were_deleted_do_not_come_back_with_state_that_is_hours_old() {
    // A crash loses all files of the state with one seed of four.
    for seed in 0..4 {
        let mut bed = bed(seed);
        write_on(&mut bed, 0..KEYS);
        // A job that ends in order has all of it on disk.
        bed.stop();
        bed.crash();
        let old_disk = bed.instances[0].memory.clone();
        // Another process takes over, and works for hours. It deletes a row, and compaction lets the deletion go.
        bed.take_over();
        bed.send_delete("in", &3u64);
        for _ in 0..3 {
            write_on(&mut bed, 0..KEYS - 1);
            bed.advance(HOUR * 3 / 2);
        }
        assert_eq!(last_changes(&mut bed).get(&3), None, "the deletion is gone");
        assert_eq!(count(&mut bed), Some(3));
        // The first one comes back with what its disk had.
        bed.instances[0].memory = old_disk;
        bed.crash();
        bed.send("in", &3u64, &7u64);
        bed.commit();
        assert_eq!(count(&mut bed), Some(4), "seed {seed}");
    }
}
