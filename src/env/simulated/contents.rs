//! Tells the contents of disks apart: equal disks get equal numbers, exactly, without a hash that could collide.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::SimulatedWorld;
use super::image::{Image, Page, ZEROS};
use super::storage::{Inode, Node, ROOT, Storage};

/// The contents of disks that were met so far. What is equal is kept once, from pages up to whole disks.
#[derive(Default)]
pub struct DiskContents {
    pages: HashMap<PageContent, usize>,
    nodes: HashMap<NodeContent, usize>,
}

/// A page, equal to every other one with the same bytes.
#[derive(PartialEq, Eq)]
struct PageContent(Arc<Page>);

impl Hash for PageContent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Quick also without optimisation; pages with equal sums are compared as a whole.
        state.write_u32(crc32c::crc32c(&self.0[..]));
    }
}

/// Content of one file or directory for a reader; parts are named by their numbers.
#[derive(PartialEq, Eq, Hash)]
enum NodeContent {
    File {
        length_bytes: u64,
        pages: Vec<(u64, usize)>,
    },
    Dir(Vec<(Arc<str>, usize)>),
}

impl DiskContents {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of what a process would find on the world's disk now: all names, sizes and bytes.
    /// After a power loss nothing is pending, so that this is all there is.
    pub fn number(&mut self, world: &SimulatedWorld) -> usize {
        let state = world.world.state.lock();
        self.number_of(&state.storage, ROOT)
    }

    fn number_of(&mut self, storage: &Storage, inode: Inode) -> usize {
        let content = match storage.node(inode) {
            Some(Node::File(file)) => self.file(&file.volatile),
            Some(Node::Dir(dir)) => {
                let names = dir.volatile.iter();
                let numbered = |(name, child): (&Arc<str>, &Inode)| {
                    (name.clone(), self.number_of(storage, *child))
                };
                NodeContent::Dir(names.map(numbered).collect())
            }
            None => NodeContent::Dir(Vec::new()),
        };
        let next = self.nodes.len();
        *self.nodes.entry(content).or_insert(next)
    }

    fn file(&mut self, image: &Image) -> NodeContent {
        let mut pages = Vec::new();
        for (index, page) in image.pages() {
            // A page of zeros is the same as one that was never written.
            if **page != ZEROS {
                let next = self.pages.len();
                let content = PageContent(page.clone());
                let number = *self.pages.entry(content).or_insert(next);
                pages.push((index, number));
            }
        }
        NodeContent::File {
            length_bytes: image.length_bytes(),
            pages,
        }
    }
}
