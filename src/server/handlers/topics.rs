//! CreateTopics, DeleteTopics, CreatePartitions.

use std::collections::{BTreeMap, HashMap};

use super::super::dispatch::Call;
use super::super::security::{Operation, Resource};
use super::{NODE_ID, broker_code, message, topic_name};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{NewTopic, TopicMetadata};
use crate::protocol::wire::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use crate::protocol::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use crate::protocol::wire::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::types::TopicId;

/// From this version on topics to be deleted are named by name or id.
const DELETE_BY_ID_FROM: i16 = 6;
/// Sources of a setting, as DescribeConfigs numbers them.
const SET_ON_TOPIC: i8 = 1;
const DEFAULT: i8 = 5;

pub(in crate::server) fn create(
    call: &Call<'_>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let counts = counts(request.topics.iter().map(|topic| topic.name.as_str()));
    let topics = request.topics.iter().map(|topic| {
        let created = match counts.get(topic.name.as_str()) {
            Some(1) => create_one(call, topic, request.validate_only),
            _ => Err(twice("topic", &topic.name)),
        };
        created_result(call, topic, &created)
    });
    CreateTopicsResponse {
        topics: topics.collect(),
        ..CreateTopicsResponse::default()
    }
}

fn counts<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn twice(what: &str, name: &str) -> BrokerError {
    let message = format!("the request names the {what} {name:?} more than once");
    BrokerError::new(ErrorCode::InvalidRequest, message)
}

fn create_one(
    call: &Call<'_>,
    topic: &CreatableTopic,
    is_validation: bool,
) -> Result<Option<TopicMetadata>, BrokerError> {
    let may = call
        .session
        .is_allowed(Operation::Create, Resource::Cluster)
        || call
            .session
            .is_allowed(Operation::Create, Resource::Topic(&topic.name));
    if !may {
        return Err(ErrorCode::TopicAuthorizationFailed.into());
    }
    // Of several faults the one that Kafka names: the name, settings, a factor that cannot be, partitions, replicas.
    let name = topic_name(&topic.name)?;
    let new = NewTopic {
        name,
        configs: configs(topic)?,
        partitions_count: partitions_count(call, topic)?,
    };
    let checked = call.broker().check_topic(&new);
    let code = checked.as_ref().err().map(|error| error.code);
    let is_no_factor = topic.replication_factor < -1 || topic.replication_factor == 0;
    if is_no_factor && code == Some(ErrorCode::InvalidPartitions) {
        check_replicas(topic)?;
    }
    checked?;
    check_replicas(topic)?;
    match is_validation {
        false => call.broker().create_topic(&new).map(Some),
        true => Ok(None),
    }
}

/// Checks that what is asked for is one replica of each partition, on this broker: whoever asks for more counts on
/// copies that nobody makes. As Kafka, which refuses more replicas than it has brokers.
fn check_replicas(topic: &CreatableTopic) -> Result<(), BrokerError> {
    let factor = topic.replication_factor;
    let (code, why) = match topic.assignments.is_empty() {
        false if factor != -1 => (
            ErrorCode::InvalidRequest,
            "give either a replication factor or the replicas, not both".to_owned(),
        ),
        false => {
            let mut replicas = topic.assignments.iter().map(|it| &it.broker_ids);
            return replicas.try_for_each(|it| check_assignment(it));
        }
        true if factor == -1 || factor == 1 => return Ok(()),
        true => (
            ErrorCode::InvalidReplicationFactor,
            format!(
                "a replication factor of {factor} cannot be had: there is one broker, which keeps one copy; use 1 or -1"
            ),
        ),
    };
    Err(BrokerError::new(code, why))
}

fn check_assignment(replicas: &[i32]) -> Result<(), BrokerError> {
    if replicas == [NODE_ID] {
        return Ok(());
    }
    let why = format!("replicas {replicas:?} cannot be had: the only broker is {NODE_ID}");
    Err(BrokerError::new(ErrorCode::InvalidReplicaAssignment, why))
}

/// The number of partitions: as said, as many as are assigned, or the server's default.
fn partitions_count(call: &Call<'_>, topic: &CreatableTopic) -> Result<i32, BrokerError> {
    let assigned = topic.assignments.len();
    match topic.num_partitions {
        -1 if assigned == 0 => Ok(call.dispatch.default_partitions),
        -1 => {
            let mut indexes: Vec<i32> = topic
                .assignments
                .iter()
                .map(|assignment| assignment.partition_index)
                .collect();
            indexes.sort_unstable();
            let is_complete = (0..)
                .zip(&indexes)
                .all(|(index, assigned)| index == *assigned);
            match (is_complete, i32::try_from(assigned)) {
                (true, Ok(count)) => Ok(count),
                _ => Err(ErrorCode::InvalidReplicaAssignment.into()),
            }
        }
        _ if assigned > 0 => Err(BrokerError::new(
            ErrorCode::InvalidRequest,
            "give either a number of partitions or their assignment, not both",
        )),
        count => Ok(count),
    }
}

fn configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, BrokerError> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = config.value.clone() else {
            let message = format!("the setting {:?} has no value", config.name);
            return Err(BrokerError::new(ErrorCode::InvalidConfig, message));
        };
        configs.insert(config.name.clone(), value);
    }
    Ok(configs)
}

