//! Snappy as the Java client frames it (after `org.xerial.snappy`), and plain.
//!
//! ```text
//! 82 'S' 'N' 'A' 'P' 'P' 'Y' 00 | version i32 = 1 | compatible version i32 = 1
//! then blocks:  length i32, big-endian | a plain Snappy block of at most 32 KiB of content
//! ```
//! Other clients write one plain block without the frame; both are read, the frame is written.

use std::io;

use bytes::{Bytes, BytesMut};
use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::compression::damaged;
use super::{BatchError, Compression};

const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const VERSION: [u8; 4] = 1i32.to_be_bytes();
/// Content of one block of the Java client, in bytes.
const BLOCK_CONTENT_BYTES: usize = 32 << 10;
/// No Snappy element makes more than 64 bytes out of its own one or more.
const RATIO_MAX: usize = 64;

/// Appends the frame of `input` to `out`.
pub(super) fn compress(input: &[u8], mut out: BytesMut) -> io::Result<BytesMut> {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION);
    out.extend_from_slice(&VERSION);
    let mut encoder = Encoder::new();
    let mut block = vec![0; max_compress_len(BLOCK_CONTENT_BYTES)];
    for content in input.chunks(BLOCK_CONTENT_BYTES) {
        let length = encoder.compress(content, &mut block)?;
        let prefix = i32::try_from(length).map_err(io::Error::other)?;
        out.extend_from_slice(&prefix.to_be_bytes());
        out.extend_from_slice(&block[..length]);
    }
    Ok(out)
}

/// The content of a frame or of a plain block, at most `ceiling` bytes.
pub(super) fn decompress(input: &[u8], ceiling: usize) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    let Some(framed) = input.strip_prefix(MAGIC) else {
        append_block(input, &mut out, ceiling)?;
        return Ok(out.into());
    };
    let (_versions, mut rest) = framed
        .split_first_chunk::<8>()
        .ok_or_else(|| damaged(Compression::Snappy, "its frame ends within its head"))?;
    while !rest.is_empty() {
        let block = take_block(&mut rest)
            .ok_or_else(|| damaged(Compression::Snappy, "a block is longer than its frame"))?;
        append_block(block, &mut out, ceiling)?;
    }
    Ok(out.into())
}

fn take_block<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    let (block, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(block)
}

fn append_block(block: &[u8], out: &mut Vec<u8>, ceiling: usize) -> Result<(), BatchError> {
    let refuse = |error| damaged(Compression::Snappy, error);
    let declared = decompress_len(block).map_err(refuse)?;
    if declared > ceiling - out.len() {
        return Err(BatchError::TooLarge {
            limit_bytes: ceiling,
        });
    }
    // The declared size is only used for room once the block's own size makes it possible.
    if declared > block.len().saturating_mul(RATIO_MAX) {
        return Err(damaged(
            Compression::Snappy,
            "a block declares more content than it can have",
        ));
    }
    let start = out.len();
    out.resize(start + declared, 0);
    let length = Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(refuse)?;
    assert_eq!(
        length, declared,
        "the decoder fills what the block declares"
    );
    Ok(())
}
