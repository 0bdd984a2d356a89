//! Effects of a power loss on the changes that no sync covered.

use std::collections::BTreeMap;

use super::image::Image;
use super::random::SimulatedRandom;
use super::storage::{
    ByteChange, DirNode, FileNode, Inode, Names, Node, ROOT, Sequence, Storage, TwoSided,
};
use crate::env::Random;

/// A sector, the unit that a disk writes atomically, in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// A page of the page cache, the unit that the kernel writes back, in bytes.
pub const CACHE_PAGE_BYTES: u64 = 4096;

/// Which unsynced bytes and sizes survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataLoss {
    /// None of them.
    Everything,
    /// All of them.
    Nothing,
    /// A prefix of the world's changes, in the order in which they were made.
    Suffix,
    /// Each block of `grain_bytes` and each file's size is as it was at some moment since the last
    /// sync, independently of all others: the kernel writes back in any order.
    Blocks {
        /// The block's size in bytes.
        grain_bytes: u64,
    },
    /// All but the end of the very last write, which is torn at a multiple of `grain_bytes`.
    LastWriteTorn {
        /// The block's size in bytes.
        grain_bytes: u64,
    },
    /// Sizes survive and bytes don't: files are extended by zeros.
    ZeroFilled,
}

/// Which unsynced names survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameLoss {
    /// None of the changes.
    Everything,
    /// All of them.
    Nothing,
    /// A prefix of them, at the same moment as [`DataLoss::Suffix`] if both are chosen.
    Suffix,
    /// Each one or not, independently of all others.
    Some,
}

/// One way to lose power. Equal values leave equal disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerLoss {
    /// Loss of bytes and sizes.
    pub data: DataLoss,
    /// Loss of names.
    pub names: NameLoss,
    /// Settles what `data` and `names` leave to chance.
    pub seed: u64,
}

impl PowerLoss {
    /// Nothing unsynced survives.
    pub const STRICT: Self = Self {
        data: DataLoss::Everything,
        names: NameLoss::Everything,
        seed: 0,
    };

    /// Every way to lose data with every way to lose names: 32 ways, each with `seed`.
    pub fn every_mode(seed: u64) -> impl Iterator<Item = Self> {
        const DATA: [DataLoss; 8] = [
            DataLoss::Everything,
            DataLoss::Nothing,
            DataLoss::Suffix,
            DataLoss::Blocks {
                grain_bytes: SECTOR_BYTES,
            },
            DataLoss::Blocks {
                grain_bytes: CACHE_PAGE_BYTES,
            },
            DataLoss::LastWriteTorn {
                grain_bytes: SECTOR_BYTES,
            },
            DataLoss::LastWriteTorn {
                grain_bytes: CACHE_PAGE_BYTES,
            },
            DataLoss::ZeroFilled,
        ];
        const NAMES: [NameLoss; 4] = [
            NameLoss::Everything,
            NameLoss::Nothing,
            NameLoss::Suffix,
            NameLoss::Some,
        ];
        DATA.into_iter().flat_map(move |data| {
            NAMES
                .into_iter()
                .map(move |names| Self { data, names, seed })
        })
    }

    /// The same loss for a disk where it has less to choose from: what nothing is pending for is settled.
    pub(super) fn simplified(mut self, storage: &Storage) -> Self {
        let has_pending = |is_asked: fn(&Node) -> bool| {
            let mut nodes = storage.nodes().filter(|node| is_asked(node));
            nodes.any(|node| !pending(node).is_empty())
        };
        if !has_pending(|node| matches!(node, Node::File(_))) {
            self.data = DataLoss::Everything;
        }
        if !has_pending(|node| matches!(node, Node::Dir(_))) {
            self.names = NameLoss::Everything;
        }
        self
    }

    /// The disk after the power came back.
    pub(super) fn apply(&self, storage: &Storage) -> Storage {
        let mut survival = Survival {
            loss: *self,
            random: SimulatedRandom::new(self.seed),
            cut: 0,
            last_write: last_write(storage),
            storage,
            nodes: BTreeMap::new(),
        };
        survival.cut = survival.choose_cut();
        survival.keep_dir(ROOT);
        Storage::from_nodes(survival.nodes)
    }
}

struct Survival<'a> {
    loss: PowerLoss,
    random: SimulatedRandom,
    /// Changes before it survive, for the `Suffix` losses.
    cut: Sequence,
    last_write: Option<Sequence>,
    storage: &'a Storage,
    nodes: BTreeMap<Inode, Node>,
}

