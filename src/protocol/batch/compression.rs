//! The four compressions of a batch's records, and the ceiling that decompression never passes.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

use bytes::buf::Writer;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::{bufread::GzDecoder, write::GzEncoder};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{BatchError, xerial};

/// Kafka's default levels.
const GZIP_LEVEL_DEFAULT: i32 = 6;
const GZIP_LEVEL_MAX: i32 = 9;
/// The smallest gzip member, in bytes: header, an empty block, and trailer.
const GZIP_MEMBER_BYTES_MIN: usize = 10 + 2 + 8;
const ZSTD_LEVEL_DEFAULT: i32 = 3;
/// The largest zstd window that a reader must give room to, as a power of two: 8 MiB. Our writer stays within.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Factor from the compressed bytes to the output's first size.
const FIRST_GUESS_RATIO: usize = 4;

/// Compression of a batch's records (all of them together).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip: levels 1 to 9, default 6.
    Gzip,
    /// Snappy, in the Java client's framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard: levels −131,072 to 22, default 3.
    Zstd,
}

impl Compression {
    /// Every compression.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Its number in a batch's attributes.
    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The compression with this number.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// Kafka's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of the compressions'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a compression: use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompressionName {
    name: String,
}

impl FromStr for Compression {
    type Err = UnknownCompressionName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| UnknownCompressionName {
            name: name.to_owned(),
        })
    }
}

/// Limit of a batch's size when it is decompressed. Sizes that the input declares are not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecompressionLimit {
    /// Never more than this, in bytes.
    pub output_bytes_max: usize,
    /// Never more than so many times the compressed size…
    pub ratio_max: usize,
    /// …once the output is larger than this, in bytes.
    pub ratio_free_bytes: usize,
}

impl Default for DecompressionLimit {
    /// 64 MiB, and 1,000 : 1 above 1 MiB.
    fn default() -> Self {
        Self {
            output_bytes_max: 64 << 20,
            ratio_max: 1000,
            ratio_free_bytes: 1 << 20,
        }
    }
}

impl DecompressionLimit {
    /// The ceiling for `input_bytes` compressed bytes.
    #[must_use]
    pub fn ceiling_bytes(&self, input_bytes: usize) -> usize {
        let by_ratio = input_bytes.saturating_mul(self.ratio_max);
        self.output_bytes_max
            .min(by_ratio.max(self.ratio_free_bytes))
    }
}

/// Compresses `input` behind `prefix_bytes` zeros.
///
/// # Errors
/// If the compressor cannot get memory, or refuses its parameters.
pub(super) fn compress(
    compression: Compression,
    level: Option<i32>,
    prefix_bytes: usize,
    input: &[u8],
) -> io::Result<BytesMut> {
    let mut out = BytesMut::with_capacity(prefix_bytes + input.len() / 2);
    out.resize(prefix_bytes, 0);
    match compression {
        Compression::None => {
            out.extend_from_slice(input);
            Ok(out)
        }
        Compression::Gzip => gzip(level, input, out.writer()),
        Compression::Snappy => xerial::compress(input, out),
        Compression::Lz4 => lz4(input, out.writer()),
        Compression::Zstd => zstd(level, input, out.writer()),
    }
}

fn gzip(level: Option<i32>, input: &[u8], out: Writer<BytesMut>) -> io::Result<BytesMut> {
    let level = level.unwrap_or(GZIP_LEVEL_DEFAULT).clamp(1, GZIP_LEVEL_MAX);
    let mut encoder = GzEncoder::new(out, flate2::Compression::new(level.unsigned_abs()));
    encoder.write_all(input)?;
    encoder.finish().map(Writer::into_inner)
}

fn lz4(input: &[u8], out: Writer<BytesMut>) -> io::Result<BytesMut> {
    // The Java client reads independent blocks only.
    let frame = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, out);
    encoder.write_all(input)?;
    Ok(encoder.finish()?.into_inner())
}

fn zstd(level: Option<i32>, input: &[u8], out: Writer<BytesMut>) -> io::Result<BytesMut> {
    let level = level.unwrap_or(ZSTD_LEVEL_DEFAULT);
    let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
    // The size lets zstd choose a smaller window. It is not written down: that would make the whole
    // content the window, and readers need not give room to more than 8 MiB.
    encoder.set_pledged_src_size(Some(input.len() as u64))?;
    encoder.include_contentsize(false)?;
    if level >= 20 {
        encoder.window_log(ZSTD_WINDOW_LOG_MAX)?;
    }
    encoder.write_all(input)?;
    encoder.finish().map(Writer::into_inner)
}

