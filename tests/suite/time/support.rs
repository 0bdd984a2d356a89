//! Clicks, how they are fed, and the windows that they belong to by definition.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::protocol::batch::BatchProducer;
use onceflow::protocol::messages::{Acks, ProduceRequest};
use onceflow::runtime::{FixedWindows, Job, Launch};
use onceflow::types::{TopicName, TopicPartition};

use crate::jobs::support::{committed, decode};
use crate::support::records::batch_at;

/// A user and the time of a click.
pub(crate) type Click = (String, i64);

pub(crate) fn click(user: &str, time: i64) -> Click {
    (user.to_owned(), time)
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn topic_of_clicks(log: &Log, topic: &str, partitions: i32) {
    let topic = TopicName::new(topic).unwrap();
    wait(log.admin().create_topic(&topic, partitions)).unwrap();
}

/// Appends clicks to a partition, in one batch.
pub(crate) fn feed(log: &Log, topic: &str, partition: i32, clicks: &[Click]) {
    if clicks.is_empty() {
        return;
    }
    let lines: Vec<String> = clicks
        .iter()
        .map(|(user, time)| format!("{user} {time}"))
        .collect();
    let request = ProduceRequest {
        partition: TopicPartition::new(TopicName::new(topic).unwrap(), partition),
        records: batch_at(log.env().clock.wall(), BatchProducer::Plain, &lines).into(),
        acks: Acks::Leader,
        transactional_id: None,
    };
    wait(log.transport().produce(request)).unwrap();
}

pub(crate) fn parse(line: &str) -> Result<Click, String> {
    let (user, time) = line.split_once(' ').ok_or("no time")?;
    let time = time
        .parse()
        .map_err(|e| format!("{time:?} is no time: {e}"))?;
    Ok((user.to_owned(), time))
}

/// Counts clicks of the topic `in` by user and window into `counts`; late ones go to `late`.
pub(crate) fn clicks_per_window(
    windows: FixedWindows,
    watermarks: Watermarks,
    is_endless: bool,
) -> Job {
    let job = Job::new("clicks");
    let clicks = topic::<str>("in");
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    let (clicks, late) = job
        .source(clicks)
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks)
        .key_by(|(user, _): &Click| user)
        .window(windows)
        .late();
    late.sink(topic("late"));
    clicks.count("per-window").sink(topic("counts"));
    job
}

pub(crate) fn launch(windows: FixedWindows, watermarks: Watermarks) -> Launch {
    clicks_per_window(windows, watermarks, false)
        .exactly_once(Commit::every(ms(2)))
        .state_partitions(8)
}

/// The same job, which goes on until it is stopped.
pub(crate) fn launch_endless(windows: FixedWindows, watermarks: Watermarks) -> Launch {
    clicks_per_window(windows, watermarks, true)
        .exactly_once(Commit::every(ms(2)))
        .state_partitions(8)
}

/// The committed results: each once, or the test fails.
pub(crate) fn results(log: &Log) -> BTreeMap<(String, i64, i64), u64> {
    let mut results = BTreeMap::new();
    for seen in committed(log, "counts") {
        let key = seen.key::<Windowed<String>>();
        let place = (key.key.clone(), key.window.start.0, key.window.end.0);
        let again = results.insert(place, seen.value::<u64>());
        assert_eq!(again, None, "{key:?} was closed twice");
    }
    results
}

/// The committed late clicks, in order.
pub(crate) fn late(log: &Log) -> Vec<Click> {
    let mut late: Vec<Click> = committed(log, "late")
        .iter()
        .map(|seen| decode::<Click>(seen.value.as_deref().unwrap()))
        .collect();
    late.sort();
    late
}
