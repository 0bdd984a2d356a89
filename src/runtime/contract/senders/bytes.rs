//! The bytes of marks in repartition topics, and of clocks in the metadata of committed offsets.
//!
//! ```text
//! mark, the value of a record without a key       clocks (numbers without a size are LEB128)
//!  0 version     u8 = 1                            0 version   u8 = 1
//!  1 flags       u8    1: the senders are idle     1 base      i64   the least watermark
//!  2 watermark   i64                               for each way:
//! 10 from        u8    0: a source, 1: a step        from        u8
//! 11 number      u8                                  number      u8
//! 12 name_length u16                                 name_length u16
//! 14 name        UTF-8                               name        UTF-8
//!    tasks       a bit each, the lowest first        tasks_count
//!                                                    for each:   0: never heard of
//!                                                                4: idle, and never had a record
//!                                                                4 × (watermark − base) + 1 active, + 2 idle
//!                                                                3: ended
//! ```
//! Numbers with a size are big-endian. A difference of more than 2^60 is kept as 2^60: a lower bound that is less is one, too.

use std::sync::Arc;

use super::{Mark, Origin, Senders, Tasks, Way};
use crate::runtime::contract::time::Advance;
use crate::types::Timestamp;

const VERSION: u8 = 1;
const IS_IDLE: u8 = 1;
/// Kinds of senders, in the two lowest bits.
const ACTIVE: u64 = 1;
const IDLE: u64 = 2;
const ENDED: u64 = 3;
const IDLE_WITHOUT_TIME: u64 = 4;
const DIFFERENCE_MAX: u64 = 1 << 60;
/// The most bytes of tasks that a mark has: more than any topic has partitions.
const TASKS_BYTES_MAX: usize = 1 << 13;
/// The bytes of a number below 2^63.
const LEB128_BYTES_MAX: usize = 9;

impl Way {
    fn encode(&self, out: &mut Vec<u8>) {
        let from = match self.from {
            Origin::Source => 0,
            Origin::Step => 1,
        };
        // Names of sources and steps are far shorter; of a longer one the beginning tells it apart.
        let name = self.name.as_bytes();
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&[from, self.number]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&name[..usize::from(length)]);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (&[from, number, high, low], rest) = bytes.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        *bytes = rest;
        Some(Self {
            from: match from {
                0 => Origin::Source,
                1 => Origin::Step,
                _ => return None,
            },
            name: Arc::from(std::str::from_utf8(name).ok()?),
            number,
        })
    }
}

impl Mark {
    /// Writes the value of the record.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[VERSION, u8::from(self.told.is_idle) * IS_IDLE]);
        out.extend_from_slice(&self.told.watermark.0.to_be_bytes());
        self.way.encode(out);
        out.extend_from_slice(&self.tasks.0);
    }

    /// Reads the value of a record without a key; `None` if it is no mark.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (&[version, flags], rest) = value.split_first_chunk()?;
        let (watermark, mut rest) = rest.split_first_chunk()?;
        if version != VERSION || flags & !IS_IDLE != 0 {
            return None;
        }
        let way = Way::decode(&mut rest)?;
        if rest.len() > TASKS_BYTES_MAX {
            return None;
        }
        Some(Self {
            way,
            tasks: Tasks(rest.to_vec()),
            told: Advance {
                watermark: Timestamp(i64::from_be_bytes(*watermark)),
                is_idle: flags & IS_IDLE != 0,
            },
        })
    }
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..7 * LEB128_BYTES_MAX).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The last news of the tasks of a way; `None` for those that were never heard of.
type Told = Vec<Option<Advance>>;

pub(super) fn encode_clocks(ways: &[(&Way, Told)]) -> Vec<u8> {
    let told = ways.iter().flat_map(|(_, told)| told.iter().flatten());
    let times = told.map(|told| told.watermark);
    let base = times.filter(|time| *time > Timestamp::MIN).min();
    let base = base.unwrap_or(Timestamp(0));
    let mut out = vec![VERSION];
    out.extend_from_slice(&base.0.to_be_bytes());
    for (way, told) in ways {
        way.encode(&mut out);
        put_number(told.len() as u64, &mut out);
        for told in told {
            let number = told.map_or(0, |told| {
                let difference = told.watermark.0.abs_diff(base.0).min(DIFFERENCE_MAX);
                match (told.watermark, told.is_idle) {
                    (Timestamp::MAX, _) => ENDED,
                    (Timestamp::MIN, _) => IDLE_WITHOUT_TIME,
                    (_, false) => (difference << 2) | ACTIVE,
                    (_, true) => (difference << 2) | IDLE,
                }
            });
            put_number(number, &mut out);
        }
    }
    out
}

/// Reads clocks. Those of an unknown version, or none, are of senders that were never heard of: they hold until they are.
pub(super) fn decode_clocks(bytes: &[u8]) -> Vec<(Way, Told)> {
    let whole = || {
        let (&[version], rest) = bytes.split_first_chunk()?;
        let (base, mut rest) = rest.split_first_chunk()?;
        let base = Timestamp(i64::from_be_bytes(*base));
        let mut ways = Vec::new();
        while !rest.is_empty() {
            let way = Way::decode(&mut rest)?;
            let count = usize::try_from(take_number(&mut rest)?).ok()?;
            let mut told = Vec::new();
            for _ in 0..count {
                told.push(decode_told(take_number(&mut rest)?, base));
            }
            ways.push((way, told));
        }
        (version == VERSION).then_some(ways)
    };
    whole().unwrap_or_default()
}

fn decode_told(number: u64, base: Timestamp) -> Option<Advance> {
    if number == IDLE_WITHOUT_TIME {
        return Some(Advance {
            watermark: Timestamp::MIN,
            is_idle: true,
        });
    }
    let difference = i64::try_from(number >> 2).unwrap_or(i64::MAX);
    let (watermark, is_idle) = match number & 3 {
        ACTIVE => (base.plus_millis(difference), false),
        IDLE => (base.plus_millis(difference), true),
        ENDED => (Timestamp::MAX, false),
        _ => return None,
    };
    Some(Advance { watermark, is_idle })
}

pub(super) fn clocks_bytes_max(senders: &[Senders]) -> usize {
    let ways = senders.iter().map(|Senders { way, tasks_count }| {
        4 + way.name.len() + LEB128_BYTES_MAX * (1 + *tasks_count as usize)
    });
    1 + 8 + ways.sum::<usize>()
}
