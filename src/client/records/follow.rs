//! From an input offset to the transaction that consumed it, and to all that it wrote.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::commits::{Crossing, History, Whole, partition_of};
use super::page::Row;
use super::walk::Marks;
use super::written::{Part, Wanted, find};
use super::{LookError, Records};
use crate::broker::offsets_journal::CONSUMER_OFFSETS_TOPIC;
use crate::client::{ClientError, ErrorCode, GroupDescription, TopicMetadata};
use crate::protocol::batch::ControlType;
use crate::types::{GroupId, Offset, ProducerIdentity, TopicName, TopicPartition};

/// The records of a partition that are shown, where nobody says how many.
pub(crate) const ROWS: usize = 20;
/// The most of them.
pub(crate) const ROWS_MAX: usize = 500;
/// The most partitions that are searched.
const PARTITIONS_MAX: usize = 2_000;
/// A partition knows who wrote to it for a day, unless told otherwise; so long it is believed that it does, in milliseconds.
const PRODUCERS_KNOWN_MILLIS: i64 = 12 * 3_600_000;

/// The record that is followed, and how.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    pub(crate) job: GroupId,
    pub(crate) place: TopicPartition,
    pub(crate) offset: Offset,
    /// The topics that are searched; all that are not internal, if none is named.
    pub(crate) topics: Vec<TopicName>,
    /// The records shown of each partition.
    pub(crate) limit: usize,
}

impl Records {
    /// Follows a record into the transaction in which a job consumed it, as JSON: the transaction, the positions that it committed, and what
    /// it wrote, by partition.
    ///
    /// # Errors
    /// If there is no such record; if the job has not consumed it, or the transaction is open; if the log does not know any more.
    pub(crate) async fn follow(&self, follow: &Follow) -> Result<Value, LookError> {
        let Follow {
            job, place, offset, ..
        } = follow;
        self.check(place).await?;
        let marks = Marks::of(&*self.transport, place).await?;
        let record = self.row(place, *offset, &marks).await?;
        self.check_consumed(follow).await?;
        let journal = self.journal_of(job).await?;
        let history = History {
            transport: &*self.transport,
            journal: &journal,
            group: job,
            place,
        };
        let crossing = history.crossing(*offset).await?;
        let whole = history.whole(&crossing.commit).await?;
        let mut told = json!({
            "job": job.as_str(),
            "topic": place.topic.as_str(),
            "partition": place.partition,
            "offset": offset.0,
            "record": record.as_ref().map(Row::json),
            "positions": positions(place, &crossing, &whole),
            "committed": crossing.commit.time.0,
            "transaction": null,
            "wrote": [],
            "not_searched": [],
        });
        match told_apart(&crossing, &whole) {
            Err(why) => told["untold"] = why.into(),
            Ok(producer) => {
                let wanted = Wanted {
                    producer,
                    time: crossing.commit.time,
                    limit: follow.limit,
                };
                told["transaction"] = self.transaction(producer).await;
                let (wrote, not_searched) = self.wrote(follow, &wanted).await?;
                told["wrote"] = wrote.into();
                told["not_searched"] = not_searched.into();
            }
        }
        Ok(told)
    }

    /// Checks that the job's committed position is behind the offset.
    async fn check_consumed(&self, follow: &Follow) -> Result<(), LookError> {
        let (job, place, offset) = (follow.job.clone(), follow.place.clone(), follow.offset);
        let group = match self.transport.describe_group(&job).await {
            Err(ClientError::Refused {
                code: ErrorCode::GroupIdNotFound,
                ..
            }) => {
                return Err(LookError::NotRead { job, place });
            }
            described => described?,
        };
        let position = position_in(&group, &place);
        if position.is_some_and(|position| position > offset) {
            return Ok(());
        }
        let mut pending = group.pending.iter();
        let open = pending.find(|(_, of, pending)| *of == place && pending.offset > offset);
        Err(match (open, position) {
            (Some((producer, ..)), _) => LookError::StillOpen {
                job,
                place,
                offset,
                producer: producer.0,
            },
            (None, Some(position)) => LookError::NotConsumed {
                job,
                place,
                offset,
                position,
            },
            (None, None) => LookError::NotRead { job, place },
        })
    }

