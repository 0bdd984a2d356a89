//! `onceflow log`: looks into the files of a data directory that nobody has open, and changes nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::format::{self, ByteFormat, Formatter};
use super::output::{self, Table};
use super::time;
use crate::env::Env;
use crate::log::{self, DumpedBatch, Finding, FindingKind, SegmentReport, VerifyReport};
use crate::protocol::batch::{Batch, BatchError, DecompressionLimit};

const EXAMPLES: &str = "\
Examples:
  onceflow log verify ./data                        every partition
  onceflow log verify ./data/log/lines-0            one partition
  onceflow log dump ./data/log/lines-0              its batches
  onceflow log dump ./data/log/lines-0 --records

Both only read. Stop the process that uses the directory first: a batch that is being written looks torn.";

/// Where a data directory keeps its partitions.
const LOG_DIRECTORY: &str = "log";

/// Look into the files of a stopped data directory.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the batches of segments, one a line; the exit code is 1 if one is damaged
    Dump {
        /// A data directory, or the directory of one of its partitions
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Also print the records, indented
        #[arg(long)]
        records: bool,
        /// Format of keys
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        key_format: ByteFormat,
        /// Format of values
        #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
        value_format: ByteFormat,
    },
    /// Check every batch and every record; the exit code is 1 if one is damaged
    Verify {
        /// A data directory, or the directory of one of its partitions
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
            dump(env, &path, shown)
        }
        Action::Verify { path } => verify(env, &path),
    }
}

fn dump(
    env: &Env,
    path: &Path,
    records: Option<(ByteFormat, ByteFormat)>,
) -> anyhow::Result<ExitCode> {
    let mut dumper = Dumper {
        out: output::stdout(),
        file: None,
        records,
    };
    let mut findings = Vec::new();
    for directory in partitions(env, path)? {
        let mut result = Ok(());
        let mut visit = |dumped: DumpedBatch| {
            result = dumper.print(&dumped);
            result.is_ok()
        };
        findings.extend(log::dump(env, &directory, &mut visit)?);
        result?;
    }
    match output::is_json() {
        true => {
            for finding in &findings {
                writeln!(dumper.out, "{}", finding_json(finding))?;
            }
            dumper.out.flush()?;
            Ok(exit_code(&findings))
        }
        false => print_findings(&mut dumper.out, &findings),
    }
}

/// Prints batches under the name of their segment.
struct Dumper {
    out: output::Stdout,
    file: Option<Arc<Path>>,
    records: Option<(ByteFormat, ByteFormat)>,
}

impl Dumper {
    fn print(&mut self, dumped: &DumpedBatch) -> anyhow::Result<()> {
        if output::is_json() {
            let object = batch_json(dumped, self.records)?;
            return Ok(writeln!(self.out, "{object}")?);
        }
        if self.file.as_ref() != Some(&dumped.file) {
            writeln!(self.out, "{}", dumped.file.display())?;
            self.file = Some(Arc::clone(&dumped.file));
        }
        print_batch(&mut self.out, dumped.position, &dumped.batch)?;
        match self.records {
            Some((key, value)) => print_records(&mut self.out, &dumped.batch, key, value),
            None => Ok(()),
        }
    }
}

/// A batch as one object, with the names that the text has.
fn batch_json(
    dumped: &DumpedBatch,
    records: Option<(ByteFormat, ByteFormat)>,
) -> anyhow::Result<serde_json::Value> {
    let (header, batch) = (dumped.batch.header(), &dumped.batch);
    let producer = header.has_producer().then_some(header.producer);
    let mut object = serde_json::json!({
        "file": &*dumped.file,
        "position": dumped.position,
        "baseOffset": header.base_offset.0,
        "lastOffset": header.last_offset().0,
        "count": header.records_count,
        "size": header.total_bytes(),
        "time": time::format(header.max_timestamp),
        "compression": header.compression().to_string(),
        "producerId": producer.map(|it| it.id.0),
        "producerEpoch": producer.map(|it| it.epoch.0),
        "isTransactional": header.is_transactional(),
        "marker": batch.control()?.map(|control| format!("{:?}", control.kind)),
    });
    if let Some(formats) = records
        && !header.is_control()
    {
        object["records"] = records_json(batch, formats);
    }
    Ok(object)
}

