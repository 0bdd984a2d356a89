//! The job as a graph that people look at: its nodes, what leads from one to the next, and where in the program each was made.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::panic::Location;

use serde::Serialize;

use crate::codec::Schema;

/// A node of the job's graph: a source, an operator or a sink.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The name that its user gave it; a source's or a sink's own.
    pub(crate) name: Option<String>,
    /// `source`, `sink`, or what the operator does.
    pub(crate) kind: String,
    pub(crate) inputs: Vec<Edge>,
    pub(crate) stores: Vec<String>,
    pub(crate) location: &'static Location<'static>,
}

/// Edge into a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The number of the node that it comes from.
    pub(crate) from: usize,
    pub(crate) kind: EdgeKind,
    /// Which input of the node it leads into, if the node has several.
    pub(crate) port: Option<&'static str>,
}

/// Way of records from one node to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EdgeKind {
    /// By a call: both nodes are one function.
    Fused,
    /// By their key's hash, to the worker (or the process) that owns it.
    Shuffle,
}

/// Makes `flat_map` of `crate::operators::flat_map::FlatMap<F, U>`.
pub(crate) fn kind_of<O>() -> String {
    let whole = std::any::type_name::<O>();
    let path = whole.split('<').next().unwrap_or(whole);
    let name = path.rsplit("::").next().unwrap_or(path);
    let mut kind = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_uppercase() && !kind.is_empty() {
            kind.push('_');
        }
        kind.extend(letter.to_lowercase());
    }
    kind
}

/// A job's graph, made by [`Job::describe`](crate::runtime::Job::describe). Displayed it is text, a line a node;
/// [`json`](Self::json) and [`dot`](Self::dot) give it to programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    job: String,
    nodes: Vec<DescribedNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DescribedNode {
    number: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<DescribedEdge>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stores: Vec<DescribedStore>,
    location: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DescribedEdge {
    from: usize,
    kind: EdgeKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<&'static str>,
}

impl DescribedEdge {
    /// As the text of the graph shows it.
    fn in_words(&self) -> String {
        let from = match self.kind {
            EdgeKind::Fused => self.from.to_string(),
            EdgeKind::Shuffle => format!("shuffle of {}", self.from),
        };
        match self.port {
            Some(port) => format!("{port}: {from}"),
            None => from,
        }
    }

    /// As Graphviz draws it.
    fn style(&self) -> String {
        match (self.kind, self.port) {
            (EdgeKind::Fused, None) => String::new(),
            (EdgeKind::Fused, Some(port)) => format!(" [label=\"{port}\"]"),
            (EdgeKind::Shuffle, None) => " [label=\"shuffle\", style=dashed]".to_owned(),
            (EdgeKind::Shuffle, Some(port)) => {
                format!(" [label=\"{port}, shuffle\", style=dashed]")
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DescribedStore {
    name: String,
    key: String,
    value: String,
    codec: u32,
}

impl Description {
    pub(crate) fn new(job: &str, nodes: &[Node], schemas: &BTreeMap<String, Schema>) -> Self {
        let store = |name: &String| {
            let schema = schemas.get(name)?;
            Some(DescribedStore {
                name: name.clone(),
                key: schema.key.to_string(),
                value: schema.value.to_string(),
                codec: schema.codec.of_values().0.into(),
            })
        };
        let nodes = nodes
            .iter()
            .enumerate()
            .map(|(number, node)| DescribedNode {
                number,
                name: node.name.clone(),
                kind: node.kind.clone(),
                inputs: node
                    .inputs
                    .iter()
                    .map(|edge| DescribedEdge {
                        from: edge.from,
                        kind: edge.kind,
                        port: edge.port,
                    })
                    .collect(),
                stores: node.stores.iter().filter_map(store).collect(),
                location: format!("{}:{}", node.location.file(), node.location.line()),
            });
        Self {
            job: job.to_owned(),
            nodes: nodes.collect(),
        }
    }

    /// The graph as JSON: `{"job": …, "nodes": [{"number", "name", "kind", "inputs": [{"from", "kind", "port"}], "stores":
    /// [{"name", "key", "value", "codec"}], "location"}]}`. An edge's kind is `fused` or `shuffle`; it has a port, `left` or `right`,
    /// where its node has two inputs.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("parity");
    /// job.source(values("n", 0..10u64)).key_by(|n| n % 2).count("counts").changes().sink(topic("counts"));
    /// let graph: serde_json::Value = serde_json::from_str(&job.describe().json())?;
    /// assert_eq!(graph["nodes"][0]["kind"], "source");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    #[must_use]
    pub fn json(&self) -> String {
        // Strings and numbers only: there is nothing that could fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The graph in Graphviz's language: `dot -Tsvg` draws it.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut text = format!(
            "digraph {:?} {{\n  rankdir=LR;\n  node [shape=box];\n",
            self.job
        );
        for node in &self.nodes {
            let shape = match node.stores.is_empty() {
                true => "",
                false => ", style=bold",
            };
            let _ = writeln!(
                text,
                "  n{} [label={:?}{shape}];",
                node.number,
                node.label()
            );
            for edge in &node.inputs {
                let style = edge.style();
                let _ = writeln!(text, "  n{} -> n{}{style};", edge.from, node.number);
            }
        }
        text.push_str("}\n");
        text
    }
}

impl DescribedNode {
    fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{} {name}", self.kind),
            None => self.kind.clone(),
        }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {}", self.job)?;
        for node in &self.nodes {
            write!(f, "\n  {:>2}  {}", node.number, node.label())?;
            let inputs: Vec<String> = node.inputs.iter().map(DescribedEdge::in_words).collect();
            if !inputs.is_empty() {
                write!(f, "  <- {}", inputs.join(", "))?;
            }
            for store in &node.stores {
                write!(
                    f,
                    "  [store {}: {} by {}]",
                    store.name, store.value, store.key
                )?;
            }
            write!(f, "  ({})", node.location)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FlatMap<T>(T);

    #[test]
    fn a_kind_is_the_name_of_the_operators_type() {
        assert_eq!(kind_of::<FlatMap<Vec<u8>>>(), "flat_map");
        assert_eq!(FlatMap(1).0, 1);
    }
}
