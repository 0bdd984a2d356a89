//! The broker's own settings by Kafka's names: what DescribeConfigs shows of it. They are given where the server is started.

use super::super::config::{Limits, ServerConfig};
use super::super::dispatch::Call;
use super::NODE_ID;
use super::config_types::{BOOLEAN, INT, LIST, LONG, STRING, Setting, Source, broker_synonym};
use crate::broker::BrokerConfig;
use crate::protocol::messages::ConfigEntry;

/// A setting with its type, its value, and what it means.
type Row = (&'static str, i8, String, &'static str);

/// Every setting, with the value in force and the default.
pub(super) fn broker_settings(call: &Call<'_>) -> Vec<Setting> {
    let (server, broker) = (&call.dispatch.config, call.broker().config());
    let (server_default, broker_default) = (ServerConfig::default(), BrokerConfig::default());
    let mut settings = here(call);
    for (rows, defaults) in [
        (of_server(server), of_server(&server_default)),
        (of_limits(&server.limits), of_limits(&server_default.limits)),
        (of_broker(broker), of_broker(&broker_default)),
        (of_groups(broker), of_groups(&broker_default)),
    ] {
        let pairs = rows.into_iter().zip(defaults);
        settings.extend(pairs.map(|(row, default)| setting(row, Some(default.2))));
    }
    settings.extend(FIXED.iter().map(|&(name, kind, value, documentation)| {
        let row = (name, kind, value.to_owned(), documentation);
        setting(row, Some(value.to_owned()))
    }));
    settings.extend(of_topics(broker));
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    settings
}

/// A setting of the broker: its default, unless somebody gave another value at the start.
fn setting((name, kind, value, documentation): Row, default: Option<String>) -> Setting {
    let mut synonyms = Vec::new();
    if default.as_ref() != Some(&value) {
        synonyms.push((name.to_owned(), value.clone(), Source::AtStart));
    }
    if let Some(default) = default {
        synonyms.push((name.to_owned(), default, Source::Default));
    }
    Setting {
        name: name.to_owned(),
        value,
        kind,
        is_read_only: true,
        synonyms,
        documentation: documentation.to_owned(),
    }
}

/// Settings that have no default.
fn here(call: &Call<'_>) -> Vec<Setting> {
    let (server, session) = (&call.dispatch.config, call.session);
    let protocol = call.dispatch.protocol;
    let log_dir = call.broker().data_dir().join("log").display().to_string();
    let rows = [
        (
            "advertised.listeners",
            LIST,
            format!("{protocol}://{}", session.advertised()),
            "Where clients are told to connect to.",
        ),
        (
            "listeners",
            LIST,
            format!("{protocol}://{}", server.listen),
            "Where the server listens.",
        ),
        ("log.dirs", STRING, log_dir, "Where the partitions are."),
    ];
    rows.into_iter().map(|row| setting(row, None)).collect()
}

fn of_server(server: &ServerConfig) -> Vec<Row> {
    let mechanisms: Vec<_> = server.sasl.iter().map(|it| it.name()).collect();
    let super_users = server.super_users.iter().map(ToString::to_string);
    let super_users: Vec<_> = super_users.collect();
    vec![
        (
            "auto.create.topics.enable",
            BOOLEAN,
            server.auto_create_topics.to_string(),
            "Whether a topic that a client asks for is created.",
        ),
        (
            "num.partitions",
            INT,
            server.default_partitions.to_string(),
            "The partitions of a topic that is created without saying how many.",
        ),
        (
            "sasl.enabled.mechanisms",
            LIST,
            mechanisms.join(","),
            "How clients may prove who they are.",
        ),
        (
            "super.users",
            STRING,
            super_users.join(";"),
            "Who may do everything, whatever the access rules say.",
        ),
    ]
}

fn of_limits(limits: &Limits) -> Vec<Row> {
    vec![
        (
            "connections.max.idle.ms",
            LONG,
            limits.idle_timeout.as_millis().to_string(),
            "A connection without a request for so long is closed.",
        ),
        (
            "max.connections",
            INT,
            limits.connections_max.to_string(),
            "Connections in all.",
        ),
        (
            "max.connections.per.ip",
            INT,
            limits.connections_per_address_max.to_string(),
            "Connections from one address.",
        ),
        (
            "queued.max.request.bytes",
            LONG,
            limits.requests_bytes_max.to_string(),
            "All requests together that are being received or worked on, in bytes.",
        ),
        (
            "socket.request.max.bytes",
            INT,
            limits.request_bytes_max.to_string(),
            "The largest request, in bytes.",
        ),
    ]
}