/// The records of a batch; the last entry is an error if one of them cannot be read.
fn records_json(batch: &Batch, (key, value): (ByteFormat, ByteFormat)) -> serde_json::Value {
    let bad = |error: BatchError| serde_json::json!({ "bad": error.to_string() });
    let mut records = match batch.records(&DecompressionLimit::default()) {
        Ok(records) => records,
        Err(error) => return serde_json::json!([bad(error)]),
    };
    let mut shown = Vec::new();
    while let Some(record) = records.next() {
        match record {
            Ok(record) => shown.push(serde_json::json!({
                "offset": record.offset.0,
                "time": time::format(record.timestamp),
                "key": format::json(record.key, key),
                "value": format::json(record.value, value),
            })),
            Err(error) => {
                shown.push(bad(error));
                break;
            }
        }
    }
    shown.into()
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
        null: format::NULL,
    };
    let mut records = match batch.records(&DecompressionLimit::default()) {
        Ok(records) => records,
        Err(error) => return print_bad(out, &error),
    };
    while let Some(record) = records.next() {
        let record = match record {
            Ok(record) => record,
            Err(error) => return print_bad(out, &error),
        };
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

fn print_bad(out: &mut impl Write, error: &BatchError) -> anyhow::Result<()> {
    let error = error.to_string();
    Ok(writeln!(out, "    BAD: {}", output::printable(&error))?)
}

fn verify(env: &Env, path: &Path) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(&[
        "partition",
        "segments",
        "batches",
        "records",
        "size",
        "indexes",
        "state",
    ])
    .with_numbers(&["segments", "batches", "records", "size"]);
    let mut findings = Vec::new();
    for directory in partitions(env, path)? {
        let report = log::verify(env, &directory)?;
        let sum = |of: fn(&SegmentReport) -> u64| report.segments.iter().map(of).sum::<u64>();
        let has_indexes = report.segments.iter().all(|segment| segment.has_indexes);
        table.row([
            name_of(&directory),
            report.segments.len().to_string(),
            sum(|segment| segment.batches_count).to_string(),
            sum(|segment| segment.records_count).to_string(),
            output::size(sum(|segment| segment.size_bytes)),
            if has_indexes {
                "whole"
            } else {
                "to be rebuilt"
            }
            .to_owned(),
            state_of(&report).to_owned(),
        ]);
        findings.extend(report.findings);
    }
    let mut out = output::stdout();
    if output::is_json() {
        let findings_json: Vec<_> = findings.iter().map(finding_json).collect();
        let object = serde_json::json!({ "partitions": table.json(), "findings": findings_json });
        writeln!(out, "{object}")?;
        out.flush()?;
        return Ok(exit_code(&findings));
    }
    table.print(&mut out)?;
    print_findings(&mut out, &findings)
}

/// The partition's state in a word.
fn state_of(report: &VerifyReport) -> &'static str {
    let is_damage = |finding: &Finding| finding.kind != FindingKind::BadBatch;
    match (report.is_sound(), report.findings.iter().any(is_damage)) {
        (true, _) => "sound",
        (false, true) => "DAMAGED",
        (false, false) => "BAD BATCHES",
    }
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    serde_json::json!({
        "finding": finding_name(finding),
        "file": finding.file,
        "position": finding.position,
        "why": finding.why,
    })
}

fn finding_name(finding: &Finding) -> &'static str {
    match finding.kind {
        FindingKind::BadBatch => "BAD BATCH",
        _ => "DAMAGE",
    }
}

fn exit_code(findings: &[Finding]) -> ExitCode {
    match findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Prints what was found; the exit code says whether there was any.
fn print_findings(out: &mut impl Write, findings: &[Finding]) -> anyhow::Result<ExitCode> {
    for finding in findings {
        let why = output::printable(&finding.why);
        let kind = finding_name(finding);
        let (file, position) = (finding.file.display(), finding.position);
        writeln!(out, "{kind} {file}, byte {position}: {why}")?;
    }
    let has = |kind| findings.iter().any(|finding| finding.kind == kind);
    if has(FindingKind::BadBatch) {
        writeln!(
            out,
            "A bad batch is as its producer sent it: a consumer goes on behind it by a seek."
        )?;
    }
    if has(FindingKind::Damage) {
        writeln!(
            out,
            "Damage at the very end of a partition's last segment may be a torn write, which the next opening cuts."
        )?;
    }
    out.flush()?;
    Ok(exit_code(findings))
}

fn name_of(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or(directory.as_os_str());
    output::printable(&name.to_string_lossy()).into_owned()
}

/// The partitions' directories: `path` itself, or those below it if it is a data directory.
fn partitions(env: &Env, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = |directory: &Path| {
        env.files
            .read_dir(directory)
            .with_context(|| format!("cannot read {}", directory.display()))
    };
    if path
        .file_name()
        .is_some_and(|name| is_segment(&name.to_string_lossy()))
    {
        bail!(
            "{} is a segment: name the directory that it is in",
            path.display()
        );
    }
    if list(path)?.iter().any(|entry| is_segment(&entry.name)) {
        return Ok(vec![path.to_path_buf()]);
    }
    let below = path.join(LOG_DIRECTORY);
    let below = if env.files.exists(&below)? {
        below
    } else {
        path.to_path_buf()
    };
    let mut found = Vec::new();
    for entry in list(&below)?.into_iter().filter(|entry| entry.is_dir) {
        let directory = below.join(&entry.name);
        if list(&directory)?
            .iter()
            .any(|entry| is_segment(&entry.name))
        {
            found.push(directory);
        }
    }
    if found.is_empty() {
        bail!(
            "there is no segment (.log) in {}: name a data directory, or the directory of one of its partitions",
            path.display()
        );
    }
    Ok(found)
}

/// Whether the name is a segment's: 20 digits and `.log`.
fn is_segment(name: &str) -> bool {
    let digits = name.strip_suffix(".log");
    digits.is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
}
