//! `BatchPlan`: a record batch as a client might build it, honest or lying, and its bytes.
//!
//! The bytes are put together by hand: what our own encoder would never write can be written so.

use std::io::Write;

use onceflow::types::TimestampType;

const HEADER_BYTES: usize = 61;
const LENGTH_AT: usize = 8;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;

/// A record: its time in milliseconds after the run's, and what it holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RecordPlan {
    pub(super) time: i64,
    pub(super) key: Option<&'static str>,
    pub(super) value: Option<String>,
    pub(super) headers: Vec<(&'static str, Option<&'static str>)>,
}

/// Which sequence an idempotent batch begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum SequencePlan {
    /// The one that follows.
    Next,
    /// The last one again.
    Again,
    /// Late by this much.
    Ahead(i32),
    Exactly(i32),
}

/// Who a batch says that it is from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ProducerPlan {
    /// One of the run's producers.
    pub(super) slot: u8,
    pub(super) sequence: SequencePlan,
    /// Added to the epoch that the producer has.
    pub(super) epoch: i16,
    pub(super) is_transactional: bool,
}

/// Lie of a batch about its records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Lie {
    /// Added to the header's count of records.
    Count(i32),
    /// Added to the header's last offset delta.
    LastDelta(i32),
    /// Both at once, as if there were that many records more.
    CountAndLastDelta(i32),
    MaxTime(i64),
    BaseOffset(i64),
    LeaderEpoch(i32),
    Magic(u8),
    /// The checksum is of other bytes.
    Crc,
    /// Attribute bits that are turned over.
    Attributes(i16),
    /// Added to the header's length.
    Length(i32),
    /// Added to a record's offset delta.
    OffsetDelta(usize, i64),
    /// Added to a record's length.
    RecordLength(usize, i64),
    KeyLength(usize, i64),
    ValueLength(usize, i64),
    HeadersCount(usize, i64),
    RecordAttributes(usize, u8),
    /// Bytes behind the last record.
    Behind(u8),
    /// This many bytes of the records, as they are sent, are missing.
    Cut(usize),
    /// The compressed bytes are none.
    Garbage,
    /// This many bytes of the whole batch are missing; its header knows nothing of it.
    Truncated(usize),
}

/// A batch to send.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BatchPlan {
    pub(super) records: Vec<RecordPlan>,
    /// The number of the compression; 0 for none.
    pub(super) compression: i16,
    pub(super) producer: Option<ProducerPlan>,
    pub(super) timestamp_type: TimestampType,
    pub(super) lies: Vec<Lie>,
}

/// The producer as a batch's header names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) id: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
    pub(super) is_transactional: bool,
}

impl Stamp {
    pub(super) const PLAIN: Self = Self {
        id: -1,
        epoch: -1,
        sequence: -1,
        is_transactional: false,
    };
}

impl BatchPlan {
    /// Counts its sequences if it is accepted.
    pub(super) fn sequences(&self) -> i32 {
        let lied = self.lies.iter().map(|lie| match lie {
            Lie::LastDelta(more) | Lie::CountAndLastDelta(more) => *more,
            _ => 0,
        });
        let count = i32::try_from(self.records.len()).unwrap();
        count.wrapping_add(lied.fold(0, i32::wrapping_add))
    }

    /// The whole batch; record times count from `base_time`.
    pub(super) fn bytes(&self, base_time: i64, stamp: Stamp) -> Vec<u8> {
        let mut payload = self.compressed(self.payload());
        if self.lies.contains(&Lie::Garbage) {
            payload = b"these bytes are no compressed records".to_vec();
        }
        let mut missing = 0;
        for lie in &self.lies {
            match lie {
                Lie::Cut(bytes) => payload.truncate(payload.len().saturating_sub(*bytes)),
                Lie::Truncated(bytes) => missing = *bytes,
                _ => {}
            }
        }
        let mut batch = self.header(base_time, stamp);
        batch.extend(payload);
        self.seal(&mut batch);
        batch.truncate(batch.len() - missing.min(batch.len()));
        batch
    }

