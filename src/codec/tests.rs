//! Golden bytes and round trips of the codecs.

use std::fmt::Debug;

use super::*;

fn bytes_of<T: ?Sized + ToOwned>(codec: &impl Codec<T>, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes).unwrap();
    bytes
}

fn round_trip<T: Clone + PartialEq + Debug>(codec: &impl Codec<T>, value: T) {
    let bytes = bytes_of(codec, &value);
    assert_eq!(codec.decode(&bytes).unwrap().into_owned(), value);
}

#[test]
fn golden_bytes_of_every_codec() {
    assert_eq!(bytes_of(&Bincode, &300u64), [251, 44, 1]);
    assert_eq!(bytes_of(&Postcard, &300u64), [0xac, 2]);
    assert_eq!(bytes_of(&Json, &300u64), b"300");
    assert_eq!(bytes_of::<u64>(&Text, &300u64), b"300");
    assert_eq!(bytes_of::<str>(&Text, "tea"), b"tea");
    assert_eq!(bytes_of::<[u8]>(&Raw, b"tea"), b"tea");
}

#[test]
fn values_survive_the_round_trip() {
    let value = (String::from("käse"), Some(-7i64), vec![1.5f64]);
    round_trip(&Bincode, value.clone());
    round_trip(&Postcard, value.clone());
    round_trip(&Json, value);
    round_trip::<i64>(&Text, i64::MIN);
    round_trip::<Vec<u8>>(&Raw, vec![0, 255]);
}

#[test]
fn left_over_bytes_and_invalid_utf_8_are_refused() {
    assert!(Codec::<u8>::decode(&Bincode, &[1, 2]).is_err());
    assert!(Codec::<u8>::decode(&Postcard, &[1, 2]).is_err());
    assert!(Codec::<u8>::decode(&Json, b"1 2").is_err());
    assert!(Codec::<str>::decode(&Text, &[0xff]).is_err());
    assert!(Codec::<u64>::decode(&Text, b"x").is_err());
}