fn created_result(
    call: &Call<'_>,
    topic: &CreatableTopic,
    created: &Result<Option<TopicMetadata>, BrokerError>,
) -> CreatableTopicResult {
    let mut result = CreatableTopicResult {
        name: topic.name.clone(),
        error_code: broker_code(created),
        error_message: message(created),
        configs: None,
        ..CreatableTopicResult::default()
    };
    if let Ok(created) = created {
        result.num_partitions = match created {
            Some(topic) => topic.partitions_count,
            None => partitions_count(call, topic).unwrap_or(-1),
        };
        result.replication_factor = 1;
    }
    if let Ok(Some(created)) = created {
        result.topic_id = created.id;
        let entries = call
            .broker()
            .describe_configs(&created.name)
            .unwrap_or_default();
        let configs = entries.into_iter().map(|entry| CreatableTopicConfigs {
            config_source: if entry.is_default {
                DEFAULT
            } else {
                SET_ON_TOPIC
            },
            name: entry.name,
            value: Some(entry.value),
            ..CreatableTopicConfigs::default()
        });
        result.configs = Some(configs.collect());
    }
    result
}

pub(in crate::server) fn delete(
    call: &Call<'_>,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked = match call.version() >= DELETE_BY_ID_FROM {
        true => request.topics,
        false => {
            let named = request
                .topic_names
                .into_iter()
                .map(|name| DeleteTopicState {
                    name: Some(name),
                    ..DeleteTopicState::default()
                });
            named.collect()
        }
    };
    DeleteTopicsResponse {
        responses: asked
            .into_iter()
            .map(|topic| delete_one(call, topic))
            .collect(),
        ..DeleteTopicsResponse::default()
    }
}

fn delete_one(call: &Call<'_>, asked: DeleteTopicState) -> DeletableTopicResult {
    let mut result = DeletableTopicResult {
        name: asked.name.clone(),
        topic_id: asked.topic_id,
        ..DeletableTopicResult::default()
    };
    let found = match &asked.name {
        Some(name) => call.topic(name).map_err(|error| {
            let error = match error.code {
                // As Kafka: a name that no topic can have is one that is not there.
                ErrorCode::InvalidTopicException => {
                    BrokerError::new(ErrorCode::UnknownTopicOrPartition, error.to_string())
                }
                _ => error,
            };
            (error, name.clone())
        }),
        None => call
            .topic_by_id(asked.topic_id)
            .map_err(|error| (error, String::new())),
    };
    let name = match &found {
        Ok(topic) => topic.name.as_str().to_owned(),
        Err((_, name)) => name.clone(),
    };
    // A client learns whether a topic exists only if it may see it.
    let may_see = call.session.may_see(Resource::Topic(&name));
    let deleted = match (found, asked.name.is_some()) {
        (Ok(_), false) if !may_see => Err(ErrorCode::UnknownTopicId.into()),
        (Ok(topic), _) => call.allow_topic(Operation::Delete, &name).and_then(|()| {
            result.name = Some(name);
            result.topic_id = topic.id;
            call.broker().delete_topic(&topic.name)
        }),
        (Err((error, _)), _) => {
            let hidden = (!may_see && asked.name.is_some())
                .then(|| ErrorCode::TopicAuthorizationFailed.into());
            Err(hidden.unwrap_or(error))
        }
    };
    if asked.topic_id == TopicId::default() && deleted.is_err() {
        result.topic_id = TopicId::default();
    }
    result.error_code = broker_code(&deleted);
    result.error_message = message(&deleted);
    result
}

pub(in crate::server) fn create_partitions(
    call: &Call<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let counts = counts(request.topics.iter().map(|topic| topic.name.as_str()));
    let results = request.topics.iter().map(|topic| {
        let grown = match counts.get(topic.name.as_str()) {
            Some(1) => grow(call, topic, request.validate_only),
            _ => Err(twice("topic", &topic.name)),
        };
        CreatePartitionsTopicResult {
            name: topic.name.clone(),
            error_code: broker_code(&grown),
            error_message: message(&grown),
        }
    });
    CreatePartitionsResponse {
        results: results.collect(),
        ..CreatePartitionsResponse::default()
    }
}

fn grow(
    call: &Call<'_>,
    topic: &CreatePartitionsTopic,
    is_validation: bool,
) -> Result<(), BrokerError> {
    call.allow_topic(Operation::Alter, &topic.name)?;
    let present = call.topic(&topic.name)?;
    if topic.count <= present.partitions_count {
        let message = format!(
            "topic {} has {} partitions already: ask for more",
            topic.name, present.partitions_count
        );
        return Err(BrokerError::new(ErrorCode::InvalidPartitions, message));
    }
    let added = usize::try_from(topic.count - present.partitions_count).unwrap_or(0);
    if let Some(assignments) = &topic.assignments
        && assignments.len() != added
    {
        let message = format!(
            "{} partitions are added and {} are assigned: assign each new one, or none",
            added,
            assignments.len()
        );
        let code = ErrorCode::InvalidReplicaAssignment;
        return Err(BrokerError::new(code, message));
    }
    let mut assigned = topic.assignments.iter().flatten();
    assigned.try_for_each(|it| check_assignment(&it.broker_ids))?;
    match is_validation {
        true => Ok(()),
        false => call.broker().create_partitions(&present.name, topic.count),
    }
}
