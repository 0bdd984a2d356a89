//! The table is what the changes say, whatever happens to the job.

use std::collections::BTreeMap;

use super::jobs::cdc_table::{Person, job};
use onceflow::testing::{Chance, crash_test};

type Change = (u64, Option<Person>);

fn changes(chance: &mut Chance) -> Vec<Change> {
    chance.list(1..30, |chance| {
        let city = (*chance.pick(&["Rome", "Oslo"])).to_owned();
        let person = Person {
            name: "Ann".to_owned(),
            city,
        };
        (chance.below(3), (!chance.one_in(3)).then_some(person))
    })
}

#[test]
fn the_table_is_what_the_changes_say() {
    crash_test(job)
        .inputs(changes, |bed, (id, after)| {
            let op = if after.is_some() { "u" } else { "d" };
            let change = serde_json::json!({ "op": op, "id": id.to_string(), "after": after });
            bed.send_value("changes", change.to_string().as_str());
        })
        .partitions("changes", 1)
        .expect_state::<str, Person>("people", |changes| {
            let last: BTreeMap<u64, Option<Person>> = changes.iter().cloned().collect();
            let rows = last
                .into_iter()
                .filter_map(|(id, row)| Some((id.to_string(), row?)));
            rows.collect()
        })
        .run();
}
