//! Bytes of strangers: no length is believed, nothing panics, and memory stays in proportion (S-rows of the catalogue).

use bytes::Bytes;
use proptest::prelude::*;

use super::{Arbitrary, Choices};
use crate::protocol::wire::apis::with_apis;
use crate::protocol::wire::messages::api_versions::ApiVersionsRequest;
use crate::protocol::wire::messages::delete_topics::DeleteTopicsRequest;
use crate::protocol::wire::messages::metadata::MetadataRequest;
use crate::protocol::wire::messages::produce::ProduceRequest;
use crate::protocol::wire::{
    ApiKey, Message, Reader, Request, RequestHeader, Version, WireError, Writer, messages,
};

fn decode<R: Request>(version: i16, bytes: &[u8]) -> Result<R, WireError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    R::decode(&mut reader, Version::of(R::API, version))
}

#[test]
fn hostile_counts_allocate_nothing() {
    // Two thousand million topics in four bytes, and the same in a compact count.
    let error = decode::<MetadataRequest>(1, &i32::MAX.to_be_bytes()).unwrap_err();
    assert!(matches!(error, WireError::Truncated { .. }), "{error}");
    let error = decode::<MetadataRequest>(9, &[0xff, 0xff, 0xff, 0xff, 0x0f]).unwrap_err();
    assert!(matches!(error, WireError::Truncated { .. }), "{error}");
}

#[test]
fn hostile_lengths_are_refused() {
    let error = decode::<MetadataRequest>(1, &(-2i32).to_be_bytes()).unwrap_err();
    assert_eq!(error, WireError::BadLength { length: -2 });
    // A name of 32,767 bytes with none behind it.
    let error = decode::<MetadataRequest>(1, &[0, 0, 0, 1, 0x7f, 0xff]).unwrap_err();
    assert!(matches!(error, WireError::Truncated { .. }), "{error}");
}

#[test]
fn hostile_varints_end() {
    let error = decode::<MetadataRequest>(9, &[0xff; 32]).unwrap_err();
    assert_eq!(error, WireError::BadVarint);
    let error = decode::<MetadataRequest>(9, &[0xff, 0xff, 0xff, 0xff, 0x1f, 0]).unwrap_err();
    assert_eq!(error, WireError::BadVarint);
}

#[test]
fn varints_longer_than_needed_are_read() {
    // librdkafka fills in lengths later, in the space of a longer one: [] topics as 81 00 (count + 1 = 1).
    let request = decode::<MetadataRequest>(9, &[0x81, 0x00, 1, 0, 0, 0]).unwrap();
    assert_eq!(request.topics, Some(Vec::new()));
}

#[test]
fn hostile_texts_are_refused() {
    let error = decode::<MetadataRequest>(1, &[0, 0, 0, 1, 0, 2, 0xc3, 0x28]).unwrap_err();
    assert_eq!(error, WireError::NotUtf8);
}

#[test]
fn hostile_tagged_fields_stay_within_their_size() {
    let body = |tags: &[u8]| [&[1, 1][..], tags].concat();
    // Unknown tags are skipped.
    let skipped = body(&[1, 99, 3, 1, 2, 3]);
    assert!(decode::<ApiVersionsRequest>(3, &skipped).is_ok());
    // More bytes than there are; more tags than there are.
    for tags in [&[1, 99, 100, 1][..], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let error = decode::<ApiVersionsRequest>(3, &body(tags)).unwrap_err();
        assert!(matches!(error, WireError::Truncated { .. }), "{error}");
    }
}

#[test]
fn hostile_element_floods_are_refused() {
    // A million empty names in a megabyte would be 24 MB in memory, within bounds; a million empty topics are not.
    let mut names = vec![0xc1, 0x84, 0x3d];
    names.extend(vec![1u8; 1_000_000]);
    names.extend([0, 0, 0, 0, 0]);
    let names = decode::<DeleteTopicsRequest>(4, &names).unwrap();
    assert_eq!(names.topic_names.len(), 1_000_000);

    let mut topics = 1_000_000u32.to_be_bytes().to_vec();
    topics.splice(0..0, [0xff, 0xff, 0, 1, 0, 0, 0, 0]);
    topics.extend(vec![0u8; 1_000_000]);
    let error = decode::<ProduceRequest>(3, &topics).unwrap_err();
    assert_eq!(error, WireError::TooManyElements { count: 1_000_000 });
}

/// Decodes `bytes` as every message at every version: each returns, whatever it says.
macro_rules! decode_as_everything {
    ($(#[doc = $doc:literal] $name:ident = $key:literal, $module:ident::{$request:ident, $response:ident},
        flexible $flexible:expr, known $known:expr, served $served:expr, spoken $spoken:expr;)*) => {
        fn decode_as_everything(bytes: &Bytes) {
            $(for number in ApiKey::$name.known() {
                let version = Version::of(ApiKey::$name, number);
                let _ = messages::$module::$request::decode(&mut Reader::new(bytes.clone()), version);
                let _ = messages::$module::$response::decode(&mut Reader::new(bytes.clone()), version);
            })*
        }

        /// A well-formed message of some API, with one byte changed.
        fn damaged(seed: u64) -> Vec<u8> {
            let mut random = Choices(seed);
            let chosen = random.below(ApiKey::ALL.len() as u64);
            let mut writer = Writer::new();
            let mut index = 0;
            $(
                let version = Version::of(ApiKey::$name, *ApiKey::$name.known().end());
                if index == chosen {
                    let _ = messages::$module::$response::arbitrary(&mut random).encode(&mut writer, version);
                }
                index += 1;
            )*
            assert!(index > chosen);
            let mut bytes = writer.finish().0.concat();
            if !bytes.is_empty() {
                let place = usize::try_from(random.below(bytes.len() as u64)).unwrap();
                bytes[place] = random.next().to_le_bytes()[0];
            }
            bytes
        }
    };
}

with_apis!(decode_as_everything);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = RequestHeader::peek(&bytes);
        let _ = RequestHeader::decode(&mut Reader::new(bytes.clone()));
        decode_as_everything(&bytes);
    }

    #[test]
    fn hostile_changes_of_real_messages_never_panic(seed in any::<u64>()) {
        decode_as_everything(&Bytes::from(damaged(seed)));
    }
}
