//! The sources and sinks that come with the crate.

mod byte_stream;
mod callback;
#[cfg(feature = "file-tables")]
pub(in crate::runtime) mod file_table;
mod files;
#[cfg(feature = "http")]
mod http_client;
mod lines;
#[cfg(feature = "postgres")]
pub(in crate::runtime) mod postgres;
#[cfg(feature = "registry")]
pub(in crate::runtime) mod registry;
mod topic_sink;
mod topic_source;
mod values;

pub use callback::{AtLeastOnce, at_least_once};
pub use files::{Files, Formatted, LineFormat, ValueLines, files};
#[cfg(feature = "http")]
pub use http_client::{HttpAnswer, HttpClient, HttpFailure, HttpRequest};
pub use lines::{Lines, lines, lines_of, stdin_lines};
pub use topic_sink::{TombstonePolicy, Topic, topic};
pub(in crate::runtime) use topic_source::keyed_letters;
pub use topic_source::{KeyedTopic, TopicReader, keyed_topic};
pub use values::{Values, values};
