//! [`Plan`]: the way from bytes of a writer's schema to bytes of a reader's, by the rules of Avro's "Schema Resolution".
//!
//! A pair of schemas becomes a plan once; records are then carried over by `transcode.rs` without looking at a schema. What the two schemas
//! cannot agree on is an error here, with the path to it; what depends on the record (a branch of a union, a symbol) is one there.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{
    EnumSchema, FixedSchema, InnerDecimalSchema, Name, NamesRef, RecordSchema, ResolvedSchema,
    UuidSchema,
};

use super::defaults::encode_default;

/// The number of a node of a plan.
pub(super) type NodeId = usize;

/// One step of a plan: how a value of the writer's type becomes one of the reader's.
#[derive(Debug)]
pub(super) enum Node {
    /// It is reached again by a type that has itself as a part, and is not finished yet.
    Unfinished,
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    /// A number that the reader has as a wider one.
    Widened(Number, Number),
    /// The reader's number of each symbol of the writer; `Err` has the symbol that the reader does not know.
    Enum(Vec<Result<i64, String>>),
    Array(NodeId),
    Map(NodeId),
    /// The writer has a union: one node for each branch, or why the reader has no value for it.
    FromUnion(Vec<Result<NodeId, String>>),
    /// The reader has a union, and the value is of this branch.
    IntoUnion(i64, NodeId),
    Record(RecordPlan),
}

/// A number on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Int,
    Long,
    Float,
    Double,
}

/// A record: the writer's fields in its order, and then the reader's in the order of the reader.
#[derive(Debug)]
pub(super) struct RecordPlan {
    /// Of each field of the writer: its node, and whether the reader has it.
    pub(super) written: Vec<(NodeId, bool)>,
    /// Of each field of the reader: where it comes from.
    pub(super) read: Vec<Origin>,
    /// Whether the reader has its fields in the order of the writer, so that each may go where it belongs at once.
    pub(super) is_in_order: bool,
}

/// The origin of a field of the reader.
#[derive(Debug)]
pub(super) enum Origin {
    /// The field of the writer with this number.
    Written(usize),
    /// The writer has none: the default, as bytes.
    Default(Vec<u8>),
}

/// The way from one schema to another.
#[derive(Debug)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    root: NodeId,
    /// Whether the bytes stay what they are, and need only be checked.
    pub(super) is_identity: bool,
}

impl Plan {
    /// The plan of a pair of schemas.
    ///
    /// # Errors
    /// Says where the reader has no value for what the writer writes.
    pub(super) fn new(writer: &Schema, reader: &Schema) -> Result<Self, String> {
        let names = |schema| ResolvedSchema::new(schema).map_err(|e| e.to_string());
        let (of_writer, of_reader) = (names(writer)?, names(reader)?);
        let mut planner = Planner {
            writer: of_writer.get_names(),
            reader: of_reader.get_names(),
            nodes: Vec::new(),
            known: HashMap::new(),
            is_identity: true,
        };
        let root = planner.node(writer, reader, "the value")?;
        Ok(Self {
            nodes: planner.nodes,
            root,
            is_identity: planner.is_identity,
        })
    }

    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }
}

struct Planner<'s> {
    writer: &'s NamesRef<'s>,
    reader: &'s NamesRef<'s>,
    nodes: Vec<Node>,
    /// The nodes of pairs of records, which may have themselves as parts.
    known: HashMap<(String, String), NodeId>,
    is_identity: bool,
}

/// The schema that a reference stands for.
pub(super) fn deref<'s>(schema: &'s Schema, names: &NamesRef<'s>) -> Result<&'s Schema, String> {
    match schema {
        Schema::Ref { name } => {
            let found = names.get(name).copied();
            found.ok_or_else(|| format!("the schema names {name}, and does not say what it is"))
        }
        schema => Ok(schema),
    }
}

/// A schema without its logical type: the primitive or named type whose bytes it has.
fn physical(schema: &Schema) -> Physical<'_> {
    match schema {
        Schema::Int | Schema::Date | Schema::TimeMillis => Physical::Plain("int"),
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Physical::Plain("long"),
        Schema::Null => Physical::Plain("null"),
        Schema::Boolean => Physical::Plain("boolean"),
        Schema::Float => Physical::Plain("float"),
        Schema::Double => Physical::Plain("double"),
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => {
            Physical::Plain("bytes")
        }
        Schema::String | Schema::Uuid(UuidSchema::String) => Physical::Plain("string"),
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => Physical::Plain("bytes"),
            InnerDecimalSchema::Fixed(fixed) => Physical::Fixed(fixed),
        },
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Physical::Fixed(fixed)
        }
        Schema::Enum(symbols) => Physical::Enum(symbols),
        Schema::Record(record) => Physical::Record(record),
        Schema::Array(array) => Physical::Array(&array.items),
        Schema::Map(map) => Physical::Map(&map.types),
        Schema::Union(_) | Schema::Ref { .. } => Physical::Other,
    }
}

