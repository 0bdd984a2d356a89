//! Golden bytes, and the rules that a foreign codec would not check.

use bytes::Bytes;

use crate::protocol::wire::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey,
};
use crate::protocol::wire::messages::fetch::{
    FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use crate::protocol::wire::messages::join_group::JoinGroupRequest;
use crate::protocol::wire::messages::metadata::MetadataRequest;
use crate::protocol::wire::messages::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use crate::protocol::wire::{
    ApiKey, Reader, RecordBytes, RequestHeader, WireError, decode_request, decode_response,
    encode_request, encode_response, version_table,
};

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_request_of_a_plain_version_has_the_golden_bytes() {
    let request = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let frame = encode_request(1, 7, Some("of"), &request).unwrap();
    // key 3, version 1, correlation id 7, "of", null array.
    assert_eq!(
        hex(&frame.to_bytes()),
        "0003000100000007".to_owned() + "00026f66" + "ffffffff"
    );
    // Version 0 has no null: empty means all topics there.
    let frame = encode_request(0, 7, None, &request).unwrap();
    assert_eq!(
        hex(&frame.to_bytes()),
        "0003000000000007".to_owned() + "ffff" + "00000000"
    );
}

#[test]
fn a_request_of_a_flexible_version_has_the_golden_bytes() {
    let request = ApiVersionsRequest {
        client_software_name: "of".to_owned(),
        client_software_version: "1".to_owned(),
    };
    let frame = encode_request(3, 1, Some("c"), &request).unwrap();
    // The client id keeps the plain encoding; header tags, two compact texts, body tags.
    let golden = "0012000300000001".to_owned() + "000163" + "00" + "036f66" + "0231" + "00";
    assert_eq!(hex(&frame.to_bytes()), golden);
    let mut reader = Reader::new(frame.to_bytes());
    let header = RequestHeader::decode(&mut reader).unwrap();
    assert_eq!(header.client_id.as_deref(), Some("c"));
    let read: ApiVersionsRequest = decode_request(reader, 3).unwrap();
    assert_eq!(read, request);
    assert_eq!(RequestHeader::peek(&frame.to_bytes()).unwrap(), (18, 3, 1));
}

#[test]
fn the_response_to_api_versions_has_no_tags_in_its_header_and_ascending_tags_in_its_body() {
    let response = ApiVersionsResponse {
        api_keys: vec![ApiVersion {
            api_key: 18,
            min_version: 0,
            max_version: 4,
        }],
        finalized_features_epoch: 5,
        finalized_features: vec![FinalizedFeatureKey {
            name: "f".to_owned(),
            max_version_level: 2,
            min_version_level: 1,
        }],
        ..ApiVersionsResponse::default()
    };
    let frame = encode_response::<ApiVersionsRequest>(3, 9, &response).unwrap();
    let golden = [
        "00000009", // correlation id; no header tags
        "0000",     // no error
        "02001200000004",
        "00",       // one API, its tags
        "00000000", // throttle time
        "02",       // two tagged fields
        "01",
        "08",
        "0000000000000005", // tag 1: the features' epoch
        "02",
        "08",
        "02",
        "0266",
        "0002",
        "0001",
        "00", // tag 2: one feature
    ];
    assert_eq!(hex(&frame.to_bytes()), golden.concat());
    let (correlation_id, read) =
        decode_response::<ApiVersionsRequest>(3, frame.to_bytes()).unwrap();
    assert_eq!((correlation_id, read), (9, response));
}

#[test]
fn records_are_neither_copied_when_read_nor_when_written() {
    let records = Bytes::from(vec![7u8; 5000]);
    let request = ProduceRequest {
        topic_data: vec![TopicProduceData {
            name: "t".to_owned(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records.clone()),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let frame = encode_request(9, 1, None, &request).unwrap();
    let is_shared = |chunk: &Bytes| chunk.as_ptr() == records.as_ptr();
    assert!(
        frame.chunks.iter().any(is_shared),
        "the records were copied into the frame"
    );

    let whole = frame.to_bytes();
    let mut reader = Reader::new(whole.clone());
    RequestHeader::decode(&mut reader).unwrap();
    let read: ProduceRequest = decode_request(reader, 9).unwrap();
    let read = read.topic_data[0].partition_data[0]
        .records
        .clone()
        .unwrap();
    assert!(
        whole.as_ptr_range().contains(&read.as_ptr()),
        "the records were copied out of the frame"
    );
    assert_eq!(read, records);
}

#[test]
fn a_gap_stands_where_the_records_would() {
    let response = |first: RecordBytes, second: RecordBytes| {
        let partition = |partition_index, records| PartitionData {
            partition_index,
            records,
            ..PartitionData::default()
        };
        FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic: "t".to_owned(),
                partitions: vec![partition(0, first), partition(1, second)],
                ..FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        }
    };
    for version in [4, 11, 12, 16] {
        for (first, second) in [(0, 5_000), (3, 70_000), (5_000, 1), (1, 0)] {
            let here = |length: usize| RecordBytes::Here(vec![7; length].into());
            let whole = response(here(first), here(second));
            let whole = encode_response::<FetchRequest>(version, 1, &whole).unwrap();
            let gapped = response(RecordBytes::Later(first), RecordBytes::Later(second));
            let gapped = encode_response::<FetchRequest>(version, 1, &gapped).unwrap();
            assert_eq!(gapped.length_bytes(), whole.length_bytes());
            let mut filled = Vec::new();
            let mut gaps = gapped.gaps.iter().peekable();
            for index in 0..=gapped.chunks.len() {
                while let Some(gap) = gaps.next_if(|gap| gap.before_chunk == index) {
                    filled.extend(vec![7; gap.length_bytes]);
                }
                filled.extend(gapped.chunks.get(index).into_iter().flatten());
            }
            assert_eq!(filled, whole.to_bytes(), "version {version}");
        }
    }
}

#[test]
fn records_of_a_fetch_are_never_null() {
    // Trap 11: librdkafka takes a null for a damaged response.
    for version in [4, 11, 12, 16] {
        let response = FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic: "t".to_owned(),
                partitions: vec![PartitionData::default()],
                ..FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        };
        let frame = encode_response::<FetchRequest>(version, 1, &response).unwrap();
        let mut input = frame.to_bytes().slice(if version < 12 { 4 } else { 5 }..);
        let theirs = <kafka_protocol::messages::FetchResponse as kafka_protocol::protocol::Decodable>::decode(&mut input, version).unwrap();
        let records = theirs.responses[0].partitions[0].records.clone();
        assert_eq!(records, Some(Bytes::new()), "version {version}");
    }
}

#[test]
fn a_request_that_a_version_cannot_say_is_refused_and_not_weakened() {
    let request = JoinGroupRequest {
        group_id: "g".to_owned(),
        group_instance_id: Some("i".to_owned()),
        ..JoinGroupRequest::default()
    };
    let refused = encode_request(4, 1, None, &request).unwrap_err();
    let expected = WireError::Unsendable {
        field: "group_instance_id",
        version: 4,
    };
    assert_eq!(refused, expected);
    assert!(encode_request(5, 1, None, &request).is_ok());
}

#[test]
fn versions_outside_the_table_are_refused() {
    for version in [-1, 14, i16::MAX] {
        let error = encode_request(version, 1, None, &MetadataRequest::default()).unwrap_err();
        assert!(
            matches!(error, WireError::UnsupportedVersion { .. }),
            "{error}"
        );
    }
}

#[test]
fn what_is_served_and_spoken_is_known() {
    for api in ApiKey::ALL {
        let (known, served, spoken) = (api.known(), api.served(), api.spoken());
        assert!(
            known.contains(spoken.start()) && known.contains(spoken.end()),
            "{api}"
        );
        // Produce is offered from version 0, and refused below 3.
        let is_produce = *api == ApiKey::Produce;
        assert!(known.contains(served.start()) || is_produce, "{api}");
        assert!(known.contains(served.end()), "{api}");
        assert_eq!(ApiKey::from_key(api.key()), Some(*api));
    }
    assert_eq!(ApiKey::Produce.choose(0, 11), Some(11));
    assert_eq!(ApiKey::Produce.choose(0, 2), None);
    assert_eq!(ApiKey::Metadata.choose(14, 15), None);
}

#[test]
fn the_documented_versions_are_those_of_the_code() {
    let documented = include_str!("../../../../docs/protocol.md");
    assert!(
        documented.contains(&version_table()),
        "docs/protocol.md must hold this table:\n{}",
        version_table()
    );
}
