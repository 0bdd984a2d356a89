//! The names of a partition's files: Kafka's, 20 digits of the base offset and a suffix.

use std::path::{Path, PathBuf};

use crate::types::Offset;

/// Kind of a file in a partition's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FileKind {
    /// Record batches: the only file that is not derived.
    Log,
    /// Offset index.
    Index,
    /// Time index.
    TimeIndex,
    /// Aborted-transaction index.
    TxnIndex,
    /// Producer snapshot.
    Snapshot,
    /// Checksums of the derived files of a segment.
    Manifest,
}

impl FileKind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "index",
            Self::TimeIndex => "timeindex",
            Self::TxnIndex => "txnindex",
            Self::Snapshot => "snapshot",
            Self::Manifest => "manifest",
        }
    }

    fn from_suffix(suffix: &str) -> Option<Self> {
        [
            Self::Log,
            Self::Index,
            Self::TimeIndex,
            Self::TxnIndex,
            Self::Snapshot,
            Self::Manifest,
        ]
        .into_iter()
        .find(|kind| kind.suffix() == suffix)
    }
}

/// Parts of the name of a file in a partition's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// A file in use.
    Live(FileKind, Offset),
    /// A compacted segment that replaces others as soon as they are gone.
    Swap(Offset),
    /// A leftover of an interrupted write, deletion or compaction.
    Leftover,
    /// One of the partition's own text files.
    Partition,
    /// Nobody's: left alone.
    Foreign,
}

/// The partition's identity.
pub(crate) const METADATA: &str = "partition.metadata";
/// Which leader epoch began where; one epoch, as there is one leader.
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
/// Up to where the log was compacted: offsets below may be missing.
pub(crate) const CLEANER: &str = "cleaner-offset-checkpoint";

/// The path of a segment's file.
pub(crate) fn path(dir: &Path, kind: FileKind, base_offset: Offset) -> PathBuf {
    dir.join(format!("{:020}.{}", base_offset.0, kind.suffix()))
}

/// The path of a compacted segment that is being written.
pub(crate) fn cleaned_path(dir: &Path, base_offset: Offset) -> PathBuf {
    dir.join(format!("{:020}.log.cleaned", base_offset.0))
}

/// The path of a compacted segment that is complete.
pub(crate) fn swap_path(dir: &Path, base_offset: Offset) -> PathBuf {
    dir.join(format!("{:020}.log.swap", base_offset.0))
}

/// Reads a name.
pub(crate) fn parse(name: &str) -> Name {
    if matches!(name, METADATA | LEADER_EPOCHS | CLEANER) {
        return Name::Partition;
    }
    if let Some(whole) = name.strip_suffix(".tmp") {
        return match parse(whole) {
            Name::Foreign => Name::Foreign,
            _ => Name::Leftover,
        };
    }
    let Some((digits, suffix)) = name.split_once('.') else {
        return Name::Foreign;
    };
    let is_number = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    let Some(base_offset) = is_number.then(|| digits.parse().ok()).flatten().map(Offset) else {
        return Name::Foreign;
    };
    match suffix.split_once('.') {
        None => FileKind::from_suffix(suffix)
            .map_or(Name::Foreign, |kind| Name::Live(kind, base_offset)),
        Some(("log", "swap")) => Name::Swap(base_offset),
        Some((kind, "deleted" | "cleaned" | "swap")) if FileKind::from_suffix(kind).is_some() => {
            Name::Leftover
        }
        Some(_) => Name::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kafka() {
        let dir = Path::new("d");
        let path = path(dir, FileKind::Log, Offset(42));
        assert_eq!(path, dir.join("00000000000000000042.log"));
    }

    #[test]
    fn f20_only_known_names_are_taken_for_files_of_the_log() {
        let live = |kind| Name::Live(kind, Offset(7));
        for (name, expected) in [
            ("00000000000000000007.log", live(FileKind::Log)),
            ("00000000000000000007.txnindex", live(FileKind::TxnIndex)),
            ("00000000000000000007.log.swap", Name::Swap(Offset(7))),
            ("00000000000000000007.log.cleaned", Name::Leftover),
            ("00000000000000000007.log.deleted", Name::Leftover),
            ("00000000000000000007.index.deleted", Name::Leftover),
            ("partition.metadata", Name::Partition),
            ("partition.metadata.tmp", Name::Leftover),
            ("7.log", Name::Foreign),
            ("0000000000000000000x.log", Name::Foreign),
            ("99999999999999999999.log", Name::Foreign),
            ("00000000000000000007.log.bak", Name::Foreign),
            ("notes.tmp", Name::Foreign),
            ("00000000000000000007", Name::Foreign),
        ] {
            assert_eq!(parse(name), expected, "{name}");
        }
    }
}
