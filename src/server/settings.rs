//! The settings of a broker and its server by Kafka's names, for those who start it with words: `--set NAME=VALUE`.

use std::str::FromStr;
use std::time::Duration;

use super::config::ServerConfig;
use super::handlers::broker_synonym;
use super::{Limits, ServerError};
use crate::broker::{BrokerConfig, topic_defaults};
use crate::coordinator::group::Config as GroupConfig;

/// Sets one setting of a broker or its server, by Kafka's name (`max.connections`, `log.retention.ms`…). The defaults of
/// topics go by the broker's names for them. Two have names of ours: `queued.max.response.bytes`, all answers
/// that wait for slow readers, and what Kafka counts in minutes may be `-1` for ever.
///
/// # Errors
/// [`ServerError::Invalid`], with the name and the value, if there is no such setting or no such value of it.
pub fn set(
    server: &mut ServerConfig,
    broker: &mut BrokerConfig,
    name: &str,
    value: &str,
) -> Result<(), ServerError> {
    let is_known = set_server(server, name, value)?
        || set_limits(&mut server.limits, name, value)?
        || set_broker(broker, name, value)?
        || set_groups(&mut broker.groups, name, value)?;
    if is_known {
        return Ok(());
    }
    let defaults = topic_defaults();
    let of_topics = defaults.iter().find(|it| broker_synonym(&it.name) == name);
    let of_topics = of_topics.ok_or_else(|| ServerError::Invalid {
        what: format!("there is no setting {name:?} (docs/broker.md names those that there are)"),
    })?;
    let defaults = &mut broker.topic_defaults;
    defaults.insert(of_topics.name.clone(), value.to_owned());
    Ok(())
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T, ServerError> {
    value.trim().parse().map_err(|_| ServerError::Invalid {
        what: format!("{value:?} is no value of {name}"),
    })
}

fn millis(name: &str, value: &str) -> Result<Duration, ServerError> {
    Ok(Duration::from_millis(parse(name, value)?))
}

/// Whether it is one of these; so of all below.
fn set_server(server: &mut ServerConfig, name: &str, value: &str) -> Result<bool, ServerError> {
    match name {
        "auto.create.topics.enable" => server.auto_create_topics = parse(name, value)?,
        "num.partitions" => server.default_partitions = parse(name, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn set_limits(limits: &mut Limits, name: &str, value: &str) -> Result<bool, ServerError> {
    match name {
        "connections.max.idle.ms" => limits.idle_timeout = millis(name, value)?,
        "max.connections" => limits.connections_max = parse(name, value)?,
        "max.connections.per.ip" => limits.connections_per_address_max = parse(name, value)?,
        "queued.max.request.bytes" => limits.requests_bytes_max = parse(name, value)?,
        "queued.max.response.bytes" => limits.answers_bytes_max = parse(name, value)?,
        "socket.request.max.bytes" => limits.request_bytes_max = parse(name, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn set_broker(broker: &mut BrokerConfig, name: &str, value: &str) -> Result<bool, ServerError> {
    match name {
        "log.flush.interval.ms" => broker.flush_interval = millis(name, value)?,
        "log.retention.check.interval.ms" => broker.housekeeping_interval = millis(name, value)?,
        "producer.id.expiration.ms" => broker.producer_id_expiration = millis(name, value)?,
        "transaction.max.timeout.ms" => broker.transaction_max_timeout = millis(name, value)?,
        "transactional.id.expiration.ms" => {
            broker.transactional_id_expiration = millis(name, value)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn set_groups(groups: &mut GroupConfig, name: &str, value: &str) -> Result<bool, ServerError> {
    match name {
        "group.consumer.heartbeat.interval.ms" => {
            groups.consumer_heartbeat_interval = millis(name, value)?;
        }
        "group.consumer.session.timeout.ms" => {
            groups.consumer_session_timeout = millis(name, value)?;
        }
        "group.initial.rebalance.delay.ms" => {
            groups.initial_rebalance_delay = millis(name, value)?;
        }
        "group.max.session.timeout.ms" => groups.session_timeout_max = millis(name, value)?,
        "group.max.size" => groups.group_max_size = parse(name, value)?,
        "group.min.session.timeout.ms" => groups.session_timeout_min = millis(name, value)?,
        "offsets.retention.minutes" => {
            let minutes: i64 = parse(name, value)?;
            let minutes = u64::try_from(minutes).ok();
            let seconds = minutes.map(|it| it.saturating_mul(60));
            groups.offsets_retention = seconds.map(Duration::from_secs);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_go_by_kafkas_names() {
        let (mut server, mut broker) = (ServerConfig::default(), BrokerConfig::default());
        let mut set = |name, value| set(&mut server, &mut broker, name, value);
        for (name, value) in [
            ("max.connections", "7"),
            ("num.partitions", "3"),
            ("log.retention.ms", "1000"),
            ("message.max.bytes", "2000"),
            ("group.min.session.timeout.ms", "3000"),
            ("offsets.retention.minutes", "2"),
            ("transaction.max.timeout.ms", "60000"),
        ] {
            set(name, value).unwrap();
        }
        for (name, value) in [("max.connections", "many"), ("max.connection", "1")] {
            let error = set(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert_eq!(server.limits.connections_max, 7);
        assert_eq!(server.default_partitions, 3);
        assert_eq!(broker.topic_defaults["retention.ms"], "1000");
        assert_eq!(broker.topic_defaults["max.message.bytes"], "2000");
        assert_eq!(broker.groups.session_timeout_min, Duration::from_secs(3));
        let two_minutes = Some(Duration::from_secs(120));
        assert_eq!(broker.groups.offsets_retention, two_minutes);
        assert_eq!(broker.transaction_max_timeout, Duration::from_secs(60));
    }
}
