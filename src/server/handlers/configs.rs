//! DescribeConfigs, IncrementalAlterConfigs, AlterConfigs.

use std::collections::{BTreeMap, BTreeSet};

use super::super::dispatch::Call;
use super::super::security::Operation;
use super::broker_settings::broker_settings;
use super::config_types::{DOUBLE, LIST, Setting, Source, broker_synonym, of_topic_setting};
use super::{NODE_ID, broker_code, group_id, message, topic_name};
use crate::broker::{BrokerError, topic_defaults};
use crate::protocol::ErrorCode;
use crate::protocol::messages::ConfigEntry;
use crate::protocol::wire::messages::alter_configs as ac;
use crate::protocol::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::protocol::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use crate::types::TopicName;

/// Kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
/// Operations on a value.
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
) -> Result<Vec<Setting>, BrokerError> {
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            call.allow_topic(Operation::DescribeConfigs, name)?;
            topic_settings(call, name)
        }
        GROUP => {
            call.allow_group(Operation::DescribeConfigs, name)?;
            group_id(name)?;
            Ok(group_settings(call))
        }
        BROKER => {
            call.allow_cluster(Operation::DescribeConfigs)?;
            match name.is_empty() || *name == NODE_ID.to_string() {
                true => Ok(broker_settings(call)),
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

/// The settings of a topic: what was set on it, what was given when the broker was started, and the defaults.
fn topic_settings(call: &Call<'_>, name: &str) -> Result<Vec<Setting>, BrokerError> {
    let entries = call.broker().describe_configs(&topic_name(name)?)?;
    let given = &call.broker().config().topic_defaults;
    let defaults = topic_defaults().into_iter();
    let settings = entries.into_iter().zip(defaults).map(|(entry, default)| {
        let synonym = broker_synonym(&entry.name).to_owned();
        let mut synonyms = Vec::new();
        if !entry.is_default {
            let value = shown(&entry.name, entry.value.clone());
            synonyms.push((entry.name.clone(), value, Source::OnTopic));
        }
        if let Some(given) = given.get(&entry.name) {
            synonyms.push((synonym.clone(), given.clone(), Source::AtStart));
        }
        synonyms.push((synonym, default.value, Source::Default));
        Setting {
            kind: of_topic_setting(&entry.name),
            value: shown(&entry.name, entry.value),
            name: entry.name,
            is_read_only: false,
            synonyms,
            documentation: entry.documentation,
        }
    });
    Ok(settings.collect())
}

/// The value of a topic's setting as Kafka shows it: numbers with a fraction always have one.
fn shown(name: &str, value: String) -> String {
    match value.parse::<f64>() {
        Ok(number) if of_topic_setting(name) == DOUBLE => format!("{number:?}"),
        _ => value,
    }
}

/// The settings of a group: those of the consumer protocol, which are the broker's for all groups.
fn group_settings(call: &Call<'_>) -> Vec<Setting> {
    let of_group = |mut setting: Setting| {
        let name = setting.name.strip_prefix("group.")?.to_owned();
        let is_one = matches!(
            name.as_str(),
            "consumer.heartbeat.interval.ms" | "consumer.session.timeout.ms"
        );
        setting.name = name;
        is_one.then_some(setting)
    };
    let settings = broker_settings(call).into_iter();
    settings.filter_map(of_group).collect()
}

fn described(
    settings: Vec<Setting>,
    resource: &DescribeConfigsResource,
    with_synonyms: bool,
    with_documentation: bool,
) -> Vec<DescribeConfigsResourceResult> {
    let is_asked = |setting: &Setting| match &resource.configuration_keys {
        Some(keys) => keys.contains(&setting.name),
        None => true,
    };
    let result = |setting: Setting| {
        let source = setting.source().number();
        let synonyms = setting.synonyms.into_iter().filter(|_| with_synonyms);
        let synonyms = synonyms.map(|(name, value, source)| DescribeConfigsSynonym {
            name,
            value: Some(value),
            source: source.number(),
        });
        DescribeConfigsResourceResult {
            config_type: setting.kind,
            name: setting.name,
            value: Some(setting.value),
            read_only: setting.is_read_only,
            config_source: source,
            synonyms: synonyms.collect(),
            documentation: with_documentation.then_some(setting.documentation),
            ..DescribeConfigsResourceResult::default()
        }
    };
    settings.into_iter().filter(is_asked).map(result).collect()
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

/// The topic whose settings a request changes.
///
/// # Errors
/// If the resource is not a topic, or the client may not change its settings.
fn altered_topic(call: &Call<'_>, kind: i8, name: &str) -> Result<TopicName, BrokerError> {
    match kind {
        TOPIC => {
            call.allow_topic(Operation::AlterConfigs, name)?;
            topic_name(name)
        }
        BROKER => {
            call.allow_cluster(Operation::AlterConfigs)?;
            Err(invalid(
                "the broker's own settings are given when it is started".to_owned(),
            ))
        }
        other => Err(invalid(format!(
            "resources of type {other} have no settings here"
        ))),
    }
}

/// AlterConfigs: what the request does not name has its default again.
pub(in crate::server) fn replace(
    call: &Call<'_>,
    request: ac::AlterConfigsRequest,
) -> ac::AlterConfigsResponse {
    let responses = request.resources.into_iter().map(|resource| {
        let replaced = replace_one(call, &resource, request.validate_only);
        ac::AlterConfigsResourceResponse {
            error_code: broker_code(&replaced),
            error_message: message(&replaced),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        }
    });
    ac::AlterConfigsResponse {
        responses: responses.collect(),
        ..ac::AlterConfigsResponse::default()
    }
}

fn replace_one(
    call: &Call<'_>,
    resource: &ac::AlterConfigsResource,
    is_validation: bool,
) -> Result<(), BrokerError> {
    let topic = altered_topic(call, resource.resource_type, &resource.resource_name)?;
    let present = call.broker().describe_configs(&topic)?;
    let set = present.into_iter().filter(|entry| !entry.is_default);
    let mut changes: BTreeMap<_, _> = set.map(|entry| (entry.name, None)).collect();
    let mut named = BTreeSet::new();
    for config in &resource.configs {
        let Some(value) = config.value.clone() else {
            return Err(invalid(format!(
                "the setting {:?} has no value",
                config.name
            )));
        };
        if !named.insert(&config.name) {
            return Err(twice(&config.name));
        }
        changes.insert(config.name.clone(), Some(value));
    }
    change(call, &topic, &changes, is_validation)
}

fn twice(name: &str) -> BrokerError {
    invalid(format!("the request changes {name:?} twice"))
}

fn change(
    call: &Call<'_>,
    topic: &TopicName,
    changes: &BTreeMap<String, Option<String>>,
    is_validation: bool,
) -> Result<(), BrokerError> {
    match is_validation {
        true => call.broker().check_configs(topic, changes),
        false => call.broker().alter_configs(topic, changes),
    }
}

fn alter_one(
    call: &Call<'_>,
    resource: &AlterConfigsResource,
    is_validation: bool,
) -> Result<(), BrokerError> {
    let topic = altered_topic(call, resource.resource_type, &resource.resource_name)?;
    let present = call.broker().describe_configs(&topic)?;
    let mut changes = BTreeMap::new();
    for config in &resource.configs {
        let change = changed(config, &present)?;
        if changes.insert(config.name.clone(), change).is_some() {
            return Err(twice(&config.name));
        }
    }
    change(call, &topic, &changes, is_validation)
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
                .filter(|entry| of_topic_setting(&entry.name) == LIST)
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
