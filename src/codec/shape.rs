//! The shape of a serde type, found without a derive of our own: the type deserializes itself from a recorder.
//!
//! serde's `Deserialize` says what it expects: "a struct `Account` with the fields `id` and `balance`", then for each field "a
//! `u64`". The recorder notes the question and answers with a sample. One pass sees one variant of each enum, so passes are made until nothing
//! new is seen. A type that contains itself is answered the second time with as little as it takes: `None`, no elements, a variant that ends.
//!
//! It does not see past a function that refuses all samples (a validated text, say): what stands behind it in the same struct
//! is `?`. Nor does it see what a value means. Files in reading order: this one, `shape/recorder.rs`, `shape/content.rs`.

mod content;
mod recorder;

use serde::de::DeserializeOwned;

use recorder::{Kind, NodeId, Shapes};

/// Passes over one type, at most: a type with more variants is described as far as they were seen.
const PASSES_MAX: usize = 4096;
/// Passes that see nothing new, beside one a node, before the rest is taken to be out of sight.
const IDLE_PASSES_MAX: usize = 32;
/// A longer description ends in a hash of all of it.
const TEXT_BYTES_MAX: usize = 8 << 10;

/// Describes the shape of `T`, always in the same words: `Account{id:u64,balance:i64}`.
pub(super) fn shape_of<T: DeserializeOwned>() -> String {
    let shapes = Shapes::new();
    let mut idle_passes = 0;
    for _ in 0..PASSES_MAX {
        let before = shapes.changes();
        let is_read = shapes.read_root::<T>();
        if is_read && shapes.is_complete(NodeId::ROOT) {
            break;
        }
        idle_passes = if shapes.changes() == before {
            idle_passes + 1
        } else {
            0
        };
        if idle_passes > IDLE_PASSES_MAX + shapes.count() {
            break;
        }
    }
    let mut text = String::new();
    describe(&shapes, NodeId::ROOT, &mut text);
    shortened(text)
}

/// A text of bounded length that differs where the whole differs.
fn shortened(text: String) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let hash = rapidhash::v3::rapidhash_v3(text.as_bytes());
    let kept = text.floor_char_boundary(TEXT_BYTES_MAX);
    format!("{}…#{hash:016x}", &text[..kept])
}

fn describe(shapes: &Shapes, node: NodeId, out: &mut String) {
    let children = shapes.children(node);
    let list = |open: &str, names: &[&str], close: &str, out: &mut String| {
        out.push_str(open);
        for (place, child) in children.iter().enumerate() {
            if place > 0 {
                out.push(',');
            }
            if let Some(name) = names.get(place) {
                out.push_str(name);
                out.push(':');
            }
            describe(shapes, *child, out);
        }
        out.push_str(close);
    };
    match shapes.kind(node) {
        Kind::Unseen => out.push('?'),
        Kind::Leaf(name) => out.push_str(name),
        Kind::Option => list("Option<", &[], ">", out),
        Kind::Sequence => list("[", &[], "]", out),
        Kind::Map => {
            for (child, before) in children.iter().zip(["{", ":"]) {
                out.push_str(before);
                describe(shapes, *child, out);
            }
            out.push('}');
        }
        Kind::Tuple(name) => {
            out.push_str(name);
            list("(", &[], ")", out);
        }
        Kind::Struct(name, fields) => {
            out.push_str(name);
            list("{", fields, "}", out);
        }
        Kind::Enum(name, variants) => {
            out.push_str(name);
            describe_variants(shapes, &children, variants, out);
        }
        Kind::Again(name) => {
            out.push('@');
            out.push_str(name);
        }
    }
}

fn describe_variants(shapes: &Shapes, children: &[NodeId], variants: &[&str], out: &mut String) {
    out.push('[');
    for (place, (child, variant)) in children.iter().zip(variants).enumerate() {
        if place > 0 {
            out.push('|');
        }
        out.push_str(variant);
        if !matches!(shapes.kind(*child), Kind::Leaf("()")) {
            describe(shapes, *child, out);
        }
    }
    out.push(']');
}

#[cfg(test)]
mod tests;