impl Survival<'_> {
    fn choose_cut(&self) -> Sequence {
        let mut sequences: Vec<Sequence> = self.storage.nodes().flat_map(pending).collect();
        sequences.sort_unstable();
        let kept_count = self.random.below(sequences.len() as u64 + 1);
        let first_lost = usize::try_from(kept_count)
            .ok()
            .and_then(|index| sequences.get(index));
        first_lost.copied().unwrap_or(Sequence::MAX)
    }

    /// Copies a directory's surviving names and, below it, all that they lead to. What no name leads to is gone.
    fn keep_dir(&mut self, inode: Inode) {
        let Some(Node::Dir(dir)) = self.storage.node(inode) else {
            return;
        };
        let names = self.surviving_names(dir);
        let children: Vec<Inode> = names.values().copied().collect();
        self.nodes
            .insert(inode, Node::Dir(TwoSided::settled(names)));
        for child in children {
            if self.nodes.contains_key(&child) {
                continue;
            }
            match self.storage.node(child) {
                Some(Node::File(file)) => {
                    let image = self.surviving_bytes(file);
                    self.nodes
                        .insert(child, Node::File(TwoSided::settled(image)));
                }
                Some(Node::Dir(_)) => self.keep_dir(child),
                None => {}
            }
        }
    }

    fn surviving_names(&self, dir: &DirNode) -> Names {
        let mut names = dir.durable.clone();
        for (sequence, change) in &dir.pending {
            let is_kept = match self.loss.names {
                NameLoss::Everything => false,
                NameLoss::Nothing => true,
                NameLoss::Suffix => *sequence < self.cut,
                NameLoss::Some => self.random.below(2) == 0,
            };
            if is_kept {
                change.apply(&mut names);
            }
        }
        names
    }

    fn surviving_bytes(&self, file: &FileNode) -> Image {
        let mut image = file.durable.clone();
        if file.pending.is_empty() {
            return image;
        }
        match self.loss.data {
            DataLoss::Everything => {}
            DataLoss::Nothing => apply_all(&mut image, file, |_| true),
            DataLoss::Suffix => apply_all(&mut image, file, |sequence| sequence < self.cut),
            DataLoss::Blocks { grain_bytes } => self.mix_blocks(&mut image, file, grain_bytes),
            DataLoss::LastWriteTorn { grain_bytes } => {
                self.tear_last(&mut image, file, grain_bytes);
            }
            DataLoss::ZeroFilled => image.set_length(length_after(file, file.pending.len())),
        }
        image
    }

    /// Everything survives, but of the world's last write only the blocks before a random one.
    fn tear_last(&self, image: &mut Image, file: &FileNode, grain_bytes: u64) {
        for (sequence, change) in &file.pending {
            match change {
                ByteChange::Write { position, bytes } if Some(*sequence) == self.last_write => {
                    let end = position + bytes.len() as u64;
                    let first_block = position / grain_bytes;
                    let blocks_count = end.div_ceil(grain_bytes) - first_block;
                    let kept_blocks = self.random.below(blocks_count + 1);
                    let kept_end =
                        ((first_block + kept_blocks) * grain_bytes).clamp(*position, end);
                    image.write_at(slice(bytes, 0, kept_end - position), *position);
                }
                _ => change.apply(image),
            }
        }
    }

    /// Gives every block the bytes that it had at a moment of its own.
    fn mix_blocks(&self, image: &mut Image, file: &FileNode, grain_bytes: u64) {
        let changes_count = file.pending.len();
        let mut moments: BTreeMap<u64, usize> = BTreeMap::new();
        let mut length_bytes = file.durable.length_bytes();
        for (index, (_, change)) in file.pending.iter().enumerate() {
            let (from, to) = touched(change, length_bytes);
            for block in from / grain_bytes..to.div_ceil(grain_bytes) {
                let moment = moments
                    .entry(block)
                    .or_insert_with(|| self.choose_moment(changes_count));
                if index < *moment {
                    let start = from.max(block * grain_bytes);
                    let end = to.min((block + 1) * grain_bytes);
                    apply_part(image, change, start, end);
                }
            }
            length_bytes = change.length_after(length_bytes);
        }
        image.set_length(length_after(file, self.choose_moment(changes_count)));
    }

    /// Draws how many of a file's pending changes reached one block: often none or all, else some.
    fn choose_moment(&self, changes_count: usize) -> usize {
        match self.random.below(4) {
            0 => 0,
            1 => usize::try_from(self.random.below(changes_count as u64 + 1)).unwrap_or(0),
            _ => changes_count,
        }
    }
}

fn pending(node: &Node) -> Vec<Sequence> {
    match node {
        Node::File(file) => file.pending.iter().map(|(sequence, _)| *sequence).collect(),
        Node::Dir(dir) => dir.pending.iter().map(|(sequence, _)| *sequence).collect(),
    }
}

fn last_write(storage: &Storage) -> Option<Sequence> {
    let is_write = |change: &ByteChange| matches!(change, ByteChange::Write { .. });
    let of_node = |node: &Node| match node {
        Node::File(file) => file
            .pending
            .iter()
            .rev()
            .find(|(_, change)| is_write(change))
            .map(|(sequence, _)| *sequence),
        Node::Dir(_) => None,
    };
    storage.nodes().filter_map(of_node).max()
}

fn apply_all(image: &mut Image, file: &FileNode, is_kept: impl Fn(Sequence) -> bool) {
    for (_, change) in file
        .pending
        .iter()
        .filter(|(sequence, _)| is_kept(*sequence))
    {
        change.apply(image);
    }
}

/// The file's length after its first `changes_count` pending changes.
fn length_after(file: &FileNode, changes_count: usize) -> u64 {
    let changes = file.pending.iter().take(changes_count);
    changes.fold(file.durable.length_bytes(), |length, (_, change)| {
        change.length_after(length)
    })
}

/// The bytes whose content a change sets: what it writes, or what it cuts off.
fn touched(change: &ByteChange, length_bytes: u64) -> (u64, u64) {
    match change {
        ByteChange::Write { position, bytes } => (*position, position + bytes.len() as u64),
        ByteChange::SetLength(length) => (*length, length_bytes.max(*length)),
    }
}

fn apply_part(image: &mut Image, change: &ByteChange, start: u64, end: u64) {
    match change {
        ByteChange::Write { position, bytes } => {
            image.write_at(slice(bytes, start - position, end - position), start);
        }
        ByteChange::SetLength(_) => image.zero(start, end),
    }
}

fn slice(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let range = super::image::usize_of(from)..super::image::usize_of(to);
    bytes.get(range).unwrap_or_default()
}
