//! The log's part of the view of a job: where its partitions end, and which transactions keep readers from what is there.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{OpenTransaction, SplitStatus, Status};
use crate::client::{ClientError, Transport};
use crate::protocol::messages::{OffsetSpec, ProducerDescription, TransactionDescription};
use crate::types::{Isolation, TopicPartition};

/// The number of partitions that are asked for at once.
const ASKED_AT_ONCE: usize = 16;

/// A partition that the job reads.
pub(super) struct ReadPartition {
    pub(super) place: TopicPartition,
    /// Whether the job has no position there yet: then it begins at the first offset.
    pub(super) is_new: bool,
}

/// The offsets of a partition, and the producer whose transaction is the first that is open.
struct Ends {
    place: TopicPartition,
    first: Option<i64>,
    stable: Option<i64>,
    high: Option<i64>,
    holder: Option<ProducerDescription>,
}

/// Completes a view with what the log says. `identity` begins the job's own transactional ids.
pub(super) async fn complete(
    status: &mut Status,
    transport: &dyn Transport,
    identity: &str,
    partitions: Vec<ReadPartition>,
) -> Result<(), ClientError> {
    let asked = partitions.into_iter().map(|read| ends(transport, read));
    let ends: Vec<Ends> = stream::iter(asked)
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    let holders = holders(transport, Some(identity), &ends).await?;
    let mut shown = Vec::new();
    for (ends, holder) in ends.iter().zip(holders) {
        let name = ends.place.to_string();
        let split = status.splits.iter_mut().find(|split| split.split == name);
        let Some(split) = split else { continue };
        note_ends(split, ends);
        let Some(holder) = holder else { continue };
        split.held_by = Some(holder.name());
        split.held_since = Some(holder.since);
        shown.push(holder);
    }
    status.transactions = each_once(shown);
    Ok(())
}

/// The transactions before which readers of these partitions wait: hanging ones first, then the oldest.
#[cfg(feature = "cli")]
pub(in crate::runtime::life) async fn open_in(
    transport: &dyn Transport,
    places: Vec<TopicPartition>,
) -> Result<Vec<OpenTransaction>, ClientError> {
    let is_new = false;
    let asked = places.into_iter();
    let asked = asked.map(|place| ends(transport, ReadPartition { place, is_new }));
    let ends: Vec<Ends> = stream::iter(asked)
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    let holders = holders(transport, None, &ends).await?;
    Ok(each_once(holders.into_iter().flatten()))
}

/// Transactions that were met in several partitions, in the order in which they matter.
fn each_once(met: impl IntoIterator<Item = OpenTransaction>) -> Vec<OpenTransaction> {
    let mut transactions = BTreeMap::<i64, OpenTransaction>::new();
    for holder in met {
        let known = transactions.entry(holder.producer_id);
        known
            .and_modify(|known| {
                known.partitions.extend_from_slice(&holder.partitions);
                known.partitions.sort();
                known.partitions.dedup();
            })
            .or_insert(holder);
    }
    let mut transactions: Vec<_> = transactions.into_values().collect();
    transactions.sort_by_key(|open| (!open.is_hanging, open.since));
    transactions
}

fn note_ends(split: &mut SplitStatus, ends: &Ends) {
    if let Some(first) = ends.first {
        split.position = first;
    }
    split.last_stable_offset = ends.stable;
    split.high_watermark = ends.high;
    let behind = ends.stable.map(|end| end.saturating_sub(split.position));
    split.lag = behind.map(|behind| u64::try_from(behind).unwrap_or(0));
}

async fn ends(transport: &dyn Transport, read: ReadPartition) -> Result<Ends, ClientError> {
    let place = &read.place;
    let list = async |spec, isolation| {
        let found = transport.list_offset(place, spec, isolation).await?;
        Ok::<_, ClientError>(found.map(|found| found.offset.0))
    };
    let first = match read.is_new {
        true => list(OffsetSpec::Earliest, Isolation::ReadCommitted).await?,
        false => None,
    };
    // In this order: a transaction that ends in between is not taken for an open one.
    let high = list(OffsetSpec::Latest, Isolation::ReadUncommitted).await?;
    let stable = list(OffsetSpec::Latest, Isolation::ReadCommitted).await?;
    let holder = match stable < high {
        true => first_open(transport, place).await?,
        false => None,
    };
    Ok(Ends {
        place: read.place,
        first,
        stable,
        high,
        holder,
    })
}

/// The producer of the first transaction that is open in a partition.
async fn first_open(
    transport: &dyn Transport,
    place: &TopicPartition,
) -> Result<Option<ProducerDescription>, ClientError> {
    let producers = transport.describe_producers(place).await?.into_iter();
    let open = producers.filter(|producer| producer.current_transaction_start.is_some());
    Ok(open.min_by_key(|producer| producer.current_transaction_start))
}

/// By partition, the transaction that readers wait for. `identity` begins the ids of a job that asks.
async fn holders(
    transport: &dyn Transport,
    identity: Option<&str>,
    ends: &[Ends],
) -> Result<Vec<Option<OpenTransaction>>, ClientError> {
    let held = ends.iter().filter_map(|ends| ends.holder.as_ref());
    let mut producers: Vec<_> = held.map(|holder| holder.producer.id).collect();
    producers.sort_unstable();
    producers.dedup();
    let known = match producers.is_empty() {
        true => Vec::new(),
        false => transport.transactions_of(&producers).await?,
    };
    let mut holders = Vec::new();
    for ends in ends {
        let Some(holder) = &ends.holder else {
            holders.push(None);
            continue;
        };
        // A coordinator knows of a partition before it is written to, and until its marker is there.
        let knows = |it: &&TransactionDescription| {
            it.producer_id == holder.producer.id && it.partitions.contains(&ends.place)
        };
        holders.push(match known.iter().find(knows) {
            Some(known) => Some(of_known(known, identity)),
            // One that ended between the questions is not open any more.
            None if first_open(transport, &ends.place)
                .await?
                .is_some_and(|now| {
                    now.producer == holder.producer
                        && now.current_transaction_start == holder.current_transaction_start
                }) =>
            {
                Some(hanging(&ends.place, holder))
            }
            None => None,
        });
    }
    Ok(holders)
}

fn of_known(transaction: &TransactionDescription, identity: Option<&str>) -> OpenTransaction {
    let id = transaction.transactional_id.to_string();
    let number = identity
        .and_then(|identity| id.strip_prefix(identity))
        .and_then(|it| it.strip_prefix('-'));
    OpenTransaction {
        is_own: number.is_some_and(|number| number.parse::<u8>().is_ok()),
        transactional_id: Some(id),
        producer_id: transaction.producer_id.0,
        state: format!("{:?}", transaction.state),
        since: transaction.start,
        timeout_millis: u64::try_from(transaction.timeout.as_millis()).ok(),
        partitions: transaction
            .partitions
            .iter()
            .map(ToString::to_string)
            .collect(),
        is_hanging: false,
    }
}

fn hanging(place: &TopicPartition, holder: &ProducerDescription) -> OpenTransaction {
    OpenTransaction {
        transactional_id: None,
        producer_id: holder.producer.id.0,
        state: "Hanging".to_owned(),
        since: holder.last_timestamp,
        timeout_millis: None,
        partitions: vec![place.to_string()],
        is_hanging: true,
        is_own: false,
    }
}

impl OpenTransaction {
    pub(super) fn name(&self) -> String {
        match &self.transactional_id {
            Some(id) => format!("the transaction of {id}"),
            None => format!("a hanging transaction of producer {}", self.producer_id),
        }
    }
}
