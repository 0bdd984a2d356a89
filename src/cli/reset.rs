//! `onceflow group reset`: moves the positions of a group that nobody is a member of.
//!
//! A member would go on from where it is, and overwrite what is set here. So a group with members is refused, by this
//! command and, if one comes meanwhile, by the coordinator; so is one whose positions an open transaction holds.

use std::io::Write;
use std::str::FromStr;

use anyhow::{anyhow, bail};
use clap::Args;

use super::consume::From;
use super::group::{JobTransaction, transactions_of_job};
use super::output::{self, Table};
use super::session::Session;
use super::time;
use super::topic::{no_such_partition, topic_of};
use crate::client::ClientError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{CommittedOffset, OffsetSpec};
use crate::types::{
    GroupId, Isolation, Offset, PartitionIndex, Timestamp, TopicName, TopicPartition,
};

/// Moving positions.
#[derive(Debug, Args)]
pub(super) struct ResetArguments {
    /// The group, which must have no members
    #[arg(value_parser = GroupId::new)]
    group: GroupId,
    /// A topic, or some of its partitions as TOPIC:0,1; may be given again. Without it, all that have a position
    #[arg(long = "topic", short, value_name = "TOPIC")]
    topics: Vec<Wanted>,
    #[command(flatten)]
    goal: Goal,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Where positions are to go: in one of our words, or in those of Kafka's own tool.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Goal {
    /// Where to: beginning, end, an offset, or the first record of a time such as 2026-11-22T07:00 or later
    #[arg(long, value_name = "PLACE", value_parser = goal, allow_hyphen_values = true)]
    to: Option<From>,
    /// By so many offsets, back if negative
    #[arg(
        long,
        visible_alias = "shift-by",
        value_name = "COUNT",
        allow_hyphen_values = true
    )]
    by: Option<i64>,
    /// To the first record
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long)]
    to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record of this time (UTC) or later, such as 2026-11-22T07:00:00.000
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to_datetime: Option<Timestamp>,
}

impl Goal {
    /// The place that is named; `None` for a distance.
    fn place(&self) -> Option<From> {
        let by_name = match (self.to_earliest, self.to_latest) {
            (true, _) => Some(From::Beginning),
            (_, true) => Some(From::End),
            _ => None,
        };
        let place = self.to.or(by_name);
        let place = place.or(self.to_offset.map(|offset| From::At(Offset(offset))));
        place.or(self.to_datetime.map(From::Time))
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    time::parse(text).ok_or_else(|| {
        "use a time such as 2026-11-22T07:00:00.000 (UTC) or 2026-11-22T08:00+01:00".to_owned()
    })
}

fn goal(text: &str) -> Result<From, String> {
    match text.parse()? {
        From::Last(count) => Err(format!("to go back by {count}, use --by -{count}")),
        place => Ok(place),
    }
}

/// A topic, or some of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    topic: TopicName,
    /// All if there are none.
    partitions: Vec<PartitionIndex>,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, numbers) = text
            .split_once(':')
            .map_or((text, None), |(topic, rest)| (topic, Some(rest)));
        let partitions = numbers
            .into_iter()
            .flat_map(|it| it.split(','))
            .map(|number| {
                let partition = number.parse().ok().filter(|it| *it >= 0);
                partition
                    .ok_or_else(|| format!("{number:?} is no partition: use TOPIC or TOPIC:0,1"))
            });
        Ok(Self {
            topic: TopicName::new(topic).map_err(|error| error.to_string())?,
            partitions: partitions.collect::<Result<_, _>>()?,
        })
    }
}

/// A position, and where it is to go.
struct Move {
    place: TopicPartition,
    from: Option<Offset>,
    to: Offset,
    /// The offset that was asked for, where the partition does not have it.
    outside: Option<Offset>,
}

/// Runs `onceflow group reset`.
pub(super) fn run(session: &Session, arguments: &ResetArguments) -> anyhow::Result<()> {
    let positions = positions_at_rest(session, &arguments.group)?;
    let mut moves = Vec::new();
    for place in places(session, arguments, &positions)? {
        let known = positions.iter().find(|(known, _)| *known == place);
        moves.push(planned(session, arguments, place, known.map(|it| it.1))?);
    }
    if !arguments.dry_run {
        commit(session, &arguments.group, &moves)?;
    }
    for it in &moves {
        if let Some(outside) = it.outside {
            output::say(&format!(
                "onceflow: {} has no offset {outside}: {} is taken",
                it.place, it.to
            ));
        }
    }
    if arguments.dry_run {
        output::say("onceflow: nothing was changed (--dry-run)");
    }
    print(&moves)
}

/// The group's positions; an error if somebody is about to change them.
fn positions_at_rest(
    session: &Session,
    group: &GroupId,
) -> anyhow::Result<Vec<(TopicPartition, Offset)>> {
    let described = session.wait(session.admin().describe_group(group));
    let description = match described {
        // It begins to exist with its first position.
        Err(e) if e.code() == Some(ErrorCode::GroupIdNotFound) => return Ok(Vec::new()),
        described => described?,
    };
    let count = description.members.len();
    if count > 0 {
        bail!(
            "group {group} has members ({count}), which would go on from where they are: stop them first (`onceflow group describe {group}` names them)"
        );
    }
    let open = transactions_of_job(session, group)?;
    let open = open.iter().find(|it| it.is_open());
    if let Some(id) = open.map(JobTransaction::id) {
        bail!(
            "the transaction of {id} is open: the job {group} is running, and would overwrite its positions: stop it first"
        );
    }
    if let Some((producer, place, _)) = description.pending.first() {
        bail!(
            "the position of group {group} in {place} is part of an open transaction, of producer {producer}: wait until it has ended, or see `onceflow txn list`"
        );
    }
    let offsets = description.offsets.into_iter();
    Ok(offsets.map(|(place, it)| (place, it.offset)).collect())
}

