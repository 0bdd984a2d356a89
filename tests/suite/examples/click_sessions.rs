//! Every visit is told once, whatever happens to the job.

use super::jobs::click_sessions::{DISORDER_MS, GAP_MS, job};
use onceflow::testing::{Chance, crash_test};

/// Clicks, some of them out of order by less than the job allows: such a one may put two visits together.
fn clicks(chance: &mut Chance) -> Vec<(&'static str, i64)> {
    let mut time = 10_000;
    chance.list(1..30, |chance| {
        time += *chance.pick(&[1_000, 600_000, GAP_MS + 2_000, 1_900_000]);
        let behind = *chance.pick(&[0, 0, DISORDER_MS - 1_000]);
        (*chance.pick(&["ann", "bob"]), time - behind)
    })
}

/// The visits that are over.
fn visits(clicks: &[(&'static str, i64)]) -> Vec<String> {
    let newest = clicks.iter().map(|click| click.1).max().unwrap_or(0);
    let now = newest - DISORDER_MS;
    let mut visits = Vec::new();
    for user in ["ann", "bob"] {
        let of_user = clicks.iter().filter(|click| click.0 == user);
        let mut times: Vec<i64> = of_user.map(|click| click.1).collect();
        times.sort_unstable();
        for visit in times.chunk_by(|a, b| b - a <= GAP_MS) {
            let (first, last) = (visit[0], visit[visit.len() - 1]);
            if last + GAP_MS < now {
                visits.push(format!(
                    "{user} saw {} pages in {} s",
                    visit.len(),
                    (last - first) / 1000
                ));
            }
        }
    }
    visits.sort();
    visits
}

#[test]
fn every_visit_is_told_once() {
    crash_test(job)
        .inputs(clicks, |bed, (user, time)| {
            bed.send_value("clicks", format!("{user} {time} home").as_str())
        })
        .partitions("clicks", 1)
        .check(|bed, clicks| {
            let rows = bed.rows::<[u8], str>("visits").into_iter();
            let mut told: Vec<String> = rows.filter_map(|row| row.value).collect();
            told.sort();
            assert_eq!(told, visits(clicks));
        })
        .run();
}
