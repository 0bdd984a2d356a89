//! Attacks on the decoder of requests.

use onceflow::internals::protocol::wire::messages::api_versions::ApiVersionsRequest;
use onceflow::internals::protocol::wire::{ApiKey, encode_request};

use super::{Target, batch, head, produce};

/// Sends each body on a connection of its own; the broker may answer or hang up, but must do one of both.
fn survives(bodies: impl IntoIterator<Item = Vec<u8>>) {
    let target = Target::start();
    for body in bodies {
        let mut client = target.connect();
        client.send_frame(&body);
        client.finish();
        while client.receive().is_some() {}
    }
    target.assert_unharmed();
}

#[test]
fn count_of_two_billion() {
    let counts = [
        &i32::MAX.to_be_bytes()[..],
        &0x00FF_FFFFi32.to_be_bytes(),
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F],
        &[0xFF, 0xFF, 0x7F],
    ];
    survives((0..70).flat_map(|api| {
        counts.into_iter().flat_map(move |count| {
            [0, 1, 4, 9].map(|version| {
                // With tags or without, and with a few empty fields before the count.
                [&head(api, version)[..], &[0], count, &[0; 64]].concat()
            })
        })
    }));
}

#[test]
fn text_longer_than_its_frame() {
    survives((0..70).flat_map(|api| {
        [0, 3, 9].map(|version| [&head(api, version)[..], &[0x7F, 0xFF, 0x41]].concat())
    }));
}

#[test]
fn client_id_longer_than_its_frame() {
    let mut body = head(18, 3);
    body.truncate(8);
    body.extend(i16::MAX.to_be_bytes());
    survives([body]);
}

#[test]
fn number_without_an_end() {
    survives((0..70).map(|api| [&head(api, 9)[..], &[0xFF; 40]].concat()));
}

#[test]
fn tagged_fields_without_an_end() {
    let endless: Vec<u8> = (0..30_000).flat_map(|_| [1u8, 0]).collect();
    survives([
        [&head(18, 3)[..], &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &endless].concat(),
        [&head(18, 3)[..], &[0x80, 0x80, 0x01], &endless].concat(),
        // Descending, twice the same, and longer than the frame.
        [&head(18, 3)[..], &[2, 5, 0, 3, 0]].concat(),
        [&head(18, 3)[..], &[2, 5, 0, 5, 0]].concat(),
        [&head(18, 3)[..], &[1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x07]].concat(),
    ]);
}

#[test]
fn garbage_of_all_kinds() {
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let bodies: Vec<Vec<u8>> = (0..1_500)
        .map(|n| {
            let api = i16::try_from(n % 76).unwrap();
            let version = i16::try_from(random() % 14).unwrap();
            let length = usize::try_from(random() % 200).unwrap();
            let mut body = head(api, version);
            body.extend((0..length).map(|_| (random() >> 56) as u8));
            body
        })
        .collect();
    survives(bodies);
}

#[test]
fn requests_cut_at_every_byte() {
    let frame = encode_request(9, 7, Some("c"), &produce("cut", batch(&[b"x"]))).unwrap();
    let whole = frame.to_bytes();
    survives((8..whole.len()).map(|end| whole[..end].to_vec()));
}

#[test]
fn unknown_requests_and_versions() {
    let target = Target::start();
    for (api, version) in [
        (999, 0),
        (-1, 0),
        (i16::MAX, i16::MAX),
        (0, -1),
        (3, 99),
        (1, 3),
    ] {
        let mut client = target.connect();
        client.send_frame(&head(api, version));
        assert!(client.is_cut(), "{api} {version}");
    }
    // But for ApiVersions, so that a newer client learns what we speak.
    let mut client = target.connect();
    client.send_frame(&[&head(ApiKey::ApiVersions.key(), 99)[..], &[0]].concat());
    let answer = client.receive().unwrap();
    assert_eq!(answer[4..6], 35i16.to_be_bytes());
    assert!(
        client
            .request(
                3,
                &ApiVersionsRequest {
                    client_software_name: "a".to_owned(),
                    client_software_version: "1".to_owned(),
                }
            )
            .is_some()
    );
    target.assert_unharmed();
}

#[test]
fn requests_among_brokers() {
    let target = Target::start();
    // LeaderAndIsr, StopReplica, UpdateMetadata, ControlledShutdown, AlterPartition, Envelope, Vote.
    for api in [4, 5, 6, 7, 56, 58, 52] {
        for version in 0..5 {
            let mut client = target.connect();
            client.send_frame(&[&head(api, version)[..], &[0; 100]].concat());
            assert!(client.is_cut(), "{api}");
        }
    }
    target.assert_unharmed();
}
