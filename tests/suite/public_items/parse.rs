//! Reads a module's items out of its text. It relies on rustfmt: what belongs to a module begins in column 0, what
//! belongs to an item after four blanks.

use std::collections::BTreeMap;

/// A file as a module: its items, imports and children.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) items: BTreeMap<String, Item>,
    pub(super) imports: Vec<Import>,
    pub(super) children: Vec<Child>,
    /// Inherent methods and constants: the type's name here, and the member.
    pub(super) members: Vec<(String, String)>,
}

/// A struct, enum, trait, function, …
#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: String,
    pub(super) is_public: bool,
    /// Its public fields, its variants, or its methods.
    pub(super) members: Vec<String>,
}

/// A name that a `use` brings in, with the path that it stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) name: String,
    pub(super) path: Vec<String>,
    pub(super) is_public: bool,
}

/// A module declared in the file.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    pub(super) is_public: bool,
    /// The file, where an attribute names it.
    pub(super) path: Option<String>,
}

/// The attributes in front of an item.
#[derive(Debug, Default)]
struct Attributes {
    is_hidden: bool,
    is_test: bool,
    path: Option<String>,
}

impl Attributes {
    fn note(&mut self, line: &str) {
        self.is_hidden |= line == "#[doc(hidden)]";
        self.is_test |= line == "#[cfg(test)]";
        let path = line.strip_prefix("#[path = \"");
        self.path = path
            .and_then(|it| it.strip_suffix("\"]"))
            .map(str::to_owned)
            .or(self.path.take());
    }
}

/// Splits an item's first line into visibility and the rest.
fn visibility(line: &str) -> (bool, &str) {
    if let Some(rest) = line.strip_prefix("pub ") {
        return (true, rest);
    }
    match line.strip_prefix("pub(").and_then(|it| it.split_once(") ")) {
        Some((_, rest)) => (false, rest),
        None => (false, line),
    }
}

fn word(text: &str) -> String {
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    text.chars().take_while(is_word).collect()
}

/// The kind and the name that a declaration begins with.
fn declared(rest: &str) -> Option<(String, String)> {
    let mut rest = rest;
    for modifier in ["const fn ", "async fn ", "unsafe fn ", "const unsafe fn "] {
        if rest.starts_with(modifier) {
            rest = &rest[modifier.len() - "fn ".len()..];
        }
    }
    let kinds = [
        "struct", "enum", "trait", "union", "fn", "type", "const", "static",
    ];
    let (kind, name) = rest.split_once(' ')?;
    let name = word(name);
    (kinds.contains(&kind) && !name.is_empty()).then(|| (kind.to_owned(), name))
}

