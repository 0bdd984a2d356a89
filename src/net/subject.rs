//! The subject of an X.509 certificate as text, for the principal of a client that logs in by certificate.
//!
//! Written as RFC 2253 does and Kafka shows it: last attribute first, `CN=alice,OU=jobs,O=example`. Read from a certificate
//! whose signature was verified before; what cannot be read is no subject.

/// The DER tags that are met on the way.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const EXPLICIT_VERSION: u8 = 0xA0;
/// `UTF8String`, `PrintableString`, `IA5String`.
const TEXTS: [u8; 3] = [0x0C, 0x13, 0x16];
/// More attributes than a person can have.
const ATTRIBUTES_MAX: usize = 32;

/// Attributes with a name, by their object id (RFC 2253 §2.3).
const NAMES: [(&[u8], &str); 7] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 9], "STREET"),
];

/// The subject of the certificate `der`; `None` if it is empty or has an attribute that has no text form here.
pub(super) fn of_certificate(der: &[u8]) -> Option<String> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, after)) = element(rest, EXPLICIT_VERSION) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer, validity: then the subject.
    for _ in 0..4 {
        rest = any_element(rest)?.2;
    }
    let (mut names, _) = element(rest, SEQUENCE)?;
    let mut attributes = Vec::new();
    while !names.is_empty() {
        let (set, after) = element(names, SET)?;
        attributes.push(attribute(set)?);
        if attributes.len() > ATTRIBUTES_MAX {
            return None;
        }
        names = after;
    }
    attributes.reverse();
    let subject = attributes.join(",");
    (!subject.is_empty()).then_some(subject)
}

fn attribute(set: &[u8]) -> Option<String> {
    let (pair, after) = element(set, SEQUENCE)?;
    let (id, value) = element(pair, OBJECT_ID)?;
    let (tag, text, _) = any_element(value)?;
    if !TEXTS.contains(&tag) || !after.is_empty() {
        return None;
    }
    let (_, name) = NAMES.iter().find(|(known, _)| *known == id)?;
    Some(format!(
        "{name}={}",
        escaped(std::str::from_utf8(text).ok()?)
    ))
}

/// RFC 2253 §2.4: so that no value can look like another attribute.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        let is_edge = at == 0 || at + c.len_utf8() == value.len();
        if ",+\"\\<>;=".contains(c) || (is_edge && c == ' ') || (at == 0 && c == '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The contents of the first element, which must have `tag`, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, contents, after) = any_element(bytes)?;
    (found == tag).then_some((contents, after))
}

/// The first element's tag and contents, and what follows it.
fn any_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7F => (usize::from(short), rest),
        // One to three bytes of length: certificates are smaller than 16 MiB.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short - 0x80))?;
            let length = digits.iter().fold(0, |l, d| l << 8 | usize::from(*d));
            (length, rest)
        }
        _ => return None,
    };
    let (contents, after) = rest.split_at_checked(length)?;
    Some((tag, contents, after))
}
