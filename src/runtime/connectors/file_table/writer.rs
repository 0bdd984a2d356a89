//! One worker's end of the sink: the data file that is being written, and the commit that is under way.

use super::format::RowEncoder;
use super::manifest::{Entry, Part, PublishedFile};
use super::storage::Problem;
use crate::runtime::{Failure, Flow, MarkChanges, Record, SinkWriter};

/// One worker's end of a [`FileTable`](super::FileTable).
pub struct FileTableWriter<E> {
    sink: String,
    part: Part,
    encoder: E,
    file_bytes: usize,
    /// The rows of the open file.
    rows: u64,
    /// The files of the open cycle.
    files: Vec<PublishedFile>,
    prepared: Option<Entry>,
}

impl<E> FileTableWriter<E> {
    pub(super) fn new(sink: String, part: Part, encoder: E, file_bytes: usize) -> Self {
        Self {
            sink,
            part,
            encoder,
            file_bytes,
            rows: 0,
            files: Vec::new(),
            prepared: None,
        }
    }

    fn failed(&self, problem: Problem) -> Failure {
        problem.into_error(&self.sink).into()
    }

    /// Ends the open file, and makes it durable (O1).
    fn end_file<K: ?Sized, V: ?Sized>(&mut self) -> Flow
    where
        E: RowEncoder<K, V>,
    {
        let bytes = self.encoder.finish()?;
        let rows = std::mem::take(&mut self.rows);
        let file = self.part.put_file(self.files.len(), rows, bytes);
        let file = file.map_err(|problem| self.failed(problem))?;
        self.files.push(file);
        Ok(())
    }
}

impl<K: ?Sized, V: ?Sized, E: RowEncoder<K, V>> SinkWriter<K, V> for FileTableWriter<E> {
    fn write(&mut self, record: Record<'_, K, V>) -> Flow {
        self.encoder.write(record)?;
        self.rows += 1;
        match self.encoder.size_bytes() >= self.file_bytes {
            true => self.end_file::<K, V>(),
            false => Ok(()),
        }
    }

    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        if self.rows > 0 {
            self.end_file::<K, V>()?;
        }
        if self.files.is_empty() {
            return Ok(());
        }
        let entry = self.part.close_entry(std::mem::take(&mut self.files));
        let mark = serde_json::to_vec(&entry);
        let mark = mark.map_err(|e| self.failed(Problem::refused(e.to_string())))?;
        marks.set(&*self.part.name, mark);
        self.prepared = Some(entry);
        Ok(())
    }

    fn commit(&mut self) -> Flow {
        let Some(entry) = self.prepared.take() else {
            return Ok(());
        };
        let published = self.part.publish(&entry);
        published.map_err(|problem| self.failed(problem))
    }
}
