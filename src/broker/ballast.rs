//! `Ballast`: a file whose space is given up on a full disk, so that aborts and decided commits still finish (F13).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::env::{Env, OpenMode};

/// Written in pieces of so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// The reserved space.
pub(super) struct Ballast {
    env: Env,
    path: PathBuf,
    length_bytes: u64,
    is_held: AtomicBool,
}

impl Ballast {
    pub(super) fn new(env: &Env, path: PathBuf, length_bytes: u64) -> Self {
        Self {
            env: env.clone(),
            path,
            length_bytes,
            is_held: AtomicBool::new(false),
        }
    }

    /// Takes the space again if it was given up and there is some. A full disk is no error here: there is just none.
    pub(super) fn hold(&self) {
        if self.length_bytes == 0 || self.is_held.load(Ordering::Relaxed) {
            return;
        }
        match self.fill() {
            Ok(()) => self.is_held.store(true, Ordering::Relaxed),
            Err(error) => {
                crate::env::warn!(%error, "no space is reserved for finishing transactions on a full disk");
                self.release_space();
            }
        }
    }

    fn fill(&self) -> std::io::Result<()> {
        let file = self.env.files.open(&self.path, OpenMode::OpenOrCreate)?;
        // Bytes that are there were written and synced by an earlier process.
        let mut position = file.length_bytes()?;
        if position >= self.length_bytes {
            return Ok(());
        }
        // Not zeros: a file system may keep those as a hole.
        let piece = [0xb5; PIECE_BYTES];
        while position < self.length_bytes {
            let left = usize::try_from(self.length_bytes - position).unwrap_or(PIECE_BYTES);
            let count = left.min(PIECE_BYTES);
            file.write_all_at(&piece[..count], position)?;
            position += count as u64;
        }
        file.sync_data()
    }

    /// Gives the space up; false if there is none to give.
    pub(super) fn release(&self) -> bool {
        self.is_held.swap(false, Ordering::Relaxed) && self.release_space()
    }

    fn release_space(&self) -> bool {
        let opened = self.env.files.open(&self.path, OpenMode::Write);
        opened.and_then(|file| file.set_length(0)).is_ok()
    }
}
