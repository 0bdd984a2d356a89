//! The sources and sinks that come with the crate.

mod callback;
mod lines;
mod topic_sink;
mod topic_source;
mod values;

pub use callback::{AtLeastOnce, at_least_once};
pub use lines::{Lines, lines};
pub use topic_sink::{Topic, topic};
pub use topic_source::{KeyedTopic, TopicReader, keyed_topic};
pub use values::{Values, values};