/// The type of an `impl` without a trait.
fn inherent(header: &str) -> Option<String> {
    let mut depth = 0usize;
    let mut rest = header.strip_prefix("impl")?;
    if rest.starts_with('<') {
        let end = rest.char_indices().find_map(|(at, c)| {
            match c {
                '<' => depth += 1,
                // The arrow of a function's type ends nothing.
                '>' if !rest[..at].ends_with('-') => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(at + 1)
        })?;
        rest = &rest[end..];
    }
    let rest = rest.trim_start();
    let head = rest.split(" where").next()?.split('{').next()?;
    let is_of_trait = head.replace("for<", "").contains(" for ");
    let path = head.split('<').next()?.trim();
    (!is_of_trait).then(|| word(path.rsplit("::").next().unwrap_or(path)))
}

/// Lists a `use` tree's names, each with the one that it gets.
pub(super) fn imports(tree: &str, is_public: bool) -> Vec<Import> {
    let mut found = Vec::new();
    expand(&mut Vec::new(), tree.trim(), &mut |path, name| {
        found.push(Import {
            name,
            path,
            is_public,
        });
    });
    found
}

fn expand(before: &mut Vec<String>, tree: &str, found: &mut impl FnMut(Vec<String>, String)) {
    let (head, list) = match tree.split_once('{') {
        Some((head, list)) => (head, list.rsplit_once('}').map(|it| it.0)),
        None => (tree, None),
    };
    let (path, alias) = head.split_once(" as ").unwrap_or((head, ""));
    let segments = path.trim().split("::").filter(|it| !it.is_empty());
    let depth = before.len();
    before.extend(segments.map(|it| it.trim().to_owned()));
    match list {
        Some(list) => split(list).for_each(|part| expand(before, part, found)),
        None => {
            let mut path = before.clone();
            if path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let last = path.last().cloned().unwrap_or_default();
            let name = match alias.trim() {
                "" => last,
                alias => alias.to_owned(),
            };
            found(path, name);
        }
    }
    before.truncate(depth);
}

/// The parts between the commas outside braces.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    list.split(move |c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

impl Module {
    pub(super) fn parse(text: &str) -> Self {
        let mut module = Self::default();
        let mut lines = text.lines();
        let mut attributes = Attributes::default();
        while let Some(line) = lines.next() {
            let is_of_item = line.is_empty() || line.starts_with([' ', '}', ')', ']', '/', '{']);
            if line.starts_with('#') {
                attributes.note(line);
                continue;
            }
            if is_of_item {
                continue;
            }
            let attributes = std::mem::take(&mut attributes);
            let (is_public, rest) = visibility(line);
            let is_public = is_public && !attributes.is_hidden;
            if let Some(name) = rest
                .strip_prefix("mod ")
                .and_then(|it| it.strip_suffix(';'))
            {
                module.children.extend((!attributes.is_test).then(|| Child {
                    name: name.to_owned(),
                    is_public,
                    path: attributes.path,
                }));
            } else if let Some(tree) = rest.strip_prefix("use ") {
                let mut tree = tree.to_owned();
                while !tree.ends_with(';') {
                    tree.push_str(lines.next().unwrap_or(";").trim());
                }
                let tree = tree.trim_end_matches(';');
                module.imports.extend(imports(tree, is_public));
            } else {
                let mut header = line.to_owned();
                while !header.contains(['{', ';']) {
                    let Some(next) = lines.next() else { break };
                    header.push(' ');
                    header.push_str(next.trim());
                }
                let is_open = !header.ends_with([';', '}']);
                let body = is_open.then(|| {
                    lines
                        .by_ref()
                        .take_while(|it| !it.starts_with(['}', ')', ']']))
                });
                let body: Vec<&str> = body.into_iter().flatten().collect();
                if !attributes.is_test {
                    module.add(&header, rest, is_public, &body);
                }
            }
        }
        module
    }

    fn add(&mut self, header: &str, rest: &str, is_public: bool, body: &[&str]) {
        if let Some(of) = inherent(header) {
            let own = members(body, |line| {
                let (is_public, rest) = visibility(line);
                declared(rest).filter(|_| is_public).map(|it| it.1)
            });
            self.members
                .extend(own.into_iter().map(|name| (of.clone(), name)));
            return;
        }
        let Some((kind, name)) = declared(rest) else {
            return;
        };
        let members = match &*kind {
            "enum" => members(body, |line| {
                let name = word(line);
                name.starts_with(|c: char| c.is_uppercase()).then_some(name)
            }),
            "trait" => members(body, |line| declared(line).map(|it| it.1)),
            "struct" => members(body, |line| {
                let (is_public, rest) = visibility(line);
                let (name, _) = rest.split_once(": ")?;
                is_public.then(|| name.to_owned())
            }),
            _ => vec![],
        };
        let item = Item {
            kind,
            is_public,
            members,
        };
        self.items.insert(name, item);
    }
}

/// The members that `name` finds in an item's body, without the hidden ones.
fn members(body: &[&str], name: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut attributes = Attributes::default();
    for line in body {
        let Some(line) = line.strip_prefix("    ").filter(|it| !it.starts_with(' ')) else {
            continue;
        };
        attributes.note(line);
        if line.starts_with('#') || line.starts_with('/') {
            continue;
        }
        let attributes = std::mem::take(&mut attributes);
        found.extend(name(line).filter(|_| !attributes.is_hidden && !attributes.is_test));
    }
    found
}
