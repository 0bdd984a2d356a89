//! DescribeLogDirs: the one data directory, with the sizes of its partitions.

use std::collections::HashSet;

use super::super::dispatch::Call;
use super::super::security::Operation;
use super::broker_code;
use crate::broker::BrokerError;
use crate::protocol::wire::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};

pub(in crate::server) fn describe(
    call: &Call<'_>,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let described = call
        .allow_cluster(Operation::Describe)
        .and_then(|()| directory(call, &request));
    DescribeLogDirsResponse {
        error_code: broker_code(&described),
        results: described.into_iter().collect(),
        ..DescribeLogDirsResponse::default()
    }
}

fn directory(
    call: &Call<'_>,
    request: &DescribeLogDirsRequest,
) -> Result<DescribeLogDirsResult, BrokerError> {
    let asked: Option<HashSet<(&str, i32)>> = request.topics.as_ref().map(|topics| {
        let partitions = topics.iter().flat_map(|topic| {
            let indexes = topic.partitions.iter();
            indexes.map(|index| (topic.topic.as_str(), *index))
        });
        partitions.collect()
    });
    let mut topics = Vec::new();
    for topic in call.broker().topics()? {
        let name = topic.name.as_str();
        let is_asked = |index| {
            asked
                .as_ref()
                .is_none_or(|asked| asked.contains(&(name, index)))
        };
        // A topic may be deleted while this looks around.
        let partitions = call
            .broker()
            .describe_partitions(&topic.name)
            .unwrap_or_default();
        let sizes = partitions
            .iter()
            .filter(|partition| is_asked(partition.partition));
        let sizes = sizes.map(|partition| DescribeLogDirsPartition {
            partition_index: partition.partition,
            partition_size: i64::try_from(partition.size_bytes).unwrap_or(i64::MAX),
            ..DescribeLogDirsPartition::default()
        });
        let partitions: Vec<_> = sizes.collect();
        if !partitions.is_empty() {
            topics.push(DescribeLogDirsTopic {
                name: name.to_owned(),
                partitions,
            });
        }
    }
    Ok(DescribeLogDirsResult {
        log_dir: call.broker().data_dir().display().to_string(),
        topics,
        ..DescribeLogDirsResult::default()
    })
}