/// The partitions that are asked for.
fn places(
    session: &Session,
    arguments: &ResetArguments,
    positions: &[(TopicPartition, Offset)],
) -> anyhow::Result<Vec<TopicPartition>> {
    if arguments.topics.is_empty() {
        if positions.is_empty() {
            let group = &arguments.group;
            bail!(
                "group {group} has no positions: see `onceflow group list`, or name a topic with --topic"
            );
        }
        return Ok(positions.iter().map(|(place, _)| place.clone()).collect());
    }
    let mut places = Vec::new();
    for wanted in &arguments.topics {
        let topic = topic_of(session, &wanted.topic)?;
        let all = 0..topic.partitions_count;
        if let Some(absent) = wanted.partitions.iter().find(|it| !all.contains(*it)) {
            bail!(no_such_partition(&topic, *absent));
        }
        let partitions = match wanted.partitions.is_empty() {
            true => all.collect(),
            false => wanted.partitions.clone(),
        };
        let topic = &wanted.topic;
        places.extend(
            partitions
                .into_iter()
                .map(|it| TopicPartition::new(topic.clone(), it)),
        );
    }
    places.sort();
    places.dedup();
    Ok(places)
}

fn planned(
    session: &Session,
    arguments: &ResetArguments,
    place: TopicPartition,
    from: Option<Offset>,
) -> anyhow::Result<Move> {
    topic_of(session, &place.topic)?;
    let admin = session.admin();
    let find = |spec| {
        let found = session.wait(admin.list_offset(&place, spec, Isolation::ReadCommitted));
        found.map(|listed| listed.map(|it| it.offset))
    };
    let first = find(OffsetSpec::Earliest)?.unwrap_or(Offset::ZERO);
    let end = find(OffsetSpec::Latest)?.unwrap_or(first);
    let wanted = match (arguments.goal.place(), arguments.goal.by) {
        (Some(From::Beginning), _) => first,
        (Some(From::At(offset)), _) => offset,
        (Some(From::Time(time)), _) => find(OffsetSpec::Timestamp(time))?.unwrap_or(end),
        (Some(From::End | From::Last(_)) | None, None) => end,
        (_, Some(by)) => {
            let group = &arguments.group;
            let from = from.ok_or_else(|| {
                anyhow!("group {group} has no position in {place} to move: say where to with --to")
            })?;
            Offset(from.0.saturating_add(by))
        }
    };
    let to = wanted.clamp(first, end.max(first));
    Ok(Move {
        place,
        from,
        to,
        outside: (to != wanted).then_some(wanted),
    })
}

fn commit(session: &Session, group: &GroupId, moves: &[Move]) -> anyhow::Result<()> {
    let offsets = moves.iter().map(|it| {
        let committed = CommittedOffset {
            offset: it.to,
            leader_epoch: -1,
            metadata: String::new(),
        };
        (it.place.clone(), committed)
    });
    let committed = session.wait(session.admin().alter_committed(group, offsets.collect()));
    committed.map_err(|error| match joined_meanwhile(&error) {
        true => {
            anyhow!("group {group} has got members meanwhile, nothing was moved: stop them first")
        }
        false => error.into(),
    })
}

/// Whether the coordinator refused positions that come from no member, since there are members.
fn joined_meanwhile(error: &ClientError) -> bool {
    let codes = [
        ErrorCode::UnknownMemberId,
        ErrorCode::RebalanceInProgress,
        ErrorCode::IllegalGeneration,
        ErrorCode::StaleMemberEpoch,
    ];
    error.code().is_some_and(|code| codes.contains(&code))
}

fn print(moves: &[Move]) -> anyhow::Result<()> {
    let mut table = Table::new(&["topic", "partition", "position", "new position"])
        .with_numbers(&["partition", "position", "new position"]);
    for it in moves {
        table.row([
            it.place.topic.to_string(),
            it.place.partition.to_string(),
            it.from
                .map_or_else(|| "-".to_owned(), |from| from.to_string()),
            it.to.to_string(),
        ]);
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_with_or_without_partitions() {
        let wanted: Wanted = "a.b-c:0,12".parse().unwrap();
        assert_eq!(
            (wanted.topic.as_str(), &wanted.partitions[..]),
            ("a.b-c", &[0, 12][..])
        );
        let wanted: Wanted = "lines".parse().unwrap();
        assert!(wanted.partitions.is_empty());
        for text in [
            "",
            ":0",
            "a:",
            "a:x",
            "a:-1",
            "a:0,",
            "a:99999999999",
            "a/b",
        ] {
            assert!(text.parse::<Wanted>().is_err(), "{text:?} was read");
        }
    }

    #[test]
    fn the_last_records_are_no_place_for_a_position() {
        assert_eq!(goal("7"), Ok(From::At(Offset(7))));
        assert!(goal("-7").unwrap_err().contains("--by -7"));
    }
}
