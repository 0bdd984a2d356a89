//! The lists of best sellers are right, whatever happens to the job.

use std::collections::{BTreeMap, HashMap};

use onceflow::testing::crash_test;

#[test]
fn the_lists_are_right_in_the_end() {
    crash_test(super::jobs::top_products::job)
        .inputs(
            |chance| {
                chance.list(1..40, |chance| {
                    *chance.pick(&[
                        "drinks tea",
                        "drinks rum",
                        "drinks milk",
                        "drinks gin",
                        "food jam",
                    ])
                })
            },
            |bed, sale| bed.send_value("sales", *sale),
        )
        .check(|bed, sales| {
            let rows = bed.rows::<String, str>("best-sellers");
            let last: BTreeMap<_, _> = rows.into_iter().map(|row| (row.key, row.value)).collect();
            let mut sold = HashMap::<_, u64>::new();
            for sale in sales {
                *sold.entry(*sale).or_default() += 1;
            }
            for (category, list) in last {
                let (category, list) = (category.unwrap(), list.unwrap());
                let list: Vec<(u64, String)> = serde_json::from_str(&list).unwrap();
                let mut counts: Vec<_> = sold
                    .iter()
                    .filter(|(sale, _)| sale.starts_with(&category))
                    .map(|(_, n)| *n)
                    .collect();
                counts.sort_unstable_by(|a, b| b.cmp(a));
                counts.truncate(3);
                assert_eq!(
                    list.into_iter().map(|(n, _)| n).collect::<Vec<_>>(),
                    counts,
                    "{category}"
                );
            }
        })
        .run();
}