    /// The partition that has the history of a group.
    async fn journal_of(&self, group: &GroupId) -> Result<TopicPartition, LookError> {
        let topic = TopicName::new(CONSUMER_OFFSETS_TOPIC).map_err(|e| internal(&e.to_string()))?;
        let found = self.transport.topic(&topic).await?;
        let found = found.ok_or_else(|| LookError::NoTopic(topic.clone()))?;
        Ok(TopicPartition::new(
            topic,
            partition_of(group, found.partitions_count),
        ))
    }

    /// The transaction as JSON. Which transactional id it had is known while the coordinator knows the producer.
    async fn transaction(&self, producer: ProducerIdentity) -> Value {
        let known = self.transport.transactions_of(&[producer.id]).await;
        let known = known.ok().and_then(|known| known.into_iter().next());
        json!({
            "producer_id": producer.id.0,
            "producer_epoch": producer.epoch.0,
            "transactional_id": known.map(|known| known.transactional_id.to_string()),
        })
    }

    /// The records that the transaction wrote, by partition, and the partitions that could not be searched.
    async fn wrote(
        &self,
        follow: &Follow,
        wanted: &Wanted,
    ) -> Result<(Vec<Value>, Vec<Value>), LookError> {
        let places = partitions(&self.transport.topics().await?, &follow.topics)?;
        let age = self
            .transport
            .env()
            .clock
            .wall()
            .0
            .saturating_sub(wanted.time.0);
        // A topic that somebody names is searched in any case.
        let asks_first = follow.topics.is_empty() && age < PRODUCERS_KNOWN_MILLIS;
        let (mut wrote, mut not_searched) = (Vec::new(), Vec::new());
        for place in places {
            match self.wrote_in(&place, wanted, asks_first).await {
                Ok(None) => {}
                Ok(Some(part)) => wrote.push(part_json(&follow.job, &place, &part)),
                Err(error) => not_searched.push(json!({
                    "topic": place.topic.as_str(),
                    "partition": place.partition,
                    "why": error.to_string(),
                })),
            }
        }
        Ok((wrote, not_searched))
    }

    async fn wrote_in(
        &self,
        place: &TopicPartition,
        wanted: &Wanted,
        asks_first: bool,
    ) -> Result<Option<Part>, LookError> {
        if asks_first {
            let producers = self.transport.describe_producers(place).await?;
            let mut producers = producers.iter().map(|it| it.producer);
            let is_known = |it: ProducerIdentity| {
                it.id == wanted.producer.id && it.epoch.0 >= wanted.producer.epoch.0
            };
            if !producers.any(is_known) {
                return Ok(None);
            }
        }
        let part = find(&*self.transport, place, wanted).await?;
        Ok(part.is_touched().then_some(part))
    }
}

fn position_in(group: &GroupDescription, place: &TopicPartition) -> Option<Offset> {
    let mut offsets = group.offsets.iter();
    let own = offsets.find(|(of, _)| of == place);
    own.map(|(_, committed)| committed.offset)
}

/// Whose transaction it was, or why what it wrote cannot be told.
fn told_apart(crossing: &Crossing, whole: &Whole) -> Result<ProducerIdentity, &'static str> {
    let Some(producer) = crossing.commit.producer else {
        return Err(
            "the position was committed without a transaction: nothing ties to it what was written",
        );
    };
    match whole.marker_epoch {
        None => Err("the marker of the transaction was not found in the history of positions"),
        Some(epoch) if epoch == producer.epoch.0 => Err(
            "the transactions of this job keep their epoch (before Kafka's transaction version 2): what each wrote cannot be told apart",
        ),
        Some(_) => Ok(producer),
    }
}

