//! Asking: a step becomes a request of one side, and its answer text. And what every reader sees in the end.

use std::fmt::Write as _;

use super::seen;
use super::side::{Side, line, name};
use super::steps::{Ask, PARTITIONS, Step};

/// The text where there was no answer.
const CLOSED: &str = "closed the connection\n";

impl Side {
    /// Asks a step and gives the answer, line by line.
    pub(super) fn run(&mut self, step: &Step) -> String {
        let answer = match &step.ask {
            Ask::Produce { .. } => self.produce(step),
            Ask::Fetch { .. } => self.fetch(step),
            Ask::ListOffsets { .. } => self.list_offsets(step),
            Ask::DeleteRecords { .. } => self.delete_records(step),
            Ask::EpochEnd { .. } => self.epoch_end(step),
            Ask::InitProducer { .. } => self.init(step),
            Ask::AddPartitions { .. } => self.add_partitions(step),
            Ask::AddOffsets { .. } => self.add_offsets(step),
            Ask::TxnOffsets { .. } => self.txn_offsets(step),
            Ask::EndTransaction { .. } => self.end(step),
            Ask::CommitOffsets { .. } => self.commit_offsets(step),
            Ask::FetchOffsets { .. } => self.fetch_offsets(step),
            Ask::DeleteOffsets { .. } => self.delete_offsets(step),
            Ask::DescribeProducers { .. } => self.describe_producers(step),
            Ask::DescribeTransaction { .. } => self.describe_transaction(step),
            Ask::AlterConfig { .. } => self.alter(step),
            Ask::ReplaceConfigs { .. } => self.replace(step),
            Ask::DescribeConfigs { .. } => self.describe_configs(step),
            Ask::CreateTopic { .. } => self.create_topic(step),
            Ask::GrowTopic { .. } => self.grow(step),
            Ask::DeleteTopic { .. } => self.delete_topic(step),
            Ask::Metadata => self.metadata(step),
        };
        answer.unwrap_or_else(|| CLOSED.to_owned())
    }

    /// The view of every reader in the end: by both isolations, by every place and time that can be looked up.
    pub(super) fn outcome(&mut self) -> String {
        let mut text = String::new();
        if !self.until_ended() {
            line(&mut text, format_args!("a transaction does not end"));
        }
        for partition in 0..PARTITIONS {
            for isolation in [0, 1] {
                let read = self.read_all(partition, isolation);
                line(
                    &mut text,
                    format_args!("partition {partition}, isolation {isolation}:\n{read}"),
                );
                for time in [-1, -2, -3] {
                    let found = self.offset_of(partition, isolation, time);
                    line(&mut text, format_args!("  {time} is at {found}"));
                }
                for time in [-1_000_000, -50, 0, 1, 3_000_000] {
                    let found = self.offset_of(partition, isolation, self.base_time + time);
                    line(&mut text, format_args!("  {time:+} is at {found}"));
                }
            }
        }
        text
    }

    /// All batches from the first offset to the end that the isolation shows.
    fn read_all(&mut self, partition: i32, isolation: i8) -> String {
        let first = self.ask(4, &self.list_request(partition, 0, -2));
        let mut offset = first.map_or(0, |answer| answer.topics[0].partitions[0].offset);
        let mut text = String::new();
        let mut announced = Vec::new();
        loop {
            let request = self.fetch_request(partition, isolation, offset, 1 << 20);
            let answer = self.ask(11, &request).expect("records are read");
            let read = answer.responses[0].partitions[0].clone();
            line(
                &mut text,
                format_args!(
                    "  {}, end {}, stable {}, start {}",
                    name(read.error_code),
                    read.high_watermark,
                    read.last_stable_offset,
                    read.log_start_offset
                ),
            );
            announced.extend(seen::aborted(self, &read).1);
            let (batches, next) = seen::batches(self, read.records.into_bytes());
            text += &batches;
            match next {
                Some(next) if next > offset => offset = next,
                _ => break,
            }
        }
        announced.sort();
        announced.dedup();
        for (start, producer) in announced {
            writeln!(text, "  aborted: {producer} from {start}").unwrap();
        }
        text
    }

    pub(super) fn offset_of(&mut self, partition: i32, isolation: i8, time: i64) -> String {
        let request = self.list_request(partition, isolation, time);
        let answer = self.ask(7, &request);
        answer.map_or_else(|| CLOSED.to_owned(), |answer| self.listed(&answer))
    }
}
