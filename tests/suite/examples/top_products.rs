//! The lists of best sellers are right, whatever happens to the job.

use std::collections::{BTreeMap, HashMap, HashSet};

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
            let rows = bed.rows::<String, str>("best-sellers").into_iter();
            let last: BTreeMap<String, String> = rows
                .map(|row| (row.key.unwrap(), row.value.unwrap()))
                .collect();
            // Of each category its products, with how often they were sold.
            let mut sold = BTreeMap::<String, HashMap<String, u64>>::new();
            for sale in sales {
                let (category, product) = sale.split_once(' ').unwrap();
                let products = sold.entry(category.to_owned()).or_default();
                *products.entry(format!("{category}/{product}")).or_default() += 1;
            }
            assert!(last.keys().eq(sold.keys()), "{:?}", last.keys());
            for (category, list) in last {
                let list: Vec<(u64, String)> = serde_json::from_str(&list).unwrap();
                let products = &sold[&category];
                for (count, product) in &list {
                    assert_eq!(products.get(product), Some(count), "{product}");
                }
                let named: HashSet<_> = list.iter().map(|(_, product)| product).collect();
                assert_eq!(named.len(), list.len(), "{category}: {list:?}");
                // Which of two that sold the same is there is not promised.
                let mut counts: Vec<_> = products.values().copied().collect();
                counts.sort_unstable_by(|a, b| b.cmp(a));
                counts.truncate(3);
                let listed: Vec<_> = list.iter().map(|(count, _)| *count).collect();
                assert_eq!(listed, counts, "{category}");
            }
        })
        .run();
}