enum Physical<'s> {
    Plain(&'static str),
    Fixed(&'s FixedSchema),
    Enum(&'s EnumSchema),
    Record(&'s RecordSchema),
    Array(&'s Schema),
    Map(&'s Schema),
    Other,
}

/// The meaning that a schema gives to its bytes beyond their type; `None` if it gives none.
fn meaning(schema: &Schema) -> Option<String> {
    Some(match schema {
        Schema::Decimal(it) => format!("decimal({}, {})", it.precision, it.scale),
        Schema::BigDecimal => "big-decimal".to_owned(),
        Schema::Uuid(_) => "uuid".to_owned(),
        Schema::Date => "date".to_owned(),
        Schema::TimeMillis => "time-millis".to_owned(),
        Schema::TimeMicros => "time-micros".to_owned(),
        Schema::TimestampMillis => "timestamp-millis".to_owned(),
        Schema::TimestampMicros => "timestamp-micros".to_owned(),
        Schema::TimestampNanos => "timestamp-nanos".to_owned(),
        Schema::LocalTimestampMillis => "local-timestamp-millis".to_owned(),
        Schema::LocalTimestampMicros => "local-timestamp-micros".to_owned(),
        Schema::LocalTimestampNanos => "local-timestamp-nanos".to_owned(),
        Schema::Duration(_) => "duration".to_owned(),
        _ => return None,
    })
}

/// A schema in a few words, for errors.
pub(super) fn in_words(schema: &Schema) -> String {
    let words = match physical(schema) {
        Physical::Plain(name) => name.to_owned(),
        Physical::Fixed(fixed) => format!("fixed {} of {} bytes", fixed.name, fixed.size),
        Physical::Enum(symbols) => format!("enum {}", symbols.name),
        Physical::Record(record) => format!("record {}", record.name),
        Physical::Array(_) => "array".to_owned(),
        Physical::Map(_) => "map".to_owned(),
        Physical::Other => match schema {
            Schema::Union(union) => {
                let branches: Vec<String> = union.variants().iter().map(in_words).collect();
                format!("union [{}]", branches.join(", "))
            }
            Schema::Ref { name } => name.to_string(),
            _ => String::new(),
        },
    };
    match meaning(schema) {
        Some(meaning) => format!("{meaning} ({words})"),
        None => words,
    }
}

/// Whether the reader's named type is the writer's: by its name without the namespace, as the specification has it, or by an alias.
fn is_named_so(
    reader: &Name,
    aliases: Option<&Vec<apache_avro::schema::Alias>>,
    writer: &Name,
) -> bool {
    let by_alias = |alias: &apache_avro::schema::Alias| {
        alias.fullname(None) == writer.fullname(None)
            || (alias.namespace().is_none() && alias.name() == writer.name())
    };
    reader.name() == writer.name() || aliases.into_iter().flatten().any(by_alias)
}

impl<'s> Planner<'s> {
    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn node(&mut self, writer: &'s Schema, reader: &'s Schema, at: &str) -> Result<NodeId, String> {
        let writer = deref(writer, self.writer)?;
        let reader = deref(reader, self.reader)?;
        match (writer, reader) {
            (Schema::Union(union), _) => self.branches_of_writer(union.variants(), reader, at),
            (_, Schema::Union(union)) => {
                self.is_identity = false;
                self.branch_of_reader(writer, union.variants(), at)
            }
            _ => self.value(writer, reader, at),
        }
    }

    /// The writer has a union: each of its branches is taken to the reader. One must have a way; for the others a record says so.
    fn branches_of_writer(
        &mut self,
        branches: &'s [Schema],
        reader: &'s Schema,
        at: &str,
    ) -> Result<NodeId, String> {
        let mut nodes = Vec::new();
        for (number, branch) in branches.iter().enumerate() {
            let node = match reader {
                Schema::Union(union) => {
                    let branch = deref(branch, self.writer)?;
                    self.branch_of_reader(branch, union.variants(), at)
                }
                _ => self.node(branch, reader, at),
            };
            let stays = matches!(&node, Ok(node) if matches!(
                self.nodes[*node],
                Node::IntoUnion(place, _) if i64::try_from(number) == Ok(place)
            ));
            self.is_identity &= stays;
            nodes.push(node);
        }
        if let (false, Some(Err(why))) = (nodes.iter().any(Result::is_ok), nodes.first()) {
            return Err(why.clone());
        }
        Ok(self.push(Node::FromUnion(nodes)))
    }

    /// The reader has a union: its first branch of the writer's own type, or else the first that has a value for it.
    fn branch_of_reader(
        &mut self,
        writer: &'s Schema,
        branches: &'s [Schema],
        at: &str,
    ) -> Result<NodeId, String> {
        let before = (self.nodes.len(), self.is_identity);
        for is_exact in [true, false] {
            for (number, branch) in branches.iter().enumerate() {
                let branch = deref(branch, self.reader)?;
                if is_exact && !is_same_type(writer, branch) {
                    continue;
                }
                if let Ok(node) = self.value(writer, branch, at) {
                    let number = i64::try_from(number).unwrap_or(i64::MAX);
                    return Ok(self.push(Node::IntoUnion(number, node)));
                }
                self.nodes.truncate(before.0);
                self.known.retain(|_, node| *node < before.0);
                self.is_identity = before.1;
            }
        }
        let reader: Vec<String> = branches.iter().map(in_words).collect();
        Err(format!(
            "{at}: the writer has {}, and none of the reader's branches ({}) takes it",
            in_words(writer),
            reader.join(", ")
        ))
    }

    /// Neither is a union.
    fn value(
        &mut self,
        writer: &'s Schema,
        reader: &'s Schema,
        at: &str,
    ) -> Result<NodeId, String> {
        let refuse = || {
            format!(
                "{at}: the writer has {}, the reader {}",
                in_words(writer),
                in_words(reader)
            )
        };
        // A time in milliseconds that is read as microseconds, or cents as whole units, would be a wrong value in silence.
        if let (Some(written), Some(read)) = (meaning(writer), meaning(reader))
            && written != read
        {
            return Err(refuse());
        }
        match (physical(writer), physical(reader)) {
            (Physical::Plain(written), Physical::Plain(read)) => {
                let node = plain(written, read).ok_or_else(refuse)?;
                // The bytes of an int are those of the same long, and text is bytes.
                self.is_identity &= !matches!(node, Node::Widened(..));
                Ok(self.push(node))
            }
            (Physical::Fixed(written), Physical::Fixed(read)) => {
                let is_named = is_named_so(&read.name, read.aliases.as_ref(), &written.name);
                match is_named && read.size == written.size {
                    true => Ok(self.push(Node::Fixed(read.size))),
                    false => Err(refuse()),
                }
            }
            (Physical::Enum(written), Physical::Enum(read)) => {
                match is_named_so(&read.name, read.aliases.as_ref(), &written.name) {
                    true => Ok(self.symbols(written, read)),
                    false => Err(refuse()),
                }
            }
            (Physical::Array(written), Physical::Array(read)) => {
                let items = self.node(written, read, &format!("an item of {at}"))?;
                Ok(self.push(Node::Array(items)))
            }
            (Physical::Map(written), Physical::Map(read)) => {
                let values = self.node(written, read, &format!("a value of {at}"))?;
                Ok(self.push(Node::Map(values)))
            }
            (Physical::Record(written), Physical::Record(read)) => {
                match is_named_so(&read.name, read.aliases.as_ref(), &written.name) {
                    true => self.record(written, read),
                    false => Err(refuse()),
                }
            }
            _ => Err(refuse()),
        }
    }

    fn symbols(&mut self, written: &EnumSchema, read: &EnumSchema) -> NodeId {
        let place = |symbol: &String| {
            let place = read.symbols.iter().position(|it| it == symbol);
            place.and_then(|place| i64::try_from(place).ok())
        };
        let instead = read.default.as_ref().and_then(place);
        let symbols = written.symbols.iter();
        let symbols = symbols.map(|symbol| place(symbol).or(instead).ok_or(symbol.clone()));
        let symbols: Vec<Result<i64, String>> = symbols.collect();
        let stays = |(number, symbol): (usize, &Result<i64, String>)| matches!(symbol, Ok(place) if i64::try_from(number) == Ok(*place));
        self.is_identity &= symbols.iter().enumerate().all(stays);
        self.push(Node::Enum(symbols))
    }

    fn record(
        &mut self,
        written: &'s RecordSchema,
        read: &'s RecordSchema,
    ) -> Result<NodeId, String> {
        let key = (written.name.fullname(None), read.name.fullname(None));
        if let Some(node) = self.known.get(&key) {
            return Ok(*node);
        }
        let id = self.push(Node::Unfinished);
        self.known.insert(key, id);
        let mut sources: Vec<Option<usize>> = Vec::new();
        for field in &read.fields {
            let named = |name: &String| written.fields.iter().position(|it| it.name == *name);
            let by_alias = || field.aliases.iter().find_map(named);
            sources.push(named(&field.name).or_else(by_alias));
        }
        let mut nodes = Vec::new();
        for (number, field) in written.fields.iter().enumerate() {
            let takers: Vec<usize> = (0..sources.len())
                .filter(|taker| sources[*taker] == Some(number))
                .collect();
            let at = format!("{}.{}", written.name.name(), field.name);
            let node = match takers.as_slice() {
                [] => Planner::skip(self, &field.schema)?,
                [taker] => self.node(&field.schema, &read.fields[*taker].schema, &at)?,
                _ => {
                    return Err(format!(
                        "{at}: two fields of the reader take it, by name or alias"
                    ));
                }
            };
            nodes.push((node, !takers.is_empty()));
        }
        let origins = self.origins(read, &sources)?;
        let order: Vec<usize> = sources.iter().flatten().copied().collect();
        let is_whole = order.len() == written.fields.len() && order.len() == read.fields.len();
        let is_in_order = order.is_sorted();
        self.is_identity &= is_whole && is_in_order;
        self.nodes[id] = Node::Record(RecordPlan {
            written: nodes,
            read: origins,
            is_in_order,
        });
        Ok(id)
    }

    /// A field that the reader has not: it is walked as the writer wrote it.
    fn skip(&mut self, schema: &'s Schema) -> Result<NodeId, String> {
        let mut alone = Planner {
            writer: self.writer,
            reader: self.writer,
            nodes: std::mem::take(&mut self.nodes),
            known: HashMap::new(),
            is_identity: true,
        };
        let node = alone.node(schema, schema, "a field that is passed over");
        self.nodes = alone.nodes;
        node
    }

    /// The origin of each field of the reader.
    fn origins(
        &self,
        read: &RecordSchema,
        sources: &[Option<usize>],
    ) -> Result<Vec<Origin>, String> {
        let mut origins = Vec::new();
        for (field, source) in read.fields.iter().zip(sources) {
            origins.push(match (source, &field.default) {
                (Some(number), _) => Origin::Written(*number),
                (None, Some(default)) => {
                    let mut bytes = Vec::new();
                    encode_default(&field.schema, self.reader, default, &mut bytes)
                        .map_err(|why| format!("the default of {}.{}: {why}", read.name.name(), field.name))?;
                    Origin::Default(bytes)
                }
                (None, None) => {
                    return Err(format!(
                        "{0}.{1}: the writer has no such field, and the reader has no default for it; give {1} a default, or the name \
                         that the writer has as an alias",
                        read.name.name(),
                        field.name
                    ));
                }
            });
        }
        Ok(origins)
    }
}

/// Whether a branch of the reader's union is of the writer's own type.
fn is_same_type(writer: &Schema, branch: &Schema) -> bool {
    let is_same_meaning = meaning(writer) == meaning(branch);
    let is_same_bytes = match (physical(writer), physical(branch)) {
        (Physical::Plain(a), Physical::Plain(b)) => a == b,
        (Physical::Fixed(a), Physical::Fixed(b)) => a.name == b.name,
        (Physical::Enum(a), Physical::Enum(b)) => a.name == b.name,
        (Physical::Record(a), Physical::Record(b)) => a.name == b.name,
        (Physical::Array(_), Physical::Array(_)) | (Physical::Map(_), Physical::Map(_)) => true,
        _ => false,
    };
    is_same_meaning && is_same_bytes
}

/// The way from one primitive type to another, if there is one.
fn plain(written: &str, read: &str) -> Option<Node> {
    use Number::{Double, Float, Int, Long};
    Some(match (written, read) {
        ("null", "null") => Node::Null,
        ("boolean", "boolean") => Node::Boolean,
        ("int", "int" | "long") => Node::Int,
        ("long", "long") => Node::Long,
        ("float", "float") => Node::Float,
        ("double", "double") => Node::Double,
        ("bytes", "bytes") => Node::Bytes,
        ("string", "string" | "bytes") | ("bytes", "string") => Node::Text,
        ("int", "float") => Node::Widened(Int, Float),
        ("int", "double") => Node::Widened(Int, Double),
        ("long", "float") => Node::Widened(Long, Float),
        ("long", "double") => Node::Widened(Long, Double),
        ("float", "double") => Node::Widened(Float, Double),
        _ => return None,
    })
}
