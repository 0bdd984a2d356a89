//! The bytes of a simulated file: sparse, in pages that clones share.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A page's size in bytes; also the unit in which the simulated disk's space is counted.
pub(super) const PAGE_BYTES: u64 = 4096;
const PAGE_SIZE: usize = 4096;
pub(super) const ZEROS: Page = [0; PAGE_SIZE];

pub(super) type Page = [u8; PAGE_SIZE];

/// A file's bytes at one moment. A page that is not there reads as zeros. Bytes behind the
/// length are always zeros, so that extending the file shows zeros.
#[derive(Clone, Default)]
pub(super) struct Image {
    length_bytes: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Image {
    pub(super) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    pub(super) fn pages_count(&self) -> u64 {
        self.pages.len() as u64
    }

    /// The pages that are there, with their numbers.
    pub(super) fn pages(&self) -> impl Iterator<Item = (u64, &Arc<Page>)> {
        self.pages.iter().map(|(index, page)| (*index, page))
    }

    /// Counts a write's new pages.
    pub(super) fn new_pages_count(&self, position: u64, bytes_count: usize) -> u64 {
        if bytes_count == 0 {
            return 0;
        }
        let first = position / PAGE_BYTES;
        let last = (position + bytes_count as u64 - 1) / PAGE_BYTES;
        let present = self.pages.range(first..=last).count() as u64;
        last - first + 1 - present
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> usize {
        let available = self.length_bytes.saturating_sub(position);
        let count = buffer.len().min(usize_of(available));
        for_each_piece(position, count, |page, within, at, length| {
            let bytes = self.pages.get(&page).map_or(&ZEROS, |page| &**page);
            buffer[at..at + length].copy_from_slice(&bytes[within..within + length]);
        });
        count
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], position: u64) {
        for_each_piece(position, bytes.len(), |page, within, at, length| {
            let page = self.pages.entry(page).or_insert_with(|| Arc::new(ZEROS));
            Arc::make_mut(page)[within..within + length].copy_from_slice(&bytes[at..at + length]);
        });
        if !bytes.is_empty() {
            self.length_bytes = self.length_bytes.max(position + bytes.len() as u64);
        }
    }

    pub(super) fn set_length(&mut self, length_bytes: u64) {
        if length_bytes < self.length_bytes {
            self.zero(length_bytes, self.length_bytes);
            self.pages.split_off(&length_bytes.div_ceil(PAGE_BYTES));
        }
        self.length_bytes = length_bytes;
    }

    /// Zeroes `[from, to)` without changing the length.
    pub(super) fn zero(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        for (page, bytes) in self
            .pages
            .range_mut(from / PAGE_BYTES..=(to - 1) / PAGE_BYTES)
        {
            let start = page * PAGE_BYTES;
            let first = usize_of(from.saturating_sub(start));
            let end = usize_of((to - start).min(PAGE_BYTES));
            Arc::make_mut(bytes)[first..end].fill(0);
        }
    }
}

/// Calls `piece(page, position within it, position in the buffer, length)` for each page that a range meets.
fn for_each_piece(position: u64, count: usize, mut piece: impl FnMut(u64, usize, usize, usize)) {
    let mut done = 0;
    while done < count {
        let here = position + done as u64;
        let within = usize_of(here % PAGE_BYTES);
        let length = (PAGE_SIZE - within).min(count - done);
        piece(here / PAGE_BYTES, within, done, length);
        done += length;
    }
}

/// Saturating: a simulated file never comes near the address space.
pub(super) fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
