//! Frames: four bytes of size, big endian, then as many bytes.
//!
//! ```text
//!  0 size_bytes i32      4 body …
//! ```

use std::io::IoSlice;
use std::pin::pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::NetError;
use super::stream::{ReadHalf, WriteHalf};

/// The size that stands before each frame, in bytes.
const PREFIX_BYTES: usize = 4;
/// The smallest body: a response's correlation id, in bytes.
const BODY_BYTES_MIN: usize = 4;
/// Size of an idle connection's buffer, in bytes: requests without records fit.
const IDLE_BUFFER_BYTES: usize = 4 << 10;
/// Bytes of a frame that must have come, at least, before there is room for all that it announced.
const GROWTH_BYTES: usize = 64 << 10;
/// Slices handed to one system call. Linux takes 1,024; more than these gain nothing.
const SLICES_MAX: usize = 64;

/// Reads frames. Dropping a pending [`FrameReader::next`] loses nothing: it may be called again.
pub(crate) struct FrameReader {
    half: ReadHalf,
    buffer: BytesMut,
    frame_bytes_max: usize,
    /// Bytes to ask for at once: more while reads fill what they are given, so that a busy connection has several
    /// frames for one system call, and little once there is nothing to read.
    ahead_bytes: usize,
}

impl FrameReader {
    pub(super) fn new(half: ReadHalf, frame_bytes_max: usize) -> Self {
        Self {
            half,
            buffer: BytesMut::new(),
            frame_bytes_max,
            ahead_bytes: IDLE_BUFFER_BYTES,
        }
    }

    /// From now on frames of up to `max` bytes are taken. (Fewer before authentication than after.)
    pub(crate) fn set_frame_bytes_max(&mut self, max: usize) {
        self.frame_bytes_max = max;
    }

    /// Waits for the size of the next frame's body, in bytes, and checks it; the frame stays for [`FrameReader::next`].
    /// `None` if the other side closed the connection between two frames.
    ///
    /// # Errors
    /// [`NetError::FrameTooLarge`], [`NetError::FrameTooSmall`], [`NetError::Closed`], [`NetError::Io`]. The connection is of no use then.
    pub(crate) async fn next_size(&mut self) -> Result<Option<usize>, NetError> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() {
                return self.checked(i32::from_be_bytes(*prefix)).map(Some);
            }
            if self.read_more(IDLE_BUFFER_BYTES).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(NetError::Closed),
                };
            }
        }
    }

    /// Whether the next frame has been read whole.
    #[must_use]
    pub(crate) fn has_next(&self) -> bool {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return false;
        };
        let size = self.checked(i32::from_be_bytes(*prefix));
        size.is_ok_and(|size_bytes| self.buffer.len() >= PREFIX_BYTES + size_bytes)
    }

    /// Waits until `count` bytes of the next frame are here, its size included, or the whole frame if it is smaller.
    ///
    /// # Errors
    /// As [`FrameReader::next_size`]; [`NetError::Closed`] as well if the connection ended before the frame began.
    pub(crate) async fn wait_for(&mut self, count: usize) -> Result<(), NetError> {
        let size_bytes = self.next_size().await?.ok_or(NetError::Closed)?;
        self.fill(count.min(PREFIX_BYTES + size_bytes)).await
    }

    /// Waits until the other side closes the connection. What it sends in the meantime is kept for [`FrameReader::next`],
    /// up to 64 KiB; with more than that unread, the end is not seen.
    ///
    /// # Errors
    /// [`NetError::Io`] if the connection broke.
    pub(crate) async fn closed(&mut self) -> Result<(), NetError> {
        while self.buffer.len() < GROWTH_BYTES {
            if self.read_more(IDLE_BUFFER_BYTES).await? == 0 {
                return Ok(());
            }
        }
        std::future::pending().await
    }

    /// Waits for the next frame and returns its body. `None` if the other side closed the connection between two frames.
    ///
    /// # Errors
    /// As [`FrameReader::next_size`].
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, NetError> {
        let Some(size_bytes) = self.next_size().await? else {
            return Ok(None);
        };
        let whole = PREFIX_BYTES + size_bytes;
        self.fill(whole).await?;
        let frame = self.buffer.split_to(whole).freeze();
        Ok(Some(frame.slice(PREFIX_BYTES..)))
    }

    async fn fill(&mut self, count: usize) -> Result<(), NetError> {
        while self.buffer.len() < count {
            // The announced size is a claim: who sends little must not make us hold much.
            let missing = count - self.buffer.len();
            let step = match self.buffer.len() < GROWTH_BYTES {
                true => missing.min(GROWTH_BYTES),
                false => missing,
            };
            if self.read_more(step).await? == 0 {
                return Err(NetError::Closed);
            }
        }
        Ok(())
    }

    /// Reads once, with room for at least `least` bytes; returns how many came, 0 at the end.
    async fn read_more(&mut self, least: usize) -> Result<usize, NetError> {
        if self.buffer.capacity() - self.buffer.len() < least {
            self.buffer.reserve(least.max(self.ahead_bytes));
        }
        let at_once = futures::poll!(pin!(self.half.read_buf(&mut self.buffer)));
        let count = match at_once {
            Poll::Ready(count) => count?,
            Poll::Pending => {
                if self.buffer.is_empty() && self.buffer.capacity() > least {
                    // Who waits for a frame waits with little.
                    self.buffer = BytesMut::with_capacity(least);
                }
                self.half.read_buf(&mut self.buffer).await?
            }
        };
        if self.buffer.len() == self.buffer.capacity() {
            self.ahead_bytes = (self.ahead_bytes * 2).min(GROWTH_BYTES);
        } else if count < IDLE_BUFFER_BYTES {
            self.ahead_bytes = (self.ahead_bytes / 2).max(IDLE_BUFFER_BYTES);
        }
        Ok(count)
    }

    /// Returns the buffer's capacity in bytes.
    #[cfg(test)]
    pub(super) fn buffered_capacity(&self) -> usize {
        self.buffer.capacity()
    }

    fn checked(&self, size_bytes: i32) -> Result<usize, NetError> {
        let size = usize::try_from(size_bytes).ok();
        match size.filter(|size| *size <= self.frame_bytes_max) {
            None => Err(NetError::FrameTooLarge {
                size_bytes: i64::from(size_bytes),
                max_bytes: self.frame_bytes_max,
            }),
            Some(size_bytes) if size_bytes < BODY_BYTES_MIN => {
                Err(NetError::FrameTooSmall { size_bytes })
            }
            Some(size_bytes) => Ok(size_bytes),
        }
    }
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameReader")
    }
}

