//! A source of values that are there already: anything that can be iterated over again.

use std::sync::Arc;
use std::task::Waker;

use crate::codec::{Codec, Datum};
use crate::runtime::{
    Emit, Emitted, JobContext, JobError, Key, Pace, Raw, Read, ReadLetter, Source, Split,
    SplitReader, TakeRecord, Unkeyed,
};
use crate::types::{Offset, Timestamp};

/// Values read at once.
const BATCH_VALUES: usize = 1024;

/// A source of the values of an iterator; see [`values`].
pub struct Values<T> {
    name: String,
    make: Arc<dyn Fn() -> Box<dyn Iterator<Item = T>> + Send + Sync>,
}

/// A source of the values that `values` gives, in order. It must give the same values every time:
/// after a restart the source skips as many as were committed. They have no time of their own ([`Timestamp::NONE`]).
///
/// ```
/// use onceflow::prelude::*;
///
/// let job = Job::new("numbers");
/// job.source(values("upto-ten", 1..=10u64)).filter(|n| n % 2 == 0).sink(topic("even"));
/// ```
pub fn values<T, I>(name: &str, values: I) -> Values<T>
where
    T: Datum + Sized + Clone,
    I: IntoIterator<Item = T> + Clone + Send + Sync + 'static,
{
    Values {
        name: name.to_owned(),
        make: Arc::new(move || Box::new(values.clone().into_iter())),
    }
}

impl<T: Datum + Sized + Clone> Source for Values<T> {
    type Key = Unkeyed;
    type Value = T;
    type Reader = ValuesReader<T>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn letters(&self) -> Option<Arc<dyn ReadLetter<Unkeyed, T>>> {
        Some(Arc::new(ValueLetters))
    }

    fn splits(&self, _context: &JobContext) -> Result<Vec<Split>, JobError> {
        Ok(vec![Split::Named {
            source: self.name.clone(),
            name: self.name.clone(),
        }])
    }

    fn open(
        &self,
        _split: &Split,
        position: Option<Offset>,
        _context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        let position = position.unwrap_or_default();
        let mut values = (self.make)();
        let skip = usize::try_from(position.0).unwrap_or(usize::MAX);
        if let Some(last) = skip.checked_sub(1) {
            values.nth(last);
        }
        Ok(ValuesReader { values, position })
    }
}

/// The way back for letters, which hold the values in their default codec.
struct ValueLetters;

impl<T: Datum + Sized + Clone> ReadLetter<Unkeyed, T> for ValueLetters {
    fn read(
        &self,
        _key: Option<&[u8]>,
        value: Option<&[u8]>,
        take: &mut TakeRecord<'_, Unkeyed, T>,
    ) -> Result<Pace, JobError> {
        match T::DefaultCodec::default().decode(value.unwrap_or_default()) {
            Ok(value) => take(Ok((Key::none(), &*value))),
            Err(e) => take(Err(e)),
        }
    }
}

/// Reads the values.
pub struct ValuesReader<T> {
    values: Box<dyn Iterator<Item = T>>,
    position: Offset,
}

impl<T: Datum + Sized + Clone> SplitReader<Unkeyed, T> for ValuesReader<T> {
    fn read(&mut self, _waker: &Waker, emit: &mut impl Emit<Unkeyed, T>) -> Result<Read, JobError> {
        for _ in 0..BATCH_VALUES {
            let Some(value) = self.values.next() else {
                return Ok(Read::Exhausted);
            };
            let offset = self.position;
            self.position = offset.plus(1);
            let pace = emit.emit(Emitted {
                record: Ok((Key::none(), &value)),
                timestamp: Timestamp::NONE,
                offset,
                raw: Raw::Encode(&|out| T::DefaultCodec::default().encode(&value, out)),
            })?;
            if pace == Pace::Pause {
                break;
            }
        }
        Ok(Read::Progress)
    }

    fn position(&self) -> Offset {
        self.position
    }
}
