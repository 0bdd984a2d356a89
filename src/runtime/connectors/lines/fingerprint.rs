//! `Fingerprint`: what a committed position of a line source knows of the input before it.
//!
//! ```text
//! 0 version u8 = 1   1 flags u8   2 device u64   10 inode u64   18 seen_bytes u64   26 prefix_crc u32   30 tail_crc u32     34 bytes
//! flags: 1 the last line had no end   2 it ended in \r
//! ```

use crate::env::FileIdentity;

const VERSION: u8 = 1;
const LENGTH_BYTES: usize = 34;
const IS_UNENDED: u8 = 1;
const IS_RETURN: u8 = 2;

/// The knowledge of the input before a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fingerprint {
    /// The last line, if it had no end when it was committed.
    pub(super) unended: Option<Unended>,
    /// The file; all zeros for a stream.
    pub(super) identity: FileIdentity,
    /// The bytes of the file that were seen: those before the position, and maybe more.
    pub(super) seen_bytes: u64,
    /// The CRC-32C of all bytes before the position.
    pub(super) prefix_crc: u32,
    /// The CRC-32C of the last bytes before the position; see [`TAIL_BYTES`](super::input::TAIL_BYTES).
    pub(super) tail_crc: u32,
}

/// A last line that was committed without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unended {
    /// Whether its last byte is `\r`, which was taken for half of a line end.
    pub(super) is_return: bool,
}

impl Fingerprint {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut flags = 0;
        if let Some(unended) = self.unended {
            flags |= IS_UNENDED | if unended.is_return { IS_RETURN } else { 0 };
        }
        let mut bytes = Vec::with_capacity(LENGTH_BYTES);
        bytes.extend([VERSION, flags]);
        bytes.extend(self.identity.device.to_be_bytes());
        bytes.extend(self.identity.inode.to_be_bytes());
        bytes.extend(self.seen_bytes.to_be_bytes());
        bytes.extend(self.prefix_crc.to_be_bytes());
        bytes.extend(self.tail_crc.to_be_bytes());
        assert_eq!(bytes.len(), LENGTH_BYTES);
        bytes
    }

    /// `Ok(None)` for the position of a release that kept none.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some(&version) = bytes.first() else {
            return Ok(None);
        };
        if version != VERSION {
            return Err(format!(
                "its committed position is of version {version}, which this release does not know: run the newer one"
            ));
        }
        let bytes: &[u8; LENGTH_BYTES] = bytes.try_into().map_err(|_| {
            format!(
                "its committed position has a fingerprint of {} bytes instead of {LENGTH_BYTES}: the topic is the job's own, write nothing into it",
                bytes.len()
            )
        })?;
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
        let crc = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
        let is = |flag: u8| bytes[1] & flag != 0;
        let identity = FileIdentity {
            device: number(2),
            inode: number(10),
        };
        Ok(Some(Self {
            unended: is(IS_UNENDED).then_some(Unended {
                is_return: is(IS_RETURN),
            }),
            identity,
            seen_bytes: number(18),
            prefix_crc: crc(26),
            tail_crc: crc(30),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_has_these_bytes() {
        let fingerprint = Fingerprint {
            unended: Some(Unended { is_return: true }),
            identity: FileIdentity {
                device: 0x0102,
                inode: 0x0304,
            },
            seen_bytes: 0x0506,
            prefix_crc: 0x0708_090a,
            tail_crc: 0x0b0c_0d0e,
        };
        let bytes = [
            1, 3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6, 7, 8, 9,
            10, 11, 12, 13, 14,
        ];
        assert_eq!(fingerprint.encode(), bytes);
        assert_eq!(Fingerprint::decode(&bytes), Ok(Some(fingerprint)));
        assert_eq!(Fingerprint::decode(&[]), Ok(None));
        assert!(Fingerprint::decode(&[2]).unwrap_err().contains("newer"));
        assert!(Fingerprint::decode(&bytes[..30]).is_err());
    }
}