fn of_broker(broker: &BrokerConfig) -> Vec<Row> {
    let millis = |time: std::time::Duration| time.as_millis().to_string();
    vec![
        (
            "log.flush.interval.ms",
            LONG,
            millis(broker.flush_interval),
            "Records that nobody waits for are synced after at most so long.",
        ),
        (
            "log.retention.check.interval.ms",
            LONG,
            millis(broker.housekeeping_interval),
            "How often retention and compaction are looked at.",
        ),
        (
            "producer.id.expiration.ms",
            INT,
            millis(broker.producer_id_expiration),
            "An idempotent producer unheard of for so long is forgotten.",
        ),
        (
            "transaction.max.timeout.ms",
            INT,
            millis(broker.transaction_max_timeout),
            "The longest transaction timeout that a producer may ask for.",
        ),
        (
            "transactional.id.expiration.ms",
            INT,
            millis(broker.transactional_id_expiration),
            "A transactional id unused for so long is forgotten.",
        ),
    ]
}

fn of_groups(broker: &BrokerConfig) -> Vec<Row> {
    let groups = &broker.groups;
    let millis = |time: std::time::Duration| time.as_millis().to_string();
    let minutes = groups.offsets_retention.map(|it| it.as_secs() / 60);
    vec![
        (
            "group.consumer.heartbeat.interval.ms",
            INT,
            millis(groups.consumer_heartbeat_interval),
            "How often members of the consumer protocol are told to come.",
        ),
        (
            "group.consumer.session.timeout.ms",
            INT,
            millis(groups.consumer_session_timeout),
            "Without a heartbeat for so long, a member of the consumer protocol is removed.",
        ),
        (
            "group.initial.rebalance.delay.ms",
            INT,
            millis(groups.initial_rebalance_delay),
            "The first members of an empty group wait so long for others.",
        ),
        (
            "group.max.session.timeout.ms",
            INT,
            millis(groups.session_timeout_max),
            "The longest session timeout that a classic member may ask for.",
        ),
        (
            "group.max.size",
            INT,
            groups.group_max_size.to_string(),
            "How many members a group may have.",
        ),
        (
            "group.min.session.timeout.ms",
            INT,
            millis(groups.session_timeout_min),
            "The shortest session timeout that a classic member may ask for.",
        ),
        (
            "offsets.retention.minutes",
            INT,
            minutes.map_or_else(|| i32::MAX.to_string(), |it| it.to_string()),
            "A position not renewed for so long is forgotten; the largest number: never.",
        ),
    ]
}

/// Settings fixed by there being one broker only.
const FIXED: &[(&str, i8, &str, &str)] = &[
    ("broker.id", INT, "0", "The number of the only broker."),
    (
        "default.replication.factor",
        INT,
        "1",
        "There is one broker, and it keeps one copy.",
    ),
    (
        "delete.topic.enable",
        BOOLEAN,
        "true",
        "Whether topics may be deleted.",
    ),
    (
        "group.consumer.assignors",
        LIST,
        "uniform,range",
        "How groups of the consumer protocol share partitions out.",
    ),
    (
        "group.coordinator.rebalance.protocols",
        LIST,
        "classic,consumer",
        "The protocols of groups.",
    ),
    ("node.id", INT, "0", "The number of the only broker."),
    (
        "offsets.topic.num.partitions",
        INT,
        "1",
        "The partitions of the journal of positions.",
    ),
    (
        "offsets.topic.replication.factor",
        INT,
        "1",
        "The copies of the journal of positions.",
    ),
    (
        "process.roles",
        LIST,
        "broker",
        "What the process is: there is no controller.",
    ),
    (
        "transaction.state.log.min.isr",
        INT,
        "1",
        "The copies of a decision that must be written.",
    ),
    (
        "transaction.state.log.num.partitions",
        INT,
        "1",
        "The partitions of the journal of transactions.",
    ),
    (
        "transaction.state.log.replication.factor",
        INT,
        "1",
        "The copies of the journal of transactions.",
    ),
];
const _: () = assert!(NODE_ID == 0, "`broker.id` and `node.id` say so");

/// The settings that topics have unless they say otherwise, by the broker's names for them.
fn of_topics(broker: &BrokerConfig) -> Vec<Setting> {
    let settings = crate::broker::topic_defaults().into_iter();
    let settings = settings.map(|default: ConfigEntry| {
        let name = broker_synonym(&default.name);
        let given = broker.topic_defaults.get(&default.name);
        let value = given.cloned().unwrap_or_else(|| default.value.clone());
        let kind = super::config_types::of_topic_setting(&default.name);
        let mut synonyms = Vec::new();
        if let Some(given) = given {
            synonyms.push((name.to_owned(), given.clone(), Source::AtStart));
        }
        synonyms.push((name.to_owned(), default.value, Source::Default));
        Setting {
            name: name.to_owned(),
            value,
            kind,
            is_read_only: true,
            synonyms,
            documentation: default.documentation,
        }
    });
    settings.collect()
}
