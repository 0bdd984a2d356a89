//! Bytes that can be read only once, such as standard input: a thread reads them ahead, so that no worker blocks.

use std::io::{self, Read};
use std::sync::Arc;
use std::task::Waker;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

use crate::env::Env;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that are read ahead at most.
const CHUNKS_MAX: usize = 8;

/// The reading end of a stream of bytes.
pub(super) struct ByteStream {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    used: usize,
    waker: Arc<Mutex<Option<Waker>>>,
}

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// Bytes read, at least one.
    Bytes(usize),
    /// Nothing yet; the waker will be called.
    Pending,
    /// The end.
    End,
}

impl ByteStream {
    /// Starts to read `input`, whose first `skip` bytes were committed before and are left out. Their CRC-32C is known if
    /// they were read by a release that kept it.
    pub(super) fn start(
        env: &Env,
        input: Box<dyn Read + Send>,
        skip: u64,
        expected: Option<u32>,
    ) -> io::Result<Self> {
        let (sender, chunks) = bounded(CHUNKS_MAX);
        let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
        let wakes = Arc::clone(&waker);
        let body = move || {
            let wake = || {
                if let Some(waker) = &*wakes.lock() {
                    waker.wake_by_ref();
                }
            };
            if let Err(e) = copy(input, (skip, expected), &sender, &wake) {
                // A reader that is gone needs no error.
                let _ = sender.send(Err(e));
            }
            // The end is seen once the sender is gone, so it goes before the last wake-up.
            drop(sender);
            wake();
        };
        env.spawn.spawn("of-input", Box::new(body))?;
        Ok(Self {
            chunks,
            chunk: Vec::new(),
            used: 0,
            waker,
        })
    }

    /// Copies what is there into `buffer`, which is not empty.
    pub(super) fn read(&mut self, buffer: &mut [u8], waker: &Waker) -> io::Result<Filled> {
        if self.used == self.chunk.len() {
            // The waker is set before the look: a chunk that comes in between wakes it.
            self.waker.lock().replace(waker.clone());
            self.chunk = match self.chunks.try_recv() {
                Ok(chunk) => chunk?,
                Err(TryRecvError::Empty) => return Ok(Filled::Pending),
                Err(TryRecvError::Disconnected) => return Ok(Filled::End),
            };
            self.used = 0;
        }
        let rest = &self.chunk[self.used..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.used += count;
        Ok(Filled::Bytes(count))
    }
}

/// Reads `input` to its end, or until nobody wants it.
fn copy(
    mut input: Box<dyn Read + Send>,
    (skip, expected): (u64, Option<u32>),
    chunks: &Sender<io::Result<Vec<u8>>>,
    wake: &dyn Fn(),
) -> io::Result<()> {
    let mut skipped = Skipped::default();
    io::copy(&mut input.by_ref().take(skip), &mut skipped)?;
    if skipped.bytes < skip {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "it ends after {} bytes, but {skip} were read and committed before: give the same input again",
                skipped.bytes
            ),
        ));
    }
    if expected.is_some_and(|expected| expected != skipped.crc) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "its first {skip} bytes are not those that were read and committed before: give the same input again, or \
                 give the job another name to begin anew"
            ),
        ));
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if chunks.send(Ok(buffer[..count].to_vec())).is_err() {
            return Ok(());
        }
        wake();
    }
}

/// The part that was read before: only its length and checksum count.
#[derive(Default)]
struct Skipped {
    bytes: u64,
    crc: u32,
}

impl io::Write for Skipped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
