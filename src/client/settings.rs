//! Settings by Kafka's names: as typed fields, as setters, and from a map of strings.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ClientError;
use crate::protocol::batch::Compression;
use crate::protocol::messages::Acks;
use crate::types::{GroupId, Isolation, TransactionalId};

/// A value that Kafka writes as a string.
pub(super) trait Setting: Sized {
    /// Reads it; `Err` says what is allowed.
    fn parse(text: &str) -> Result<Self, String>;
}

macro_rules! whole_number_setting {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| {
                    format!("a whole number from 0 to {} is needed", <$type>::MAX)
                })
            }
        }
    )*};
}
whole_number_setting!(u32, usize);

impl Setting for Duration {
    /// Kafka's durations are whole milliseconds.
    fn parse(text: &str) -> Result<Self, String> {
        let millis = text.trim().parse();
        let millis = millis.map_err(|_| "a whole number of milliseconds is needed".to_owned())?;
        Ok(Self::from_millis(millis))
    }
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.trim()
            .parse()
            .map_err(|_| "true or false is needed".to_owned())
    }
}

impl Setting for Acks {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "0" => Ok(Self::None),
            "1" => Ok(Self::Leader),
            "all" | "-1" => Ok(Self::All),
            _ => Err("0, 1 or all is needed".to_owned()),
        }
    }
}

impl Setting for Compression {
    fn parse(text: &str) -> Result<Self, String> {
        text.trim()
            .parse()
            .map_err(|_| "none, gzip, snappy, lz4 or zstd is needed".to_owned())
    }
}

impl Setting for Isolation {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "read_committed" => Ok(Self::ReadCommitted),
            "read_uncommitted" => Ok(Self::ReadUncommitted),
            _ => Err("read_committed or read_uncommitted is needed".to_owned()),
        }
    }
}

impl Setting for Option<i32> {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.trim().parse();
        number
            .map(Some)
            .map_err(|_| "a whole number is needed".to_owned())
    }
}

impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.trim().to_owned())
    }
}

impl Setting for Option<String> {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

impl Setting for Option<TransactionalId> {
    fn parse(text: &str) -> Result<Self, String> {
        TransactionalId::new(text)
            .map(Some)
            .map_err(|e| e.to_string())
    }
}

impl Setting for Option<GroupId> {
    fn parse(text: &str) -> Result<Self, String> {
        GroupId::new(text).map(Some).map_err(|e| e.to_string())
    }
}

/// A set of settings with Kafka's names and defaults.
pub(super) trait Settings: Default {
    /// Kafka's names, in the order of the fields.
    const NAMES: &'static [&'static str];

    /// Sets the one called `name`; `None` if there is none, `Err` says what is allowed.
    fn set(&mut self, name: &str, value: &str) -> Option<Result<(), String>>;

    /// Suggests for a name that is none the nearest one, or all.
    fn no_such_setting(name: &str) -> String {
        no_such_setting(name, Self::NAMES)
    }

    /// Defaults, changed by `map`.
    fn parse_map(map: &BTreeMap<String, String>) -> Result<Self, ClientError> {
        let mut settings = Self::default();
        for (name, value) in map {
            let outcome = settings.set(name, value);
            let outcome = outcome.unwrap_or_else(|| Err(Self::no_such_setting(name)));
            outcome.map_err(|why| config_error(name, shown(name, value), why))?;
        }
        Ok(settings)
    }
}

/// The names of all settings of producers, and of consumers.
pub(crate) fn setting_names() -> [&'static [&'static str]; 2] {
    [super::ProducerConfig::NAMES, super::ConsumerConfig::NAMES]
}

/// The name that a misspelt one was probably to be.
pub(crate) fn nearest_of<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let nearest = known.iter().min_by_key(|known| edit_distance(name, known));
    let nearest = nearest.filter(|known| edit_distance(name, known) <= DISTANCE_MAX);
    nearest.copied()
}

/// Suggests for a name that is not among those known the nearest one, or all.
pub(super) fn no_such_setting(name: &str, known: &[&str]) -> String {
    match nearest_of(name, known) {
        Some(known) => format!("there is no such setting; did you mean {known}?"),
        None => format!("there is no such setting; there are {}", known.join(", ")),
    }
}

/// Names that differ in more letters than this are not taken for misspelt.
const DISTANCE_MAX: usize = 6;

/// Counts the letters to put in, take out or replace to make `b` of `a`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Secrets are never shown, not even in an error about a name that is misspelt.
pub(super) fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    let is_secret = ["pass", "secret", "key", "token", "jaas"]
        .iter()
        .any(|word| name.contains(word));
    match is_secret {
        true => "***",
        false => value,
    }
}

pub(super) fn config_error(
    name: &str,
    value: impl std::fmt::Display,
    why: impl Into<String>,
) -> ClientError {
    ClientError::Config {
        name: name.to_owned(),
        value: value.to_string(),
        why: why.into(),
    }
}

/// Declares a struct of settings: field, type, default, Kafka's name; and, behind a `+`, one field that is none.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $struct:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty = $default:expr, $name:literal;)*
            $(+ $(#[$more_doc:meta])* $more:ident: $more_type:ty;)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub struct $struct {
            $($(#[$doc])* #[doc = concat!("\n\nKafka's `", $name, "`.")] pub $field: $type,)*
            $($(#[$more_doc])* $more: $more_type,)?
        }

        impl Default for $struct {
            fn default() -> Self {
                Self { $($field: $default,)* $($more: Default::default(),)? }
            }
        }

        impl $crate::client::settings::Settings for $struct {
            const NAMES: &'static [&'static str] = &[$($name),*];

            fn set(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
                match name {
                    $($name => Some(
                        <$type as $crate::client::settings::Setting>::parse(value)
                            .map(|value| self.$field = value),
                    ),)*
                    _ => None,
                }
            }
        }

        impl $struct {
            $(
                $(#[$doc])*
                #[doc = concat!("\n\nKafka's `", $name, "`.")]
                #[must_use]
                pub fn $field(mut self, value: impl Into<$type>) -> Self {
                    self.$field = value.into();
                    self
                }
            )*
        }
    };
}
pub(super) use settings;
