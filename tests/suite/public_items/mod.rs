//! The public items of the crate are those of `docs/public_items.txt`, so that a change of them is seen in review.
//!
//! `ONCEFLOW_PUBLIC_ITEMS=write` writes the file anew. Whatever is marked `#[doc(hidden)]` is no promise, and is not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use parse::Module;

mod parse;

const LIST: &str = "docs/public_items.txt";
/// Set to `write`, it has the list written anew.
const VARIABLE: &str = "ONCEFLOW_PUBLIC_ITEMS";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// An item: its module, and its name in it.
type Place = (Vec<String>, String);

/// The modules of the crate, by path; the crate itself is the empty path.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
    public: BTreeSet<Vec<String>>,
}

impl Crate {
    fn read() -> Self {
        let mut whole = Self::default();
        whole.add(&root().join("src/lib.rs"), vec![], true);
        whole
    }

    fn add(&mut self, file: &Path, path: Vec<String>, is_public: bool) {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let module = Module::parse(&text);
        let folder = match file
            .file_name()
            .is_some_and(|it| it == "mod.rs" || it == "lib.rs")
        {
            true => file.parent().unwrap().to_owned(),
            false => file.with_extension(""),
        };
        for child in &module.children {
            let named = child
                .path
                .as_ref()
                .map(|it| file.parent().unwrap().join(it));
            let flat = folder.join(format!("{}.rs", child.name));
            let deep = folder.join(&child.name).join("mod.rs");
            let file = named.unwrap_or(if flat.exists() { flat } else { deep });
            let path = [&path[..], std::slice::from_ref(&child.name)].concat();
            self.add(&file, path, is_public && child.is_public);
        }
        if is_public {
            self.public.insert(path.clone());
        }
        self.modules.insert(path, module);
    }

    /// The module and the name of the item that `name` means in `module`; `None` if it is of another crate, or made by a macro.
    fn find(&self, module: &[String], name: &str) -> Option<Place> {
        let here = self.modules.get(module)?;
        if here.items.contains_key(name) {
            return Some((module.to_vec(), name.to_owned()));
        }
        let import = here.imports.iter().find(|import| import.name == name)?;
        let path = self.absolute(module, &import.path)?;
        let (name, module) = path.split_last()?;
        self.find(module, name)
    }

    /// A path of a `use` in `module`, from the crate's root; `None` if it leads out of the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match &**first {
            "crate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let mut above = module.len().checked_sub(1)?;
                let more = rest.iter().take_while(|it| *it == "super").count();
                above = above.checked_sub(more)?;
                Some([&module[..above], &rest[more..]].concat())
            }
            child => {
                let own = self.modules.get(module)?;
                let is_own = own.children.iter().any(|it| it.name == child);
                is_own.then(|| [module, path].concat())
            }
        }
    }

    /// Every public path with what it is; an item that has several is told in full at the first one.
    fn list(&self) -> Vec<String> {
        let mut names: Vec<(String, Option<Place>)> = Vec::new();
        for path in &self.public {
            let module = &self.modules[path];
            let own = module.items.iter().filter(|(_, item)| item.is_public);
            let own = own.map(|(name, _)| name);
            let brought = module.imports.iter().filter(|import| import.is_public);
            for name in own.chain(brought.map(|import| &import.name)) {
                let shown = [&path[..], std::slice::from_ref(name)].concat().join("::");
                names.push((shown, self.find(path, name)));
            }
        }
        // The prelude repeats what has a place of its own.
        names.sort_by_key(|(shown, _)| (shown.starts_with("prelude::"), shown.clone()));
        let mut told: BTreeMap<Place, String> = BTreeMap::new();
        let mut lines: Vec<String> = self
            .public
            .iter()
            .skip(1)
            .map(|path| format!("{} mod", path.join("::")))
            .collect();
        let mut members = self.members();
        for (shown, found) in names {
            let Some(item) = found else {
                lines.push(format!("{shown} (made by a macro, or of another crate)"));
                continue;
            };
            if let Some(elsewhere) = told.get(&item) {
                lines.push(format!("{shown} = {elsewhere}"));
                continue;
            }
            let definition = &self.modules[&item.0].items[&item.1];
            lines.push(format!("{shown} {}", definition.kind));
            let own = definition.members.iter().cloned();
            let own = own.chain(members.remove(&item).into_iter().flatten());
            lines.extend(own.map(|member| format!("{shown}::{member}")));
            told.insert(item, shown);
        }
        lines.sort();
        lines.dedup();
        lines
    }

    /// The inherent methods of each type, wherever they are written.
    fn members(&self) -> BTreeMap<Place, Vec<String>> {
        let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (path, module) in &self.modules {
            for (of, member) in &module.members {
                if let Some(item) = self.find(path, of) {
                    found.entry(item).or_default().push(member.clone());
                }
            }
        }
        found
    }
}

#[test]
fn the_public_items_are_those_of_the_list() {
    let now = Crate::read().list();
    let path = root().join(LIST);
    if std::env::var(VARIABLE).is_ok_and(|value| value == "write") {
        std::fs::write(&path, now.join("\n") + "\n").unwrap();
    }
    let listed = std::fs::read_to_string(&path).unwrap_or_default();
    let listed: BTreeSet<&str> = listed.lines().collect();
    let now: BTreeSet<&str> = now.iter().map(String::as_str).collect();
    let gone = listed.difference(&now).map(|line| format!("- {line}"));
    let new = now.difference(&listed).map(|line| format!("+ {line}"));
    let changes: Vec<String> = gone.chain(new).collect();
    assert!(
        changes.is_empty(),
        "The public items are not those of {LIST}. If users are to see the change, write it: {VARIABLE}=write cargo test --test suite \
         public_items\n{}",
        changes.join("\n")
    );
}

#[test]
fn the_reader_sees_what_is_public() {
    let text = "//! X.\n\nmod inner;\npub mod shown;\n#[doc(hidden)]\npub mod hidden;\n#[cfg(test)]\nmod tests;\n\
                pub use inner::{A, deep::{B as C, self}};\n\npub struct Point<T>\nwhere\n    T: Copy,\n{\n    /// X.\n    pub x: T,\n    y: T,\n}\n\n\
                impl<T: Fn() -> u8> Point<T> {\n    /// Does.\n    pub const fn go(self) {\n        pub fn no() {}\n    }\n\n    #[doc(hidden)]\n    pub fn unseen() {}\n}\n\n\
                impl<T> Clone for Point<T> {\n    pub fn nor_this() {}\n}\n\npub enum Way {\n    In,\n    Out { to: u8 },\n}\n\npub(crate) fn private() {}\n";
    let module = Module::parse(text);
    let children: Vec<_> = module
        .children
        .iter()
        .map(|it| (&*it.name, it.is_public))
        .collect();
    assert_eq!(
        children,
        [("inner", false), ("shown", true), ("hidden", false)]
    );
    let imported: Vec<_> = module
        .imports
        .iter()
        .map(|it| (&*it.name, it.path.join("::")))
        .collect();
    assert_eq!(
        imported,
        [
            ("A", "inner::A".to_owned()),
            ("C", "inner::deep::B".to_owned()),
            ("deep", "inner::deep".to_owned())
        ]
    );
    assert_eq!(module.items["Point"].members, ["x"]);
    assert_eq!(module.items["Way"].members, ["In", "Out"]);
    assert!(!module.items["private"].is_public);
    assert_eq!(module.members, [("Point".to_owned(), "go".to_owned())]);
}
