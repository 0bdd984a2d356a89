//! The recorder: a `Deserializer` that notes what it is asked for and answers with samples.

use std::cell::RefCell;
use std::fmt::Display;

use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};

use super::content::{Content, Variant};

/// The most places of a type that are described: a description is to be read by people.
const NODES_MAX: usize = 16 << 10;
/// Types within types, beside those that contain themselves.
const DEPTH_MAX: usize = 64;

/// Samples of text: what types that parse their text often accept.
const TEXTS: [&str; 8] = [
    "",
    "1",
    "a",
    "127.0.0.1",
    "2000-01-01T00:00:00Z",
    "2000-01-01",
    "http://a.b/",
    "00000000-0000-0000-0000-000000000000",
];
/// Samples of bytes, by their length: what identifiers and keys often have.
const BYTES_LENGTHS: [usize; 5] = [0, 16, 32, 4, 8];
/// Samples of numbers. Not 0 first: there are numbers that are never 0.
const NUMBERS: [u8; 4] = [1, 0, 2, 16];
/// Samples of anything else.
const ONLY: usize = 1;

/// A place in a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(usize);

impl NodeId {
    pub(super) const ROOT: Self = Self(0);
}

/// The kinds of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unseen,
    Leaf(&'static str),
    Option,
    Sequence,
    Map,
    /// The name, which is empty for a tuple without one.
    Tuple(&'static str),
    Struct(&'static str, &'static [&'static str]),
    Enum(&'static str, &'static [&'static str]),
    /// A type within itself.
    Again(&'static str),
}

struct Node {
    kind: Kind,
    children: Vec<NodeId>,
    /// Nothing below can be learned any more.
    is_complete: bool,
    /// Of a leaf: which sample is next. Of an enum: the variant, plus one, that is known to end.
    choice: usize,
    /// Of a variant: how often it was tried.
    tries: usize,
}

/// Everything that was seen of a type.
pub(super) struct Shapes(RefCell<Inner>);

struct Inner {
    nodes: Vec<Node>,
    /// The named types that the pass is within, each known by its visitor: that of a generic type differs with its parameters.
    open: Vec<(&'static str, NodeId)>,
    changes: usize,
}

impl Shapes {
    pub(super) fn new() -> Self {
        let mut inner = Inner {
            nodes: Vec::new(),
            open: Vec::new(),
            changes: 0,
        };
        inner.add();
        Self(RefCell::new(inner))
    }

    /// Makes one pass; returns whether a whole value came of it.
    pub(super) fn read_root<T: DeserializeOwned>(&self) -> bool {
        self.0.borrow_mut().open.clear();
        let read = T::deserialize(self.recorder(NodeId::ROOT, false, 0));
        if read.is_err() {
            self.refused(NodeId::ROOT);
        }
        read.is_ok()
    }

    /// Counts what was learned so far: it grows by each pass.
    pub(super) fn changes(&self) -> usize {
        self.0.borrow().changes
    }

    pub(super) fn count(&self) -> usize {
        self.0.borrow().nodes.len()
    }

    pub(super) fn kind(&self, node: NodeId) -> Kind {
        self.0.borrow().nodes[node.0].kind
    }

    pub(super) fn children(&self, node: NodeId) -> Vec<NodeId> {
        self.0.borrow().nodes[node.0].children.clone()
    }

    pub(super) fn is_complete(&self, node: NodeId) -> bool {
        self.0.borrow().nodes[node.0].is_complete
    }

    fn recorder(&self, node: NodeId, is_least: bool, depth: usize) -> Recorder<'_> {
        Recorder {
            shapes: self,
            node,
            is_least,
            depth,
        }
    }

    /// Whoever got a leaf's sample does not want it: the next one is tried in the next pass.
    fn refused(&self, node: NodeId) {
        let mut inner = self.0.borrow_mut();
        let at = &mut inner.nodes[node.0];
        if let Kind::Leaf(name) = at.kind
            && at.choice + 1 < samples_of(name)
        {
            at.choice += 1;
            inner.changes += 1;
        }
    }
}

impl Inner {
    fn add(&mut self) -> NodeId {
        self.nodes.push(Node {
            kind: Kind::Unseen,
            children: Vec::new(),
            is_complete: false,
            choice: 0,
            tries: 0,
        });
        self.changes += 1;
        NodeId(self.nodes.len() - 1)
    }

    fn complete(&mut self, node: NodeId) {
        let is_complete = &mut self.nodes[node.0].is_complete;
        self.changes += usize::from(!std::mem::replace(is_complete, true));
    }

    fn are_children_complete(&self, node: NodeId) -> bool {
        let mut children = self.nodes[node.0].children.iter();
        children.all(|child| self.nodes[child.0].is_complete)
    }
}

fn samples_of(leaf: &str) -> usize {
    match leaf {
        "str" => TEXTS.len(),
        "bytes" => BYTES_LENGTHS.len(),
        "bool" => 2,
        "char" | "()" | "any" | "f32" | "f64" => ONLY,
        _ => NUMBERS.len(),
    }
}

/// Early end of a pass. Nobody reads the words.
#[derive(Debug)]
pub(super) struct Stopped;

impl Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the recorder has no value to give")
    }
}

impl std::error::Error for Stopped {}

impl Error for Stopped {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

/// Answers for one place.
#[derive(Clone, Copy)]
pub(super) struct Recorder<'s> {
    shapes: &'s Shapes,
    node: NodeId,
    /// Within a type that contains itself: give as little as it takes.
    is_least: bool,
    depth: usize,
}

impl<'s> Recorder<'s> {
    /// Notes what is here; a place that is something else each time is not looked into.
    pub(super) fn note(&self, kind: Kind, children_count: usize) -> Result<(), Stopped> {
        let mut inner = self.shapes.0.borrow_mut();
        if self.depth > DEPTH_MAX || inner.nodes.len() + children_count > NODES_MAX {
            return Err(Stopped);
        }
        let known = inner.nodes[self.node.0].kind;
        if known == Kind::Unseen {
            inner.nodes[self.node.0].kind = kind;
            let children = (0..children_count).map(|_| inner.add()).collect();
            inner.nodes[self.node.0].children = children;
            inner.changes += 1;
            return Ok(());
        }
        match known == kind {
            true => Ok(()),
            false => Err(Stopped),
        }
    }

    pub(super) fn leaf(&self, name: &'static str) -> Result<usize, Stopped> {
        self.note(Kind::Leaf(name), 0)?;
        let mut inner = self.shapes.0.borrow_mut();
        inner.complete(self.node);
        Ok(inner.nodes[self.node.0].choice)
    }

    fn number(&self, name: &'static str) -> Result<u8, Stopped> {
        let choice = self.leaf(name)?;
        Ok(NUMBERS[choice.min(NUMBERS.len() - 1)])
    }

    pub(super) fn child(&self, place: usize) -> Result<Self, Stopped> {
        let inner = self.shapes.0.borrow();
        let children = &inner.nodes[self.node.0].children;
        Ok(Self {
            node: *children.get(place).ok_or(Stopped)?,
            depth: self.depth + 1,
            ..*self
        })
    }

    /// Hands the place on and notes if its value is refused.
    pub(super) fn hand<T>(
        &self,
        read: impl FnOnce(Self) -> Result<T, Stopped>,
    ) -> Result<T, Stopped> {
        read(*self).inspect_err(|_| self.shapes.refused(self.node))
    }

    /// Whether what is in an option, a list or a map is wanted: once all is known of it, there is none.
    fn wants_content(&self) -> bool {
        let inner = self.shapes.0.borrow();
        !self.is_least && !inner.are_children_complete(self.node)
    }

    /// All that can be learned here was learned in this pass.
    pub(super) fn end<T>(&self, value: T) -> T {
        let mut inner = self.shapes.0.borrow_mut();
        if inner.are_children_complete(self.node) {
            inner.complete(self.node);
        }
        value
    }

    /// Goes into a named type. Within itself it is the place that is being read already.
    fn enter<'de, V>(
        self,
        kind: Kind,
        name: &'static str,
        children_count: usize,
        read: impl FnOnce(Self) -> Result<V::Value, Stopped>,
    ) -> Result<V::Value, Stopped>
    where
        V: Visitor<'de>,
    {
        let visitor = std::any::type_name::<V>();
        let again = {
            let inner = self.shapes.0.borrow();
            let open = inner.open.iter().find(|open| open.0 == visitor);
            open.map(|open| open.1)
        };
        let here = match again {
            Some(open) => {
                if open != self.node {
                    self.note(Kind::Again(name), 0)?;
                    self.shapes.0.borrow_mut().complete(self.node);
                }
                Self {
                    node: open,
                    is_least: true,
                    ..self
                }
            }
            None => {
                self.note(kind, children_count)?;
                self
            }
        };
        if self.depth > DEPTH_MAX {
            return Err(Stopped);
        }
        self.shapes.0.borrow_mut().open.push((visitor, here.node));
        let value = read(here);
        self.shapes.0.borrow_mut().open.pop();
        Ok(here.end(value?))
    }

    /// The variant to show: the one tried least of those that are not known yet; else one that is known to end.
    fn choose_variant(&self) -> Result<usize, Stopped> {
        let mut inner = self.shapes.0.borrow_mut();
        let node = &inner.nodes[self.node.0];
        let known_to_end = node.choice.checked_sub(1);
        let children = node.children.iter().enumerate();
        let unknown = children
            .filter(|(_, child)| !inner.nodes[child.0].is_complete)
            .min_by_key(|(_, child)| inner.nodes[child.0].tries);
        match (unknown.map(|(place, child)| (place, *child)), self.is_least) {
            (Some((place, child)), false) => {
                inner.nodes[child.0].tries += 1;
                Ok(place)
            }
            _ => known_to_end.ok_or(Stopped),
        }
    }

    fn variant_ended(&self, place: usize) {
        let mut inner = self.shapes.0.borrow_mut();
        let choice = &mut inner.nodes[self.node.0].choice;
        if *choice == 0 {
            *choice = place + 1;
            inner.changes += 1;
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
            visitor.$visit(self.number($name)?.into())
        }
    )*};
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Stopped;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stopped> {
        self.leaf("any")?;
        Err(Stopped)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_bool(self.leaf("bool")? == 1)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        visitor.visit_i8(i8::try_from(self.number("i8")?).unwrap_or(1))
    }

    numbers! {
        deserialize_i16 visit_i16 "i16";
        deserialize_i32 visit_i32 "i32";
        deserialize_i64 visit_i64 "i64";
        deserialize_i128 visit_i128 "i128";
        deserialize_u8 visit_u8 "u8";
        deserialize_u16 visit_u16 "u16";
        deserialize_u32 visit_u32 "u32";
        deserialize_u64 visit_u64 "u64";
        deserialize_u128 visit_u128 "u128";
        deserialize_f32 visit_f32 "f32";
        deserialize_f64 visit_f64 "f64";
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.leaf("char")?;
        visitor.visit_char('a')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        let choice = self.leaf("str")?;
        visitor.visit_borrowed_str(TEXTS[choice.min(TEXTS.len() - 1)])
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        let choice = self.leaf("bytes")?;
        let length = BYTES_LENGTHS[choice.min(BYTES_LENGTHS.len() - 1)];
        visitor.visit_borrowed_bytes(&[1; 32][..length])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note(Kind::Option, 1)?;
        let value = match self.wants_content() {
            true => self.child(0)?.hand(|content| visitor.visit_some(content))?,
            false => visitor.visit_none()?,
        };
        Ok(self.end(value))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.leaf("()")?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.leaf(name)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.enter::<V>(Kind::Tuple(name), name, 1, |here| {
            let content = here.child(0)?;
            content.hand(|content| visitor.visit_newtype_struct(content))
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note(Kind::Sequence, 1)?;
        let count = usize::from(self.wants_content());
        Ok(self.end(visitor.visit_seq(Content::new(self, count))?))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.note(Kind::Tuple(""), len)?;
        Ok(self.end(visitor.visit_seq(Content::new(self, len))?))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        self.enter::<V>(Kind::Tuple(name), name, len, |here| {
            visitor.visit_seq(Content::new(here, len))
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.note(Kind::Map, 2)?;
        let count = 2 * usize::from(self.wants_content());
        Ok(self.end(visitor.visit_map(Content::new(self, count))?))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        let kind = Kind::Struct(name, fields);
        self.enter::<V>(kind, name, fields.len(), |here| {
            visitor.visit_seq(Content::new(here, fields.len()))
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stopped> {
        let kind = Kind::Enum(name, variants);
        self.enter::<V>(kind, name, variants.len(), |here| {
            let place = here.choose_variant()?;
            let variant = here.child(place)?;
            let value = visitor.visit_enum(Variant { place, at: variant })?;
            here.variant_ended(place);
            Ok(value)
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stopped> {
        self.deserialize_unit(visitor)
    }
}
