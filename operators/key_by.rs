//! `key_by` and `key_by_ref`: give records a key, computed from the value or borrowed from it.

use std::marker::PhantomData;

use crate::codec::{Codec, Datum};
use crate::runtime::{Flow, Key, Keyed, Operator, Output, Record, Stream, Unkeyed, Upstream};

/// A key that is part of the value.
struct KeyByRef<F, K: ?Sized> {
    function: F,
    scratch: Vec<u8>,
    key: PhantomData<fn(&K)>,
}

impl<T, K, F> Operator<Unkeyed, T> for KeyByRef<F, K>
where
    T: ?Sized,
    K: Datum + ?Sized,
    F: for<'a> Fn(&'a T) -> &'a K,
{
    type OutKey = K;
    type Out = T;

    #[inline]
    fn process(&mut self, record: Record<'_, Unkeyed, T>, out: &mut impl Output<K, T>) -> Flow {
        push_keyed(
            (self.function)(record.value),
            record,
            &mut self.scratch,
            out,
        )
    }
}

/// A key that is computed from the value.
struct KeyBy<F, K> {
    function: F,
    scratch: Vec<u8>,
    key: PhantomData<fn(&K)>,
}

impl<T: ?Sized, K: Datum, F: Fn(&T) -> K> Operator<Unkeyed, T> for KeyBy<F, K> {
    type OutKey = K;
    type Out = T;

    #[inline]
    fn process(&mut self, record: Record<'_, Unkeyed, T>, out: &mut impl Output<K, T>) -> Flow {
        push_keyed(
            &(self.function)(record.value),
            record,
            &mut self.scratch,
            out,
        )
    }
}

/// Encodes the key, unless its bytes lie in memory as they are encoded.
#[inline]
fn push_keyed<K: Datum + ?Sized, T: ?Sized>(
    key: &K,
    record: Record<'_, Unkeyed, T>,
    scratch: &mut Vec<u8>,
    out: &mut impl Output<K, T>,
) -> Flow {
    let codec = K::DefaultCodec::default();
    if let Some(bytes) = codec.as_encoded(key) {
        return out.push(record.with_key(Key::new(bytes)));
    }
    scratch.clear();
    codec.encode(key, scratch)?;
    out.push(record.with_key(Key::new(scratch)))
}

impl<T: ?Sized + 'static, Up: Upstream<Unkeyed, T>> Stream<T, Up> {
    /// Gives each record the key that `function` computes from its value, or clones: `|event| event.user.clone()`. Where
    /// the key is a part of the value, [`key_by_ref`](Stream::key_by_ref) saves the clone.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("lengths");
    /// let by_length = job.source(lines(["a.txt"])).key_by(|line: &str| line.len() as u64);
    /// by_length.count("lengths").changes().sink(topic("length-counts"));
    /// ```
    #[track_caller]
    pub fn key_by<K, F>(self, function: F) -> Keyed<K, T, impl Upstream<K, T>>
    where
        K: Datum,
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        self.keying_operator(move |_| {
            Ok(KeyBy {
                function: function.clone(),
                scratch: vec![],
                key: PhantomData,
            })
        })
    }

    /// Gives each record the key that `function` borrows from its value, without an allocation: `|event: &Event|
    /// &event.user`. The type of the value is written out, as here, so that the compiler knows what is borrowed from
    /// what. A key that is computed is for [`key_by`](Stream::key_by).
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("lines");
    /// job.source(lines(["a.txt"])).key_by_ref(|line: &str| line).count("lines").changes().sink(topic("line-counts"));
    /// ```
    #[track_caller]
    pub fn key_by_ref<K, F>(self, function: F) -> Keyed<K, T, impl Upstream<K, T>>
    where
        K: Datum + ?Sized,
        F: for<'a> Fn(&'a T) -> &'a K + Clone + Send + Sync + 'static,
    {
        self.keying_operator(move |_| {
            Ok(KeyByRef {
                function: function.clone(),
                scratch: vec![],
                key: PhantomData,
            })
        })
    }
}
