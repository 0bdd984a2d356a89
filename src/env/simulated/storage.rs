//! The simulated disk: what is in the page cache, what is durable, and what lies between.
//!
//! ```text
//! file:       durable image ── pending changes of bytes and size, in order ──► volatile image
//! directory:  durable names ── pending changes of names, in order ──────────► volatile names
//! ```
//! A sync moves one inode's pending changes to its durable side. A power loss (`power_loss.rs`)
//! keeps the durable side and some of what is pending. This is a pure state machine: every change
//! is a value, so that a run can be replayed change by change (`recording.rs`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::image::Image;

/// Names a file or directory for as long as the world lives.
pub(super) type Inode = u64;

/// Counts changes of one world; pending changes carry it, so that "a prefix of what was written" has a meaning.
pub(super) type Sequence = u64;

/// The directory `/`.
pub(super) const ROOT: Inode = 0;

/// One change of the disk, already checked.
#[derive(Clone)]
pub(super) enum Change {
    CreateFile {
        parent: Inode,
        name: Arc<str>,
        inode: Inode,
    },
    CreateDir {
        parent: Inode,
        name: Arc<str>,
        inode: Inode,
    },
    Rename {
        from: (Inode, Arc<str>),
        to: (Inode, Arc<str>),
    },
    Remove {
        parent: Inode,
        name: Arc<str>,
    },
    Bytes {
        inode: Inode,
        change: ByteChange,
    },
    Sync {
        inode: Inode,
    },
    /// A sync that failed: what was pending will never reach the disk, though readers still see it (F11).
    LosePending {
        inode: Inode,
    },
    /// Damage, on both sides at once.
    Damage {
        inode: Inode,
        change: ByteChange,
    },
}

/// A change of a file's bytes or size.
#[derive(Clone)]
pub(super) enum ByteChange {
    Write { position: u64, bytes: Arc<[u8]> },
    SetLength(u64),
}

impl ByteChange {
    pub(super) fn apply(&self, image: &mut Image) {
        match self {
            Self::Write { position, bytes } => image.write_at(bytes, *position),
            Self::SetLength(length_bytes) => image.set_length(*length_bytes),
        }
    }

    /// The file's length after this change, if it was `before`.
    pub(super) fn length_after(&self, before: u64) -> u64 {
        match self {
            Self::Write { position, bytes } if !bytes.is_empty() => {
                before.max(position + bytes.len() as u64)
            }
            Self::Write { .. } => before,
            Self::SetLength(length_bytes) => *length_bytes,
        }
    }
}

/// A change of one directory's names.
#[derive(Clone)]
pub(super) enum NameChange {
    Link(Arc<str>, Inode),
    Unlink(Arc<str>),
    /// Within one directory, so atomic.
    Rename(Arc<str>, Arc<str>, Inode),
}

/// A directory's names.
pub(super) type Names = BTreeMap<Arc<str>, Inode>;

impl NameChange {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// Something with a volatile side, a durable side, and pending changes between them.
#[derive(Clone)]
pub(super) struct TwoSided<S, C> {
    pub(super) volatile: S,
    pub(super) durable: S,
    pub(super) pending: Vec<(Sequence, C)>,
}

impl<S: Clone + Default, C> TwoSided<S, C> {
    /// As after a clean start: nothing pending.
    pub(super) fn settled(state: S) -> Self {
        Self {
            durable: state.clone(),
            volatile: state,
            pending: Vec::new(),
        }
    }

    fn change(&mut self, sequence: Sequence, change: C, apply: impl Fn(&C, &mut S)) {
        apply(&change, &mut self.volatile);
        self.pending.push((sequence, change));
    }

    /// Applies what is pending, instead of copying the volatile side: what an earlier failed sync lost stays lost.
    fn sync(&mut self, apply: impl Fn(&C, &mut S)) {
        for (_, change) in self.pending.drain(..) {
            apply(&change, &mut self.durable);
        }
    }
}

pub(super) type FileNode = TwoSided<Image, ByteChange>;
pub(super) type DirNode = TwoSided<Names, NameChange>;

/// A file or a directory.
#[derive(Clone)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// The whole disk. Clones share their pages.
#[derive(Clone)]
pub(super) struct Storage {
    nodes: BTreeMap<Inode, Node>,
    next_inode: Inode,
    sequence: Sequence,
    used_pages: u64,
}

impl Storage {
    /// An empty disk: the directory `/` and nothing else.
    pub(super) fn new() -> Self {
        Self::from_nodes(BTreeMap::from([(
            ROOT,
            Node::Dir(TwoSided::settled(Names::new())),
        )]))
    }

    /// A disk after a restart.
    pub(super) fn from_nodes(nodes: BTreeMap<Inode, Node>) -> Self {
        let used_pages = nodes.values().map(pages_count).sum();
        let next_inode = nodes.keys().next_back().map_or(ROOT, |last| last + 1);
        Self {
            nodes,
            next_inode,
            sequence: 0,
            used_pages,
        }
    }

