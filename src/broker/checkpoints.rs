//! The offset checkpoints beside the partitions, as Kafka names and writes them, and the mark of an orderly end.
//!
//! ```text
//! 0                       version
//! 2                       entries
//! lines 0 1042            topic, partition, offset
//! lines 1 977
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::BrokerError;
use super::error::io_error;
use crate::env::Env;
use crate::types::{Offset, TopicName, TopicPartition};

/// Everything below these offsets was synced.
const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
/// Everything below these offsets was deleted.
const LOG_START: &str = "log-start-offset-checkpoint";
/// Present only while no broker has the directory open and the last one was closed in order.
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// No checkpoint is larger, in bytes: about 200,000 partitions.
const LENGTH_BYTES_MAX: u64 = 64 << 20;

/// An offset for each partition.
pub(super) type Offsets = HashMap<TopicPartition, Offset>;

/// The checkpoint files of a `log` directory.
pub(super) struct Checkpoints {
    env: Env,
    dir: PathBuf,
}

impl Checkpoints {
    pub(super) fn new(env: &Env, dir: PathBuf) -> Self {
        Self {
            env: env.clone(),
            dir,
        }
    }

    pub(super) fn read_recovery_points(&self) -> Result<Offsets, BrokerError> {
        self.read(RECOVERY_POINT)
    }

    pub(super) fn read_log_starts(&self) -> Result<Offsets, BrokerError> {
        self.read(LOG_START)
    }

    pub(super) fn write_recovery_points(&self, offsets: &Offsets) -> Result<(), BrokerError> {
        self.write(RECOVERY_POINT, offsets)
    }

    pub(super) fn write_log_starts(&self, offsets: &Offsets) -> Result<(), BrokerError> {
        self.write(LOG_START, offsets)
    }

    /// Whether the last broker was closed in order.
    pub(super) fn is_clean(&self) -> Result<bool, BrokerError> {
        let path = self.dir.join(CLEAN_SHUTDOWN);
        let exists = self.env.files.exists(&path);
        exists.map_err(|e| io_error(&e, "look for", &path))
    }

    /// Says that everything was synced and closed.
    pub(super) fn write_clean(&self) -> Result<(), BrokerError> {
        let path = self.dir.join(CLEAN_SHUTDOWN);
        let content = b"{\"version\":0,\"brokerEpoch\":-1}\n";
        let replaced = self.env.files.replace(&path, content);
        replaced.map_err(|e| io_error(&e, "write", &path))
    }

    /// Takes the mark of an orderly end away, durably: from now on a crash may leave torn tails.
    pub(super) fn remove_clean(&self) -> Result<(), BrokerError> {
        let path = self.dir.join(CLEAN_SHUTDOWN);
        if !self.is_clean()? {
            return Ok(());
        }
        let files = &self.env.files;
        let removed = files.remove_file(&path);
        removed
            .and_then(|()| files.sync_dir(&self.dir))
            .map_err(|e| io_error(&e, "remove", &path))
    }

    fn read(&self, name: &str) -> Result<Offsets, BrokerError> {
        let path = self.dir.join(name);
        let files = &self.env.files;
        if !files
            .exists(&path)
            .map_err(|e| io_error(&e, "look for", &path))?
        {
            return Ok(Offsets::new());
        }
        let bytes = files
            .read(&path, LENGTH_BYTES_MAX)
            .map_err(|e| io_error(&e, "read", &path))?;
        Ok(parse(&bytes).unwrap_or_else(|| {
            // I11: it only makes recovery shorter and its refusals sharper; decision records carry the same marks.
            crate::env::warn!(path = %path.display(), "ignored a damaged checkpoint");
            Offsets::new()
        }))
    }

    fn write(&self, name: &str, offsets: &Offsets) -> Result<(), BrokerError> {
        let path = self.dir.join(name);
        let replaced = self.env.files.replace(&path, format(offsets).as_bytes());
        replaced.map_err(|e| io_error(&e, "replace", &path))
    }
}

/// The directory of a partition below `log`.
pub(super) fn partition_dir(log_dir: &Path, partition: &TopicPartition) -> PathBuf {
    log_dir.join(partition.to_string())
}

fn format(offsets: &Offsets) -> String {
    let mut lines: Vec<_> = offsets
        .iter()
        .map(|(name, offset)| format!("{} {} {offset}\n", name.topic, name.partition))
        .collect();
    lines.sort_unstable();
    format!("0\n{}\n{}", lines.len(), lines.concat())
}

fn parse(bytes: &[u8]) -> Option<Offsets> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let offsets: Offsets = lines.map(parse_line).collect::<Option<_>>()?;
    (offsets.len() == count).then_some(offsets)
}

fn parse_line(line: &str) -> Option<(TopicPartition, Offset)> {
    let mut words = line.split(' ');
    let topic = TopicName::new(words.next()?).ok()?;
    let partition = words.next()?.parse().ok()?;
    let offset = Offset(words.next()?.parse().ok()?);
    let is_legal = words.next().is_none() && partition >= 0 && offset.0 >= 0;
    is_legal.then(|| (TopicPartition::new(topic, partition), offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new(topic).unwrap(), partition)
    }

    #[test]
    fn checkpoints_are_written_as_kafka_writes_them() {
        let offsets = Offsets::from([
            (partition("lines", 1), Offset(977)),
            (partition("lines", 0), Offset(1042)),
        ]);
        let text = format(&offsets);
        assert_eq!(text, "0\n2\nlines 0 1042\nlines 1 977\n");
        assert_eq!(parse(text.as_bytes()), Some(offsets));
    }

    #[test]
    fn a_damaged_checkpoint_is_not_half_believed() {
        for text in [
            "",
            "1\n0\n",
            "0\n2\na 0 1\n",
            "0\n1\na 0\n",
            "0\n1\na 0 1 2\n",
            "0\n1\n../a 0 1\n",
            "0\n1\na 0 -1\n",
            "0\n2\na 0 1\na 0 2\n",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
