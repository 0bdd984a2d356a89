//! Whole requests and responses: header and body, without the size in front (`net` adds and removes it).

use bytes::Bytes;

use super::field::Field;
use super::schema::{decode_tagged, encode_tagged};
use super::{ApiKey, Gap, Message, Reader, Request, Version, WireError, Writer};

/// A request or response as bytes, ready for one vectored write. Record batches are chunks of their own, uncopied.
#[derive(Debug, Clone, Default)]
pub struct EncodedFrame {
    /// The bytes, in order, without the size.
    pub chunks: Vec<Bytes>,
    /// Gaps to be filled between them, in order: [`RecordBytes::Later`](super::RecordBytes).
    pub gaps: Vec<Gap>,
}

impl EncodedFrame {
    fn written(writer: Writer) -> Self {
        let (chunks, gaps) = writer.finish();
        Self { chunks, gaps }
    }

    /// Returns the frame's bytes, without its size.
    #[must_use]
    pub fn length_bytes(&self) -> usize {
        let gaps = self.gaps.iter().map(|gap| gap.length_bytes);
        self.chunks.iter().map(Bytes::len).chain(gaps).sum()
    }

    /// The whole frame in one piece: a copy if it has more than one chunk.
    ///
    /// # Panics
    /// If it has gaps: there is no whole frame yet.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        assert!(self.gaps.is_empty(), "a frame with gaps is no frame yet");
        match self.chunks.as_slice() {
            [only] => only.clone(),
            chunks => chunks.concat().into(),
        }
    }
}

/// Header in front of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API's number; perhaps one that we don't know.
    pub api_key: i16,
    /// The version of the API.
    pub version: i16,
    /// Comes back with the response.
    pub correlation_id: i32,
    /// The client's own name.
    pub client_id: Option<String>,
}

/// Texts and lengths of the header are never in the flexible encoding, so that a broker can read them first.
const HEADER: Version = Version {
    number: 1,
    is_flexible: false,
};

impl RequestHeader {
    /// Reads the first ten bytes of a request only: API, version and correlation id.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn peek(frame: &Bytes) -> Result<(i16, i16, i32), WireError> {
        let mut reader = Reader::new(frame.clone());
        Ok((
            i16::decode_field(&mut reader, HEADER)?,
            i16::decode_field(&mut reader, HEADER)?,
            i32::decode_field(&mut reader, HEADER)?,
        ))
    }

    /// Reads a request's header; the reader then stands at its body.
    ///
    /// # Errors
    /// If the bytes are not a header.
    pub fn decode(reader: &mut Reader) -> Result<Self, WireError> {
        let header = Self {
            api_key: i16::decode_field(reader, HEADER)?,
            version: i16::decode_field(reader, HEADER)?,
            correlation_id: i32::decode_field(reader, HEADER)?,
            client_id: Option::decode_field(reader, HEADER)?,
        };
        if header.is_flexible() {
            decode_tagged(reader, |_, _| Ok(()))?;
        }
        Ok(header)
    }

    fn encode(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.api_key.encode_field(writer, HEADER)?;
        self.version.encode_field(writer, HEADER)?;
        self.correlation_id.encode_field(writer, HEADER)?;
        self.client_id.encode_field(writer, HEADER)?;
        if self.is_flexible() {
            encode_tagged(writer, Vec::new());
        }
        Ok(())
    }

    fn is_flexible(&self) -> bool {
        ApiKey::from_key(self.api_key).is_some_and(|api| self.version >= api.flexible_from())
    }
}

/// The version of `api` numbered `version`, if it can be read and written.
fn known(api: ApiKey, version: i16) -> Result<Version, WireError> {
    match api.known().contains(&version) {
        true => Ok(Version::of(api, version)),
        false => Err(WireError::UnsupportedVersion { api, version }),
    }
}

/// Whether the header of a response has tagged fields. That of ApiVersions never has: a client reads it before it
/// knows what the broker speaks.
fn has_tagged_header(api: ApiKey, version: Version) -> bool {
    version.is_flexible && api != ApiKey::ApiVersions
}

/// A request as bytes.
///
/// # Errors
/// If the version is not known, or cannot carry what the request says ([`WireError::Unsendable`]).
pub fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    request: &R,
) -> Result<EncodedFrame, WireError> {
    let known = known(R::API, version)?;
    let header = RequestHeader {
        api_key: R::API.key(),
        version,
        correlation_id,
        client_id: client_id.map(str::to_owned),
    };
    let mut writer = Writer::new();
    header.encode(&mut writer)?;
    request.encode(&mut writer, known)?;
    Ok(EncodedFrame::written(writer))
}

/// A request's body, from a reader that stands behind its header.
///
/// # Errors
/// If the version is not known, or the bytes are not such a request.
pub fn decode_request<R: Request>(mut body: Reader, version: i16) -> Result<R, WireError> {
    R::decode(&mut body, known(R::API, version)?)
}

/// A response to `R` as bytes.
///
/// # Errors
/// If the version is not known, or something is longer than the protocol can say.
pub fn encode_response<R: Request>(
    version: i16,
    correlation_id: i32,
    response: &R::Response,
) -> Result<EncodedFrame, WireError> {
    let known = known(R::API, version)?;
    let mut writer = Writer::new();
    correlation_id.encode_field(&mut writer, HEADER)?;
    if has_tagged_header(R::API, known) {
        encode_tagged(&mut writer, Vec::new());
    }
    response.encode(&mut writer, known)?;
    Ok(EncodedFrame::written(writer))
}

/// The correlation id of a response frame, and the response to `R` in it.
///
/// # Errors
/// If the version is not known, or the bytes are not such a response.
pub fn decode_response<R: Request>(
    version: i16,
    frame: Bytes,
) -> Result<(i32, R::Response), WireError> {
    let known = known(R::API, version)?;
    let mut reader = Reader::new(frame);
    let correlation_id = i32::decode_field(&mut reader, HEADER)?;
    if has_tagged_header(R::API, known) {
        decode_tagged(&mut reader, |_, _| Ok(()))?;
    }
    Ok((correlation_id, R::Response::decode(&mut reader, known)?))
}