/// Writes frames. A write that is dropped half way leaves half a frame behind: then drop the connection.
pub(crate) struct FrameWriter {
    half: WriteHalf,
}

impl FrameWriter {
    pub(super) fn new(half: WriteHalf) -> Self {
        Self { half }
    }

    /// Writes one frame: its size, then `chunks`, none of them copied.
    ///
    /// # Errors
    /// [`NetError::Io`]; [`NetError::FrameTooLarge`] if the size does not fit into an `i32`. The connection is of no use then.
    pub(crate) async fn write(&mut self, chunks: &[Bytes]) -> Result<(), NetError> {
        self.write_frames(&[chunks]).await
    }

    /// Writes several frames with as few system calls as they need.
    ///
    /// # Errors
    /// As [`FrameWriter::write`].
    pub(crate) async fn write_frames<C: AsRef<[Bytes]>>(
        &mut self,
        frames: &[C],
    ) -> Result<(), NetError> {
        let prefixes = frames
            .iter()
            .map(|frame| prefix(frame.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(frames.len() * 3);
        for (prefix, frame) in prefixes.iter().zip(frames) {
            slices.push(IoSlice::new(prefix));
            let chunks = frame.as_ref().iter().filter(|chunk| !chunk.is_empty());
            slices.extend(chunks.map(|chunk| IoSlice::new(chunk)));
        }
        self.write_slices(&mut slices).await?;
        Ok(self.half.flush().await?)
    }

    /// Begins a frame of `size_bytes` that is written in parts.
    ///
    /// # Errors
    /// [`NetError::FrameTooLarge`]; nothing is written then.
    pub(crate) fn begin(&mut self, size_bytes: usize) -> Result<FrameParts<'_>, NetError> {
        Ok(FrameParts {
            prefix: Some(prefix_of(size_bytes)?),
            left_bytes: size_bytes,
            writer: self,
        })
    }

    async fn write_slices(&mut self, slices: &mut [IoSlice<'_>]) -> Result<(), NetError> {
        let mut left = slices;
        while !left.is_empty() {
            let count = left.len().min(SLICES_MAX);
            let written = self.half.write_vectored(&left[..count]).await?;
            if written == 0 {
                return Err(NetError::Io(std::io::ErrorKind::WriteZero.into()));
            }
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    /// Writes bytes that are no frame.
    #[cfg(test)]
    pub(crate) async fn write_raw(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        self.half.write_all(bytes).await?;
        Ok(self.half.flush().await?)
    }

    /// Tells the other side that nothing more comes.
    ///
    /// # Errors
    /// [`NetError::Io`].
    pub(crate) async fn shutdown(&mut self) -> Result<(), NetError> {
        Ok(self.half.shutdown().await?)
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameWriter")
    }
}

/// A frame that is written in parts. If it is dropped before its end, half a frame is left behind: then drop the connection.
#[derive(Debug)]
pub(crate) struct FrameParts<'a> {
    writer: &'a mut FrameWriter,
    prefix: Option<[u8; PREFIX_BYTES]>,
    left_bytes: usize,
}

impl FrameParts<'_> {
    /// Writes the next part, not copied.
    ///
    /// # Errors
    /// [`NetError::Io`]. The connection is of no use then.
    ///
    /// # Panics
    /// If this is more than the frame has left.
    pub(crate) async fn write(&mut self, chunks: &[Bytes]) -> Result<(), NetError> {
        let prefix = self.prefix.take();
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(chunks.len() + 1);
        slices.extend(prefix.iter().map(|prefix| IoSlice::new(prefix)));
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            assert!(
                chunk.len() <= self.left_bytes,
                "a frame has as many bytes as it announced"
            );
            self.left_bytes -= chunk.len();
            slices.push(IoSlice::new(chunk));
        }
        self.writer.write_slices(&mut slices).await
    }

    /// Ends the frame.
    ///
    /// # Errors
    /// [`NetError::Io`]. The connection is of no use then.
    ///
    /// # Panics
    /// If less was written than the frame has.
    pub(crate) async fn end(self) -> Result<(), NetError> {
        assert_eq!(
            self.left_bytes, 0,
            "a frame has as many bytes as it announced"
        );
        Ok(self.writer.half.flush().await?)
    }
}

fn prefix(chunks: &[Bytes]) -> Result<[u8; PREFIX_BYTES], NetError> {
    prefix_of(chunks.iter().map(Bytes::len).sum())
}

fn prefix_of(size_bytes: usize) -> Result<[u8; PREFIX_BYTES], NetError> {
    match i32::try_from(size_bytes) {
        Ok(size) => Ok(size.to_be_bytes()),
        Err(_) => Err(NetError::FrameTooLarge {
            size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
            max_bytes: i32::MAX as usize,
        }),
    }
}
