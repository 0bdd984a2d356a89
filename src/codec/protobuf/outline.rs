//! [`Outline`]: the messages of a `.proto` file and where they stand in it. Nothing else of the file is read.

/// The deepest that messages of a file are looked for, one inside the other.
const DEPTH_MAX: usize = 64;

/// The messages of a file, in its order, each with its place: the number among the file's messages, then among those inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outline(pub(super) Vec<(String, Vec<usize>)>);

/// A block that is open.
struct Block {
    /// The full name and place, if it is a message.
    message: Option<(String, Vec<usize>)>,
    /// The messages seen in it.
    count: usize,
}

impl Outline {
    /// The outline of a file's text. What is no file of Protobuf has some outline or none.
    pub(super) fn of(text: &str) -> Self {
        let tokens = tokens(text);
        let mut found = Vec::new();
        let mut package = String::new();
        let mut open = vec![Block {
            message: Some((String::new(), Vec::new())),
            count: 0,
        }];
        for (number, token) in tokens.iter().enumerate() {
            let before = |back: usize| {
                number
                    .checked_sub(back)
                    .and_then(|it| tokens.get(it))
                    .copied()
            };
            match *token {
                "package" if open.len() == 1 && is_at_start(before(1)) => {
                    package = tokens
                        .get(number + 1)
                        .copied()
                        .unwrap_or_default()
                        .to_owned();
                }
                "{" => {
                    let is_message = before(2) == Some("message") && is_at_start(before(3));
                    let block = match (is_message, before(1)) {
                        (true, Some(name)) => begin_message(&mut open, name, &package),
                        _ => None,
                    };
                    found.extend(block.clone());
                    open.push(Block {
                        message: block,
                        count: 0,
                    });
                }
                "}" if open.len() > 1 => {
                    open.pop();
                }
                _ => {}
            }
        }
        Self(found)
    }

    /// The place of the message with this full name.
    pub(super) fn path_of(&self, message: &str) -> Option<&[usize]> {
        let found = self.0.iter().find(|(name, _)| name == message);
        found.map(|(_, path)| path.as_slice())
    }

    /// The name of the message at the place that `bytes` begin with.
    pub(super) fn named_at(&self, bytes: &[u8]) -> Option<&str> {
        let path = decode_path(bytes)?;
        let found = self.0.iter().find(|(_, place)| *place == path);
        found.map(|(name, _)| name.as_str())
    }

    /// All names, for an error.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    }
}

/// Whether a statement begins behind this token.
fn is_at_start(token: Option<&str>) -> bool {
    matches!(token, None | Some(";" | "{" | "}"))
}

/// A message begins within the innermost block; `None` if that is no place for one.
fn begin_message(open: &mut [Block], name: &str, package: &str) -> Option<(String, Vec<usize>)> {
    let is_too_deep = open.len() > DEPTH_MAX;
    let outer = open.last_mut()?;
    let (outer_name, outer_path) = outer.message.as_ref()?;
    let prefix = match outer_path.is_empty() {
        true => package,
        false => outer_name,
    };
    let full = match prefix.is_empty() {
        true => name.to_owned(),
        false => format!("{prefix}.{name}"),
    };
    let mut path = outer_path.clone();
    path.push(outer.count);
    outer.count += 1;
    (!is_too_deep).then_some((full, path))
}

/// The words and signs of a file, without comments. A text in quotes is one token.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            '"' | '\'' => quoted_length(rest, first),
            c if is_of_word(c) => rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        let is_comment = token.starts_with("//") || token.starts_with("/*");
        if !is_comment && !first.is_whitespace() {
            found.push(token);
        }
        rest = behind;
    }
    found
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// The bytes of a text in quotes, with them.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (place, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return place + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// A place as it stands in front of a value.
pub(super) fn encode_path(path: &[usize]) -> Vec<u8> {
    if path == [0] {
        return vec![0];
    }
    let mut out = Vec::new();
    for number in std::iter::once(&path.len()).chain(path) {
        // Zigzag: twice the number, which is never negative.
        prost::encoding::encode_varint(
            u64::try_from(*number).unwrap_or(u64::MAX >> 1) << 1,
            &mut out,
        );
    }
    out
}

/// The place that `bytes` begin with.
fn decode_path(mut bytes: &[u8]) -> Option<Vec<usize>> {
    let mut number = || {
        let number = prost::encoding::decode_varint(&mut bytes).ok()?;
        (number % 2 == 0).then_some(usize::try_from(number / 2).ok()?)
    };
    match number()? {
        0 => Some(vec![0]),
        count if count <= DEPTH_MAX => (0..count).map(|_| number()).collect(),
        _ => None,
    }
}