/// Decompresses `input` within `limit`; uncompressed bytes are returned as they are.
///
/// # Errors
/// If `input` is damaged, or would pass the limit.
pub(super) fn decompress(
    compression: Compression,
    input: Bytes,
    limit: &DecompressionLimit,
) -> Result<Bytes, BatchError> {
    let ceiling = limit.ceiling_bytes(input.len());
    let mut rest: &[u8] = &input;
    let out = match compression {
        Compression::None => return Ok(input),
        Compression::Snappy => return xerial::decompress(&input, ceiling),
        Compression::Gzip => gunzip(&mut rest, ceiling),
        Compression::Lz4 => unlz4(&mut rest, ceiling),
        Compression::Zstd => zstd_decoder(&mut rest, ceiling)
            .and_then(|decoder| read_up_to(decoder, input.len(), ceiling)),
    };
    let out = out.map_err(|error| damaged(compression, error))?;
    if out.len() > ceiling {
        return Err(BatchError::TooLarge {
            limit_bytes: ceiling,
        });
    }
    match rest {
        [] => Ok(out.into()),
        _ => Err(damaged(compression, "bytes follow its end")),
    }
}

/// Reads gzip members one after the other, as the Java client does: what follows a member and does not begin another one
/// is left alone, and so is what is too short to be one.
fn gunzip(rest: &mut &[u8], ceiling: usize) -> io::Result<Vec<u8>> {
    let input_bytes = rest.len();
    let mut out = read_up_to(GzDecoder::new(&mut *rest), input_bytes, ceiling)?;
    while rest.len() >= GZIP_MEMBER_BYTES_MIN && out.len() <= ceiling {
        let member = GzDecoder::new(&mut *rest);
        if member.header().is_none() {
            break;
        }
        let left = ceiling - out.len();
        out.append(&mut read_up_to(member, 0, left)?);
    }
    *rest = &[];
    Ok(out)
}

/// Reads one LZ4 frame. A frame without its end mark is refused, as the Java client refuses it; the decoder takes the end
/// of the input for one.
fn unlz4(rest: &mut &[u8], ceiling: usize) -> io::Result<Vec<u8>> {
    let first_guess = rest.len().saturating_mul(FIRST_GUESS_RATIO).min(ceiling);
    let mut out = Vec::with_capacity(first_guess);
    let mut decoder = FrameDecoder::new(Whole {
        rest,
        is_passed: false,
    });
    while out.len() <= ceiling {
        let block = decoder.fill_buf()?;
        if block.is_empty() {
            break;
        }
        out.extend_from_slice(block);
        let block_bytes = block.len();
        decoder.consume(block_bytes);
    }
    match decoder.get_ref().is_passed {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(out),
    }
}

/// Bytes that remember whether somebody wanted to read past their end.
struct Whole<'a, 'b> {
    rest: &'a mut &'b [u8],
    is_passed: bool,
}

impl Read for Whole<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.is_passed |= self.rest.is_empty() && !into.is_empty();
        self.rest.read(into)
    }
}

/// A decoder that gives room to a window of 8 MiB, or as much as the output may have.
fn zstd_decoder<'a, 'b>(
    input: &'a mut &'b [u8],
    ceiling: usize,
) -> io::Result<zstd::stream::read::Decoder<'static, &'a mut &'b [u8]>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ceiling.max(1).ilog2().max(ZSTD_WINDOW_LOG_MAX))?;
    Ok(decoder)
}

/// Reads to the end, or until one byte past `ceiling`.
fn read_up_to(decoder: impl Read, input_bytes: usize, ceiling: usize) -> io::Result<Vec<u8>> {
    let first_guess = input_bytes.saturating_mul(FIRST_GUESS_RATIO).min(ceiling);
    let mut out = Vec::with_capacity(first_guess);
    let readable = u64::try_from(ceiling).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(readable).read_to_end(&mut out)?;
    Ok(out)
}

pub(super) fn damaged(compression: Compression, why: impl fmt::Display) -> BatchError {
    BatchError::Decompression {
        compression,
        why: why.to_string(),
    }
}