    /// The header, with the length and the checksum still missing.
    fn header(&self, base_time: i64, stamp: Stamp) -> Vec<u8> {
        let count = i32::try_from(self.records.len()).unwrap();
        let base = self.records.first().map_or(0, |it| it.time);
        let largest = self.records.iter().map(|it| it.time).max().unwrap_or(0);
        let (mut base_offset, mut leader_epoch, mut magic) = (0_i64, -1_i32, 2_u8);
        let (mut records, mut last_delta, mut largest_lie) = (count, count - 1, 0_i64);
        let mut attributes = self.compression;
        attributes |= i16::from(self.timestamp_type == TimestampType::LogAppendTime) << 3;
        attributes |= i16::from(stamp.is_transactional) << 4;
        for lie in &self.lies {
            match *lie {
                Lie::Count(more) => records = records.wrapping_add(more),
                Lie::LastDelta(more) => last_delta = last_delta.wrapping_add(more),
                Lie::CountAndLastDelta(more) => {
                    records = records.wrapping_add(more);
                    last_delta = last_delta.wrapping_add(more);
                }
                Lie::MaxTime(more) => largest_lie = more,
                Lie::BaseOffset(offset) => base_offset = offset,
                Lie::LeaderEpoch(epoch) => leader_epoch = epoch,
                Lie::Magic(number) => magic = number,
                Lie::Attributes(bits) => attributes ^= bits,
                _ => {}
            }
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(base_offset.to_be_bytes());
        header.extend(0_i32.to_be_bytes());
        header.extend(leader_epoch.to_be_bytes());
        header.push(magic);
        header.extend(0_u32.to_be_bytes());
        header.extend(attributes.to_be_bytes());
        header.extend(last_delta.to_be_bytes());
        header.extend((base_time + base).to_be_bytes());
        header.extend((base_time + largest + largest_lie).to_be_bytes());
        header.extend(stamp.id.to_be_bytes());
        header.extend(stamp.epoch.to_be_bytes());
        header.extend(stamp.sequence.to_be_bytes());
        header.extend(records.to_be_bytes());
        header
    }

    fn seal(&self, batch: &mut [u8]) {
        let mut length = i32::try_from(batch.len() - LENGTH_AT - 4).unwrap();
        let mut crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
        for lie in &self.lies {
            match lie {
                Lie::Length(more) => length = length.wrapping_add(*more),
                Lie::Crc => crc ^= 1,
                _ => {}
            }
        }
        batch[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
        batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    }

    fn payload(&self) -> Vec<u8> {
        let base = self.records.first().map_or(0, |it| it.time);
        let mut payload = Vec::new();
        for (index, record) in self.records.iter().enumerate() {
            let body = self.record(index, record, base);
            let length = i64::try_from(body.len()).unwrap() + self.shift(index, |lie| lie.length());
            varint(&mut payload, length);
            payload.extend(body);
        }
        for lie in &self.lies {
            if let Lie::Behind(bytes) = lie {
                payload.extend(std::iter::repeat_n(0, usize::from(*bytes)));
            }
        }
        payload
    }

    fn record(&self, index: usize, record: &RecordPlan, base: i64) -> Vec<u8> {
        let mut body = vec![0_u8];
        for lie in &self.lies {
            if let Lie::RecordAttributes(at, bits) = lie
                && *at == index
            {
                body[0] = *bits;
            }
        }
        varint(&mut body, record.time - base);
        let delta = i64::try_from(index).unwrap();
        varint(&mut body, delta + self.shift(index, |lie| lie.offset()));
        let key = record.key.map(str::as_bytes);
        text(&mut body, key, self.shift(index, |lie| lie.key()));
        let value = record.value.as_deref().map(str::as_bytes);
        text(&mut body, value, self.shift(index, |lie| lie.value()));
        let count = i64::try_from(record.headers.len()).unwrap();
        varint(&mut body, count + self.shift(index, |lie| lie.headers()));
        for (name, value) in &record.headers {
            text(&mut body, Some(name.as_bytes()), 0);
            text(&mut body, value.map(str::as_bytes), 0);
        }
        body
    }

    /// The sum of the lies of one kind about a record.
    fn shift(&self, index: usize, of: impl Fn(&Lie) -> Option<(usize, i64)>) -> i64 {
        let about = self.lies.iter().filter_map(of);
        about.filter(|(at, _)| *at == index).map(|it| it.1).sum()
    }

    fn compressed(&self, payload: Vec<u8>) -> Vec<u8> {
        match self.compression {
            1 => {
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(&payload).unwrap();
                encoder.finish().unwrap()
            }
            2 => {
                let block = snap::raw::Encoder::new().compress_vec(&payload).unwrap();
                let length = i32::try_from(block.len()).unwrap().to_be_bytes();
                let head = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
                [&head[..], &length, &block].concat()
            }
            3 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(&payload).unwrap();
                encoder.finish().unwrap()
            }
            4 => zstd::stream::encode_all(&payload[..], 1).unwrap(),
            _ => payload,
        }
    }
}

impl Lie {
    fn length(self: &Lie) -> Option<(usize, i64)> {
        match *self {
            Self::RecordLength(at, more) => Some((at, more)),
            _ => None,
        }
    }

    fn offset(self: &Lie) -> Option<(usize, i64)> {
        match *self {
            Self::OffsetDelta(at, more) => Some((at, more)),
            _ => None,
        }
    }

    fn key(self: &Lie) -> Option<(usize, i64)> {
        match *self {
            Self::KeyLength(at, more) => Some((at, more)),
            _ => None,
        }
    }

    fn value(self: &Lie) -> Option<(usize, i64)> {
        match *self {
            Self::ValueLength(at, more) => Some((at, more)),
            _ => None,
        }
    }

    fn headers(self: &Lie) -> Option<(usize, i64)> {
        match *self {
            Self::HeadersCount(at, more) => Some((at, more)),
            _ => None,
        }
    }
}

fn text(body: &mut Vec<u8>, text: Option<&[u8]>, lie: i64) {
    let length = text.map_or(-1, |text| i64::try_from(text.len()).unwrap());
    varint(body, length + lie);
    body.extend(text.unwrap_or_default());
}

/// A zig-zag number of the record format.
fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
}