    pub(super) fn node(&self, inode: Inode) -> Option<&Node> {
        self.nodes.get(&inode)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub(super) fn next_inode(&self) -> Inode {
        self.next_inode
    }

    /// The pages that files with a name hold.
    pub(super) fn used_pages(&self) -> u64 {
        self.used_pages
    }

    pub(super) fn file(&self, inode: Inode) -> io::Result<&FileNode> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn dir(&self, inode: Inode) -> io::Result<&DirNode> {
        match self.nodes.get(&inode) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The inode at `path`, if there is one.
    pub(super) fn find(&self, path: &Path) -> io::Result<Option<Inode>> {
        let mut inode = ROOT;
        for name in components(path)? {
            match self.dir(inode)?.volatile.get(name) {
                Some(child) => inode = *child,
                None => return Ok(None),
            }
        }
        Ok(Some(inode))
    }

    /// The inode at `path`.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<Inode> {
        self.find(path)?.ok_or_else(|| not_found(path))
    }

    /// The directory that holds `path`, and the last name.
    pub(super) fn resolve_parent(&self, path: &Path) -> io::Result<(Inode, Arc<str>)> {
        let name = components(path)?.last().copied();
        let (Some(name), Some(parent)) = (name, path.parent()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let inode = self.resolve(parent)?;
        self.dir(inode)?;
        Ok((inode, name.into()))
    }

    /// Makes a change. What it names must exist.
    pub(super) fn apply(&mut self, change: &Change) {
        self.sequence += 1;
        match change {
            Change::CreateFile {
                parent,
                name,
                inode,
            } => {
                let file = Node::File(TwoSided::settled(Image::default()));
                self.create(*parent, name, *inode, file);
            }
            Change::CreateDir {
                parent,
                name,
                inode,
            } => {
                let dir = Node::Dir(TwoSided::settled(Names::new()));
                self.create(*parent, name, *inode, dir);
            }
            Change::Rename { from, to } => self.rename(from, to),
            Change::Remove { parent, name } => {
                self.forget_pages(*parent, name);
                self.change_names(*parent, NameChange::Unlink(name.clone()));
            }
            Change::Bytes { inode, change } => self.change_bytes(*inode, change.clone()),
            Change::Sync { inode } => match self.nodes.get_mut(inode) {
                Some(Node::File(file)) => file.sync(ByteChange::apply),
                Some(Node::Dir(dir)) => dir.sync(NameChange::apply),
                None => {}
            },
            Change::LosePending { inode } => match self.nodes.get_mut(inode) {
                Some(Node::File(file)) => file.pending.clear(),
                Some(Node::Dir(dir)) => dir.pending.clear(),
                None => {}
            },
            Change::Damage { inode, change } => {
                if let Some(Node::File(file)) = self.nodes.get_mut(inode) {
                    change.apply(&mut file.volatile);
                    change.apply(&mut file.durable);
                }
            }
        }
    }

    fn create(&mut self, parent: Inode, name: &Arc<str>, inode: Inode, node: Node) {
        assert_eq!(inode, self.next_inode, "inodes are handed out in order");
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        self.change_names(parent, NameChange::Link(name.clone(), inode));
    }

    fn rename(&mut self, from: &(Inode, Arc<str>), to: &(Inode, Arc<str>)) {
        let source = self
            .dir(from.0)
            .ok()
            .and_then(|dir| dir.volatile.get(&from.1));
        let Some(inode) = source.copied() else {
            return;
        };
        self.forget_pages(to.0, &to.1);
        if from.0 == to.0 {
            self.change_names(
                from.0,
                NameChange::Rename(from.1.clone(), to.1.clone(), inode),
            );
        } else {
            // Two directories may become durable apart: stricter than a journalling file system.
            self.change_names(to.0, NameChange::Link(to.1.clone(), inode));
            self.change_names(from.0, NameChange::Unlink(from.1.clone()));
        }
    }

    fn change_names(&mut self, dir: Inode, change: NameChange) {
        if let Some(Node::Dir(dir)) = self.nodes.get_mut(&dir) {
            dir.change(self.sequence, change, NameChange::apply);
        }
    }

    fn change_bytes(&mut self, inode: Inode, change: ByteChange) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            let before = file.volatile.pages_count();
            file.change(self.sequence, change, ByteChange::apply);
            let after = file.volatile.pages_count();
            self.used_pages = (self.used_pages + after).saturating_sub(before);
        }
    }

    /// The space of a file that loses its name is free at once, though open handles may still use it.
    fn forget_pages(&mut self, dir: Inode, name: &Arc<str>) {
        let inode = self.dir(dir).ok().and_then(|dir| dir.volatile.get(name));
        let pages = inode
            .and_then(|inode| self.nodes.get(inode))
            .map_or(0, pages_count);
        self.used_pages = self.used_pages.saturating_sub(pages);
    }
}

fn pages_count(node: &Node) -> u64 {
    match node {
        Node::File(file) => file.volatile.pages_count(),
        Node::Dir(_) => 0,
    }
}

/// The names along `path`, which may be absolute or relative to `/`.
fn components(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => match name.to_str() {
                Some(name) if name.len() <= NAME_BYTES_MAX && !name.contains('\0') => {
                    names.push(name);
                }
                _ => return Err(io::ErrorKind::InvalidFilename.into()),
            },
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}

/// The longest name that Linux's file systems take, in bytes.
const NAME_BYTES_MAX: usize = 255;

fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("no such file or directory: {}", path.display()),
    )
}
