//! Rules of SASL for user names and passwords (RFC 4013, the part that needs no Unicode tables).
//!
//! Printable ASCII passes unchanged, which is what the full rules do with it. Other characters pass as they are, without
//! the normalisation that the full rules ask for, unless they are forbidden; so a name or password written in another
//! normal form than the one stored is refused as wrong, never taken for another.

use super::error::SaslError;

/// The longest user name or password, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

/// Checks `text`, which is called `what` in the error.
pub(super) fn prepare(text: &str, what: &'static str) -> Result<(), SaslError> {
    let refuse = |why: String| Err(SaslError::Prohibited { what, why });
    if text.is_empty() {
        return refuse("it is empty".to_owned());
    }
    if text.len() > TEXT_BYTES_MAX {
        return refuse(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
    }
    match text.chars().find(|c| is_prohibited(*c)) {
        Some(c) => refuse(format!("U+{:04X}", u32::from(c))),
        None => Ok(()),
    }
}

/// RFC 4013 §2.3: controls, private use, surrogates and non-characters, what is inappropriate for plain text or
/// changes the direction of text, tags; and §2.1, §2.2: other spaces, and what would be mapped to nothing.
fn is_prohibited(c: char) -> bool {
    let is_space = c.is_whitespace() && c != ' ';
    let ignored = matches!(c, '\u{AD}' | '\u{34F}' | '\u{1806}' | '\u{180B}'..='\u{180D}'
        | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}');
    let inappropriate =
        matches!(c, '\u{340}' | '\u{341}' | '\u{2FF0}'..='\u{2FFB}' | '\u{FFF9}'..='\u{FFFD}');
    let private = matches!(c, '\u{E000}'..='\u{F8FF}' | '\u{E0000}'..='\u{E007F}' | '\u{F0000}'..);
    let non_character = u32::from(c) & 0xFFFE == 0xFFFE || matches!(c, '\u{FDD0}'..='\u{FDEF}');
    c.is_control() || is_space || ignored || inappropriate || private || non_character
}

/// Checks a user's name before it is stored.
///
/// # Errors
/// [`SaslError::Prohibited`].
pub fn check_user_name(name: &str) -> Result<(), SaslError> {
    prepare(name, "user name")
}
