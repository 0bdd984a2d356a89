//! Compressing clients' batches as their topic wants them (`compression.type`).

use bytes::{Bytes, BytesMut};

use super::error::LogError;
use super::partition::{AppendOrigin, PartitionLog};
use crate::protocol::batch::{Batch, Compression, DecompressionLimit, Header, recompress};

impl PartitionLog {
    /// The batches compressed as the topic wants them, and `headers` with their new sizes; `None` if they are so already.
    ///
    /// # Errors
    /// If a batch is not readable, or too large now.
    pub(super) fn recompressed(
        &self,
        records: &Bytes,
        origin: AppendOrigin,
        headers: &mut [Header],
    ) -> Result<Option<BytesMut>, LogError> {
        let Some(wanted) = self.config.compression else {
            return Ok(None);
        };
        let is_wanted = |header: &Header| header.compression() == wanted;
        if origin == AppendOrigin::Coordinator || headers.iter().all(is_wanted) {
            return Ok(None);
        }
        let mut rest = records.clone();
        let mut bytes = BytesMut::with_capacity(records.len());
        for header in headers {
            let batch = Batch::parse(rest.split_to(header.total_bytes()))?;
            let built = recompress(
                &batch,
                &DecompressionLimit::default(),
                wanted,
                self.level_of(wanted),
            )?;
            *header = Header {
                // The largest time is what the records say.
                max_timestamp: header.max_timestamp,
                ..Header::parse(&built)?
            };
            self.check_fits_message(header)?;
            bytes.extend_from_slice(&built);
        }
        self.check_fits_segment(bytes.len())?;
        Ok(Some(bytes))
    }

    fn level_of(&self, compression: Compression) -> Option<i32> {
        match compression {
            Compression::Gzip => self.config.gzip_level,
            Compression::Zstd => self.config.zstd_level,
            Compression::None | Compression::Snappy | Compression::Lz4 => None,
        }
    }
}