/// The positions of the transaction; of the one that is followed also where it was before.
fn positions(place: &TopicPartition, crossing: &Crossing, whole: &Whole) -> Vec<Value> {
    let positions = whole.positions.iter();
    let positions = positions.map(|(of, to)| {
        json!({
            "topic": of.topic.as_str(),
            "partition": of.partition,
            "from": crossing.before.filter(|_| of == place).map(|from| from.0),
            "to": to.0,
        })
    });
    positions.collect()
}

/// The partitions to search.
fn partitions(
    all: &[TopicMetadata],
    named: &[TopicName],
) -> Result<Vec<TopicPartition>, LookError> {
    let known: BTreeSet<&TopicName> = all.iter().map(|topic| &topic.name).collect();
    if let Some(unknown) = named.iter().find(|name| !known.contains(name)) {
        return Err(LookError::NoTopic(unknown.clone()));
    }
    let is_wanted = |topic: &&TopicMetadata| match named {
        [] => !topic.is_internal,
        named => named.contains(&topic.name),
    };
    let topics = all.iter().filter(is_wanted);
    let places = topics.flat_map(|topic| {
        let partitions = 0..topic.partitions_count;
        partitions.map(|partition| TopicPartition::new(topic.name.clone(), partition))
    });
    let places: Vec<TopicPartition> = places.collect();
    match places.len() <= PARTITIONS_MAX {
        true => Ok(places),
        false => Err(LookError::TooMany {
            count: places.len(),
            max: PARTITIONS_MAX,
        }),
    }
}

/// The part that a topic plays for a job, and the name of its store or step, by how the runtime calls its topics.
fn role<'t>(job: &str, topic: &'t str) -> (&'static str, Option<&'t str>) {
    let own = topic
        .strip_prefix(job)
        .and_then(|rest| rest.strip_prefix('-'));
    let Some(own) = own else {
        return ("output", None);
    };
    if let Some(store) = own.strip_suffix("-changelog") {
        return ("state", Some(store));
    }
    if let Some(step) = own.strip_suffix("-repartition") {
        return ("shuffle", Some(step));
    }
    match own {
        "positions" => ("positions", None),
        _ => ("output", None),
    }
}

fn part_json(job: &GroupId, place: &TopicPartition, part: &Part) -> Value {
    let (role, of) = role(job.as_str(), place.topic.as_str());
    let rows: Vec<Value> = part.rows.iter().map(Row::json).collect();
    let end = part.end.map(|(offset, kind)| {
        let kind = match kind {
            ControlType::Commit => "commit",
            ControlType::Abort => "abort",
        };
        json!({ "offset": offset.0, "kind": kind })
    });
    json!({
        "topic": place.topic.as_str(),
        "partition": place.partition,
        "role": role,
        "of": of,
        "count": part.count,
        "first_offset": part.first.map(|offset| offset.0),
        "last_offset": part.last.map(|offset| offset.0),
        "marker": end,
        "is_whole": part.is_whole(),
        "records": rows,
    })
}

fn internal(why: &str) -> LookError {
    LookError::Client(ClientError::Refused {
        request: "Metadata",
        code: ErrorCode::UnknownServerError,
        message: why.to_owned(),
        kind: crate::protocol::ErrorKind::Fatal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_a_job_are_told_by_their_names() {
        for (topic, told) in [
            ("shop-counts-changelog", ("state", Some("counts"))),
            ("shop-per-goods-changelog", ("state", Some("per-goods"))),
            ("shop-join-repartition", ("shuffle", Some("join"))),
            ("shop-positions", ("positions", None)),
            ("shopping", ("output", None)),
            ("sales", ("output", None)),
            ("other-counts-changelog", ("output", None)),
        ] {
            assert_eq!(role("shop", topic), told, "{topic}");
        }
    }
}
