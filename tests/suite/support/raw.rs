//! Requests as they are on the wire, without the client: what it would never send can be sent so.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use onceflow::internals::protocol::wire::{Request, decode_response, encode_request};

/// Longest time of a broker.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads a frame without its length.
pub(crate) fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut frame = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// Writes a frame with its length.
pub(crate) fn write_frame(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let size = u32::try_from(frame.len()).unwrap();
    stream.write_all(&[&size.to_be_bytes()[..], frame].concat())
}

/// The bytes of a request.
pub(crate) fn frame<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let frame = encode_request(version, 1, Some("raw"), request).unwrap();
    frame.to_bytes().to_vec()
}

/// Sends bytes on a connection of their own and gives the answer's.
pub(crate) fn exchange(address: &str, frame: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write_frame(&mut stream, frame)?;
    read_frame(&mut stream)
}

/// Asks on a connection of its own.
pub(crate) fn ask<R: Request>(address: &str, version: i16, request: &R) -> io::Result<R::Response> {
    let answer = exchange(address, &frame(version, request))?;
    Ok(answer_of::<R>(version, answer))
}

/// Decodes an answer's bytes.
pub(crate) fn answer_of<R: Request>(version: i16, answer: Vec<u8>) -> R::Response {
    decode_response::<R>(version, Bytes::from(answer))
        .unwrap()
        .1
}
