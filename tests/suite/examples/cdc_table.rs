//! The table, and the topic of its rows, are what the changes say, whatever happens to the job.

use std::collections::BTreeMap;

use super::jobs::cdc_table::{Person, job};
use onceflow::testing::{Chance, crash_test};

/// A change: the kind, the id, and the row as it is sent.
type Change = (&'static str, String, Option<Person>);

fn changes(chance: &mut Chance) -> Vec<Change> {
    chance.list(1..30, |chance| {
        let person = Person {
            name: "Ann".to_owned(),
            city: (*chance.pick(&["Rome", "Oslo"])).to_owned(),
        };
        let op = *chance.pick(&["c", "u", "r", "d", "d"]);
        // Some connectors send the deleted row along.
        let is_sent = op != "d" || chance.one_in(2);
        (op, chance.below(3).to_string(), is_sent.then_some(person))
    })
}

fn row((op, _, after): &Change) -> Option<Person> {
    after.clone().filter(|_| *op != "d")
}

fn last_rows(changes: &[Change]) -> Vec<(String, Person)> {
    let last: BTreeMap<_, _> = changes.iter().map(|it| (it.1.clone(), row(it))).collect();
    let rows = last.into_iter();
    rows.filter_map(|(id, row)| Some((id, row?))).collect()
}

/// The row after each change; the deletion of what is not there writes nothing.
fn rows_written(changes: &[Change]) -> Vec<(String, Option<String>)> {
    let mut rows = BTreeMap::new();
    let mut written = Vec::new();
    for change in changes {
        let (id, row) = (change.1.clone(), row(change));
        let before = rows.insert(id.clone(), row.clone()).flatten();
        if before.is_some() || row.is_some() {
            let text = row.map(|row| serde_json::to_string(&row).unwrap());
            written.push((id, text));
        }
    }
    written
}

#[test]
fn the_table_and_its_topic_are_what_the_changes_say() {
    crash_test(job)
        .inputs(changes, |bed, (op, id, after)| {
            let change = serde_json::json!({ "op": op, "id": id, "after": after });
            bed.send_value("changes", change.to_string().as_str());
        })
        .partitions("changes", 1)
        .expect_state::<str, Person>("people", last_rows)
        .expect_changes::<str, str>("people", rows_written)
        .run();
}
