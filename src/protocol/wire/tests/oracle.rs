//! Every message at every version against kafka-protocol: what we write it reads, and writes back byte for byte.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

use super::{Arbitrary, Choices};
use crate::protocol::wire::apis::with_apis;
use crate::protocol::wire::{
    ApiKey, Message, Reader, Request, Version, WireError, Writer, messages,
};

/// A random message as version `version` sends it: what it cannot carry has been lost, and what it must not lose
/// is left at its default.
fn encode_random<M: Message + Arbitrary>(seed: u64, version: Version) -> Option<Bytes> {
    let message = M::arbitrary(&mut Choices(seed));
    let mut writer = Writer::new();
    match message.encode(&mut writer, version) {
        Ok(()) => Some(writer.finish().0.concat().into()),
        Err(WireError::Unsendable { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn check<Ours, Theirs>(api: ApiKey, number: i16, seed: u64) -> Result<bool, TestCaseError>
where
    Ours: Message + Arbitrary + std::fmt::Debug,
    Theirs: Decodable + Encodable + std::fmt::Debug,
{
    let version = Version::of(api, number);
    let Some(bytes) = encode_random::<Ours>(seed, version) else {
        return Ok(false);
    };
    let mut input = bytes.clone();
    let theirs = Theirs::decode(&mut input, number).map_err(|error| {
        TestCaseError::fail(format!(
            "{api} v{number}: they cannot read {bytes:?}: {error}"
        ))
    })?;
    prop_assert!(
        input.is_empty(),
        "{api} v{number}: they leave {} bytes of {bytes:?}",
        input.len()
    );
    let mut output = BytesMut::new();
    theirs
        .encode(&mut output, number)
        .map_err(|error| TestCaseError::fail(format!("{api} v{number}: {theirs:?}: {error}")))?;
    prop_assert_eq!(
        &bytes,
        &output.freeze(),
        "{} v{}: they write other bytes",
        api,
        number
    );

    let mut reader = Reader::new(bytes.clone());
    let ours = Ours::decode(&mut reader, version).map_err(|error| {
        TestCaseError::fail(format!(
            "{api} v{number}: we cannot read our bytes: {error}"
        ))
    })?;
    prop_assert_eq!(
        reader.left_bytes(),
        0,
        "{} v{}: we leave bytes",
        api,
        number
    );
    let mut again = Writer::new();
    ours.encode(&mut again, version)
        .map_err(|error| TestCaseError::fail(format!("{api} v{number}: {ours:?}: {error}")))?;
    prop_assert_eq!(
        bytes,
        Bytes::from(again.finish().0.concat()),
        "{} v{}: we write other bytes",
        api,
        number
    );
    Ok(true)
}

macro_rules! every_message {
    ($(#[doc = $doc:literal] $name:ident = $key:literal, $module:ident::{$request:ident, $response:ident},
        flexible $flexible:expr, known $known:expr, served $served:expr, spoken $spoken:expr;)*) => {
        /// Checks all messages; how many request versions were sent.
        fn check_all(seed: u64) -> Result<usize, TestCaseError> {
            let mut sent = 0;
            $(for number in ApiKey::$name.known() {
                type Response = <messages::$module::$request as Request>::Response;
                let requested = check::<messages::$module::$request, kafka_protocol::messages::$request>(
                    ApiKey::$name, number, seed,
                )?;
                sent += usize::from(requested);
                let answered = check::<Response, kafka_protocol::messages::$response>(ApiKey::$name, number, seed)?;
                prop_assert!(answered, "{} v{} cannot be answered", stringify!($name), number);
            })*
            Ok(sent)
        }
    };
}

with_apis!(every_message);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_message_at_every_version_is_read_and_written_as_kafka_protocol_does(seed in any::<u64>()) {
        let sent = check_all(seed)?;
        prop_assert!(sent > ApiKey::ALL.len(), "only {sent} request versions could be sent");
    }
}
