//! DescribeConfigs, IncrementalAlterConfigs.

use std::collections::BTreeMap;

use super::super::dispatch::Call;
use super::super::security::Operation;
use super::{NODE_ID, broker_code, message, topic_name};
use crate::broker::BrokerError;
use crate::protocol::ErrorCode;
use crate::protocol::messages::ConfigEntry;
use crate::protocol::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::protocol::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

/// Kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Where a value comes from.
const SET_ON_TOPIC: i8 = 1;
const SET_AT_START: i8 = 4;
const DEFAULT: i8 = 5;
/// What to do with a value.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(in crate::server) fn describe(
    call: &Call<'_>,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        let entries = entries(call, &resource);
        DescribeConfigsResult {
            error_code: broker_code(&entries),
            error_message: message(&entries),
            configs: described(
                entries.unwrap_or_default(),
                &resource,
                request.include_synonyms,
                request.include_documentation,
            ),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        }
    });
    DescribeConfigsResponse {
        results: results.collect(),
        ..DescribeConfigsResponse::default()
    }
}

fn entries(
    call: &Call<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, BrokerError> {
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            call.allow_topic(Operation::DescribeConfigs, name)?;
            call.broker().describe_configs(&topic_name(name)?)
        }
        BROKER => {
            call.allow_cluster(Operation::DescribeConfigs)?;
            match name.is_empty() || *name == NODE_ID.to_string() {
                true => Ok(broker_entries(call)),
                false => Err(invalid(format!(
                    "there is no broker {name:?} but {NODE_ID}"
                ))),
            }
        }
        other => Err(invalid(format!(
            "resources of type {other} have no settings here"
        ))),
    }
}

fn invalid(message: String) -> BrokerError {
    BrokerError::new(ErrorCode::InvalidRequest, message)
}

/// The settings of the broker itself, by Kafka's names. They are changed where the server is started.
fn broker_entries(call: &Call<'_>) -> Vec<ConfigEntry> {
    let entry = |name: &str, value: String, documentation: &str| ConfigEntry {
        name: name.to_owned(),
        value,
        is_default: false,
        documentation: documentation.to_owned(),
    };
    let dispatch = call.dispatch;
    vec![
        entry(
            "auto.create.topics.enable",
            dispatch.creates_topics.to_string(),
            "Whether a topic that a client asks for is created.",
        ),
        entry(
            "broker.id",
            NODE_ID.to_string(),
            "The number of the only broker.",
        ),
        entry(
            "default.replication.factor",
            "1".to_owned(),
            "There is one broker, and it keeps one copy.",
        ),
        entry(
            "num.partitions",
            dispatch.default_partitions.to_string(),
            "The partitions of a topic that is created without saying how many.",
        ),
    ]
}

fn described(
    entries: Vec<ConfigEntry>,
    resource: &DescribeConfigsResource,
    with_synonyms: bool,
    with_documentation: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let is_asked = |entry: &ConfigEntry| match &resource.configuration_keys {
        Some(keys) => keys.contains(&entry.name),
        None => true,
    };
    let is_broker = resource.resource_type == BROKER;
    let result = |entry: ConfigEntry| {
        let source = match (is_broker, entry.is_default) {
            (true, _) => SET_AT_START,
            (false, true) => DEFAULT,
            (false, false) => SET_ON_TOPIC,
        };
        let synonym = with_synonyms.then(|| DescribeConfigsSynonym {
            name: entry.name.clone(),
            value: Some(entry.value.clone()),
            source,
        });
        DescribeConfigsResourceResult {
            config_type: config_type(&entry),
            name: entry.name,
            value: Some(entry.value),
            read_only: is_broker,
            config_source: source,
            synonyms: synonym.into_iter().collect(),
            documentation: with_documentation.then_some(entry.documentation),
            ..DescribeConfigsResourceResult::default()
        }
    };
    entries.into_iter().filter(is_asked).map(result).collect()
}

/// The type of a setting, as Kafka numbers them.
fn config_type(entry: &ConfigEntry) -> i8 {
    const BOOLEAN: i8 = 1;
    const STRING: i8 = 2;
    const INT: i8 = 3;
    const LONG: i8 = 5;
    const DOUBLE: i8 = 6;
    const LIST: i8 = 7;
    match entry.name.as_str() {
        "cleanup.policy" => LIST,
        "min.cleanable.dirty.ratio" => DOUBLE,
        "retention.bytes" => LONG,
        name if name.ends_with(".ms") => LONG,
        name if name.ends_with(".bytes") || name.starts_with("num.") => INT,
        _ if matches!(entry.value.as_str(), "true" | "false") => BOOLEAN,
        _ => STRING,
    }
}

pub(in crate::server) fn alter(
    call: &Call<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let responses = request.resources.into_iter().map(|resource| {
        let altered = alter_one(call, &resource, request.validate_only);
        AlterConfigsResourceResponse {
            error_code: broker_code(&altered),
            error_message: message(&altered),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        }
    });
    IncrementalAlterConfigsResponse {
        responses: responses.collect(),
        ..IncrementalAlterConfigsResponse::default()
    }
}

fn alter_one(
    call: &Call<'_>,
    resource: &AlterConfigsResource,
    is_validation: bool,
) -> Result<(), BrokerError> {
    match resource.resource_type {
        TOPIC => {}
        BROKER => {
            call.allow_cluster(Operation::AlterConfigs)?;
            return Err(invalid(
                "the broker's own settings are given when it is started".to_owned(),
            ));
        }
        other => {
            return Err(invalid(format!(
                "resources of type {other} have no settings here"
            )));
        }
    }
    call.allow_topic(Operation::AlterConfigs, &resource.resource_name)?;
    let topic = topic_name(&resource.resource_name)?;
    let present = call.broker().describe_configs(&topic)?;
    let mut changes = BTreeMap::new();
    for config in &resource.configs {
        let change = changed(config, &present)?;
        if changes.insert(config.name.clone(), change).is_some() {
            return Err(invalid(format!(
                "the request changes {:?} twice",
                config.name
            )));
        }
    }
    match is_validation {
        true => call.broker().check_configs(&topic, &changes),
        false => call.broker().alter_configs(&topic, &changes),
    }
}

/// The new value of a setting; `None` takes it away.
fn changed(
    config: &AlterableConfig,
    present: &[ConfigEntry],
) -> Result<Option<String>, BrokerError> {
    let value = || {
        let missing = || invalid(format!("the setting {:?} has no value", config.name));
        config.value.clone().ok_or_else(missing)
    };
    match config.config_operation {
        SET => value().map(Some),
        DELETE => Ok(None),
        APPEND | SUBTRACT => {
            let entry = present.iter().find(|entry| entry.name == config.name);
            let entry = entry
                .filter(|entry| config_type(entry) == 7)
                .ok_or_else(|| {
                    let message = format!("the setting {:?} is not a list", config.name);
                    BrokerError::new(ErrorCode::InvalidConfig, message)
                })?;
            let value = value()?;
            let mut words: Vec<&str> = entry
                .value
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect();
            for word in value.split(',').map(str::trim) {
                words.retain(|present| *present != word);
                if config.config_operation == APPEND {
                    words.push(word);
                }
            }
            Ok(Some(words.join(",")))
        }
        other => Err(invalid(format!(
            "there is no operation {other} on settings"
        ))),
    }
}
