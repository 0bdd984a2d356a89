//! Every event is there once, whatever happens to the job.

use std::collections::BTreeSet;

use onceflow::testing::crash_test;

#[test]
fn every_event_is_there_once() {
    crash_test(super::jobs::dedupe_events::job)
        .inputs(
            |chance| chance.list(1..40, |chance| chance.below(12)),
            // The time of an event follows from its id, as where it is sent again.
            |bed, id| bed.send_value("events", format!("e{id} {} ann", id * 1000).as_str()),
        )
        .partitions("events", 1)
        .check(|bed, ids| {
            let rows = bed.rows::<str, str>("events-once");
            let distinct: BTreeSet<_> = ids.iter().map(|id| Some(format!("e{id}"))).collect();
            assert_eq!(rows.len(), distinct.len());
            assert_eq!(
                rows.into_iter()
                    .map(|row| row.value)
                    .collect::<BTreeSet<_>>(),
                distinct
            );
        })
        .run();
}
