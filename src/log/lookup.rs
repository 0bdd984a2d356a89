//! A segment's index, wherever it is: in memory, in the cache, in its files, or to be made from the batches again.

use super::derived;
use super::error::LogError;
use super::leftovers::Listing;
use super::partition::PartitionLog;
use super::producer_state::ProducerState;
use super::recovery::replay;
use super::scan::{ScanRange, Visit, scan};
use super::segment::{Density, IndexPlace, Segment, SegmentIndex};

impl PartitionLog {
    /// Shows `look` the index of a segment.
    ///
    /// # Errors
    /// As [`PartitionLog::rebuild_index`], if its files are lost or damaged.
    pub(super) fn with_index<T>(
        &self,
        segment: &Segment,
        look: impl FnOnce(&SegmentIndex) -> T,
    ) -> Result<T, LogError> {
        let files = match &segment.index {
            IndexPlace::Memory(index) => return Ok(look(index)),
            IndexPlace::Files(files) => files,
        };
        let index = segment.cached().index(|| {
            let expected = *files.lock();
            match expected.read(&self.env, &self.dir, segment.base_offset) {
                Some(index) => Ok(index),
                None => {
                    let index = self.rebuild_index(segment)?;
                    let written = derived::write_segment(&self.env, &self.dir, segment, &index);
                    match written {
                        Ok(written) => *files.lock() = written,
                        Err(error) => crate::env::warn!(%error, "a rebuilt index was not written"),
                    }
                    Ok(index)
                }
            }
        })?;
        Ok(look(&index))
    }

    /// Makes the index of a sealed segment from its batches (I11). What was aborted in it depends on transactions
    /// that began before, so it begins with the newest producer snapshot at or before it.
    ///
    /// # Errors
    /// [`LogError::Io`]; [`LogError::Corrupt`] if a batch is damaged.
    fn rebuild_index(&self, segment: &Segment) -> Result<SegmentIndex, LogError> {
        crate::env::warn!(path = %segment.path.display(), "the segment's index is lost or damaged: it is rebuilt");
        let first = self.segments[0].base_offset;
        let mut snapshots = Listing::read(&self.env, &self.dir)?.snapshots;
        snapshots.retain(|&offset| offset >= first);
        let newest =
            derived::newest_snapshot(&self.env, &self.dir, &snapshots, segment.base_offset);
        let (from, mut producers) = newest.unwrap_or((first, ProducerState::default()));
        let now = self.env.clock.wall();
        let before = self.segments[self.segment_of(from)..].iter();
        for earlier in before.take_while(|earlier| earlier.base_offset < segment.base_offset) {
            self.scan_segment(earlier, &mut |header, batch, _| {
                if header.base_offset >= from {
                    replay(&mut producers, header, batch, now)?;
                }
                Ok(())
            })?;
        }
        let density = match segment.base_offset < self.cleaned_end {
            true => Density::EveryBatch,
            false => self.density(),
        };
        let path = segment.path.to_path_buf();
        let mut rebuilt = Segment::at(&self.cache, path, segment.base_offset);
        self.scan_segment(segment, &mut |header, batch, _| {
            rebuilt.note(header, density);
            let ended = replay(&mut producers, header, batch, now)?;
            ended
                .into_iter()
                .for_each(|entry| rebuilt.note_aborted(entry));
            Ok(())
        })?;
        match rebuilt.index {
            IndexPlace::Memory(index) => Ok(*index),
            IndexPlace::Files(_) => Ok(SegmentIndex::new(segment.base_offset)),
        }
    }

    /// Reads all batches of a segment; damage is an error here.
    pub(super) fn scan_segment(
        &self,
        segment: &Segment,
        visit: &mut Visit<'_>,
    ) -> Result<(), LogError> {
        let range = ScanRange {
            position: 0,
            end_position: segment.size_bytes,
            expected: segment.base_offset,
            gaps_below: self.cleaned_end,
            leader_epoch_max: self.config.leader_epoch,
        };
        match scan(&*segment.file()?, &segment.path, range, visit)? {
            None => Ok(()),
            Some(damage) => Err(LogError::corrupt(
                &segment.path,
                damage.position,
                damage.why,
            )),
        }
    }
}
