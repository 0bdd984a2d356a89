//! `onceflow log`: looks into the files of a data directory that nobody has open, and changes nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};

use super::format::{ByteFormat, Formatter};
use super::output::{self, Table};
use super::time;
use crate::env::{Env, File, OpenMode};
use crate::protocol::batch::{Batch, DecompressionLimit, HEADER_BYTES, Header};
use crate::types::Offset;

const EXAMPLES: &str = "\
Examples:
  onceflow log verify ./data                        every partition
  onceflow log verify ./data/log/lines-0            one partition
  onceflow log dump ./data/log/lines-0              its batches
  onceflow log dump --records ./data/log/lines-0/00000000000000000000.log

Both only read. Stop the process that uses the directory first: a batch that is being written looks torn.";

/// Look into the files of a stopped data directory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the batches of segments, one a line
    Dump {
        /// A data directory, a partition's directory, or a segment (.log)
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Also print the records, indented
        #[arg(long)]
        records: bool,
        /// How to show keys
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        key_format: ByteFormat,
        /// How to show values
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        value_format: ByteFormat,
    },
    /// Check every batch and every record; the exit code is 1 if one is damaged
    Verify {
        /// A data directory, a partition's directory, or a segment (.log)
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// Runs `onceflow log`.
pub(super) fn run(env: &Env, arguments: LogArguments) -> anyhow::Result<ExitCode> {
    match arguments.action {
        Action::Dump {
            path,
            records,
            key_format,
            value_format,
        } => {
            let shown = records.then_some((key_format, value_format));
            dump(env, &path, shown).map(|()| ExitCode::SUCCESS)
        }
        Action::Verify { path } => verify(env, &path),
    }
}

fn dump(env: &Env, path: &Path, records: Option<(ByteFormat, ByteFormat)>) -> anyhow::Result<()> {
    let mut out = output::stdout();
    for segment in find_segments(env, path)? {
        writeln!(out, "{}", segment.display())?;
        let mut walk = Walk::open(env, &segment)?;
        while let Some(batch) = walk.next()? {
            print_batch(&mut out, walk.position, &batch)?;
            if let Some((key, value)) = records {
                print_records(&mut out, &batch, key, value)?;
            }
            walk.advance(&batch);
        }
    }
    Ok(out.flush()?)
}

fn print_batch(out: &mut impl Write, position: u64, batch: &Batch) -> anyhow::Result<()> {
    let header = batch.header();
    write!(
        out,
        "  position: {position} baseOffset: {} lastOffset: {} count: {} size: {} time: {} compression: {}",
        header.base_offset,
        header.last_offset(),
        header.records_count,
        header.total_bytes(),
        time::format(header.max_timestamp),
        header.compression(),
    )?;
    if header.has_producer() {
        let producer = header.producer;
        write!(
            out,
            " producerId: {} producerEpoch: {} baseSequence: {}",
            producer.id, producer.epoch, header.base_sequence.0
        )?;
    }
    if header.is_transactional() {
        write!(out, " transactional")?;
    }
    if let Some(control) = batch.control()? {
        write!(
            out,
            " marker: {:?} coordinatorEpoch: {}",
            control.kind, control.coordinator_epoch
        )?;
    }
    Ok(writeln!(out)?)
}

fn print_records(
    out: &mut impl Write,
    batch: &Batch,
    key: ByteFormat,
    value: ByteFormat,
) -> anyhow::Result<()> {
    if batch.header().is_control() {
        return Ok(());
    }
    let formatter = Formatter {
        is_terminal: output::is_terminal(),
    };
    let mut records = batch.records(&DecompressionLimit::default())?;
    while let Some(record) = records.next() {
        let record = record?;
        writeln!(
            out,
            "    offset: {} time: {} key: {} value: {}",
            record.offset,
            time::format(record.timestamp),
            formatter.show(record.key, key),
            formatter.show(record.value, value),
        )?;
    }
    Ok(())
}

fn verify(env: &Env, path: &Path) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(&[
        "partition",
        "segments",
        "batches",
        "records",
        "size",
        "state",
    ]);
    let mut is_healthy = true;
    for (directory, segments) in by_directory(find_segments(env, path)?) {
        let checked = check_partition(env, &segments)?;
        is_healthy &= checked.damage.is_none();
        let name = directory.file_name().map_or_else(
            || directory.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        );
        table.row([
            output::printable(&name).into_owned(),
            segments.len().to_string(),
            checked.batches_count.to_string(),
            checked.records_count.to_string(),
            output::bytes(checked.size_bytes),
            checked
                .damage
                .or(checked.note)
                .unwrap_or_else(|| "whole".to_owned()),
        ]);
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    out.flush()?;
    Ok(match is_healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What was found in a partition.
#[derive(Debug, Default)]
struct Checked {
    batches_count: u64,
    records_count: u64,
    size_bytes: u64,
    /// The first damage, with its place. What comes after it was not looked at.
    damage: Option<String>,
    /// What is unusual but no damage.
    note: Option<String>,
}

/// Checks segments in their order: every batch's structure and checksum, every record, and that offsets only grow.
fn check_partition(env: &Env, segments: &[PathBuf]) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    let mut next = Offset::ZERO;
    for (index, path) in segments.iter().enumerate() {
        let mut walk = Walk::open(env, path)?;
        checked.size_bytes += walk.length_bytes;
        if let Err(why) = check_segment(&mut walk, &mut next, &mut checked) {
            let is_last = index + 1 == segments.len();
            let place = format!(
                "{} at position {}",
                path.file_name().unwrap_or_default().display(),
                walk.position
            );
            match walk.is_torn && is_last {
                true => {
                    checked.note = Some(format!(
                        "torn end: {place}: {why:#}; it is cut at the next open unless it was acknowledged"
                    ))
                }
                false => checked.damage = Some(format!("DAMAGED: {place}: {why:#}")),
            }
            return Ok(checked);
        }
    }
    Ok(checked)
}

fn check_segment(walk: &mut Walk, next: &mut Offset, checked: &mut Checked) -> anyhow::Result<()> {
    while let Some(batch) = walk.next()? {
        let header = batch.header();
        if header.base_offset < *next {
            bail!(
                "offset {} comes after offset {}",
                header.base_offset,
                next.0 - 1
            );
        }
        batch.check_crc()?;
        match header.is_control() {
            true => drop(batch.control()?),
            false => {
                let mut records = batch.records(&DecompressionLimit::default())?;
                while let Some(record) = records.next() {
                    record?;
                    checked.records_count += 1;
                }
            }
        }
        *next = header.next_offset();
        checked.batches_count += 1;
        walk.advance(&batch);
    }
    Ok(())
}

/// Goes through the batches of a segment without holding more than one.
struct Walk {
    file: Box<dyn File>,
    length_bytes: u64,
    /// Where the batch that is returned next begins.
    position: u64,
    /// Whether the file ended within the last batch looked at.
    is_torn: bool,
}

impl Walk {
    fn open(env: &Env, path: &Path) -> anyhow::Result<Self> {
        let file = env
            .files
            .open(path, OpenMode::Read)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let length_bytes = file.length_bytes()?;
        Ok(Self {
            file,
            length_bytes,
            position: 0,
            is_torn: false,
        })
    }

    /// The batch at the position; `None` at the end of the file.
    fn next(&mut self) -> anyhow::Result<Option<Batch>> {
        let left = self.length_bytes - self.position;
        if left == 0 {
            return Ok(None);
        }
        let mut head = [0; HEADER_BYTES];
        self.is_torn = left < HEADER_BYTES as u64;
        if self.is_torn {
            bail!("{left} bytes are less than a batch's header");
        }
        self.file.read_exact_at(&mut head, self.position)?;
        let total_bytes = Header::parse(&head)?.total_bytes();
        self.is_torn = total_bytes as u64 > left;
        if self.is_torn {
            bail!("a batch of {total_bytes} bytes begins, but only {left} are left");
        }
        let mut bytes = vec![0; total_bytes];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(Some(Batch::parse(Bytes::from(bytes))?))
    }

    /// Goes behind `batch`.
    fn advance(&mut self, batch: &Batch) {
        self.position += batch.bytes().len() as u64;
    }
}

/// The segments at or below `path`, in the order of partitions and offsets.
fn find_segments(env: &Env, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if is_segment(path) {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut segments = Vec::new();
    // A data directory holds `log/`, which holds the partitions, which hold the segments.
    for directory in [path.to_path_buf(), path.join("log")] {
        if env.files.exists(&directory)? {
            add_segments(env, &directory, 1, &mut segments)?;
        }
    }
    if segments.is_empty() {
        bail!(
            "there is no segment (.log) in {}: name a data directory, a partition's directory or a segment",
            path.display()
        );
    }
    segments.sort();
    segments.dedup();
    Ok(segments)
}

fn add_segments(
    env: &Env,
    directory: &Path,
    depth: u32,
    segments: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let entries = env
        .files
        .read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = directory.join(&entry.name);
        match entry.is_dir {
            true if depth > 0 => add_segments(env, &path, depth - 1, segments)?,
            false if is_segment(&path) => segments.push(path),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the name is a segment's: 20 digits and `.log`.
fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let digits = name.and_then(|name| name.strip_suffix(".log"));
    digits.is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Groups sorted segments by their directory.
fn by_directory(segments: Vec<PathBuf>) -> Vec<(PathBuf, Vec<PathBuf>)> {
    let mut groups: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
    for segment in segments {
        let directory = segment.parent().unwrap_or(Path::new(".")).to_path_buf();
        match groups.last_mut() {
            Some((last, members)) if *last == directory => members.push(segment),
            _ => groups.push((directory, vec![segment])),
        }
    }
    groups
}
