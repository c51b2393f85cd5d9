//! Resolves paths to files, through re-exports, and so finds which file imports which.
//! Must not know cycles. It knows names, not types: it does not see associated items or macros used by other macros.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    parse::{Binds, Import, SourceFile},
    tree::{ModulePath, Tree},
};

/// A place where one file imports another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    /// The path as written, with the parts of a nested `use` joined.
    pub(super) written: String,
}

/// Every import between two files of a target, by their modules.
pub(super) type Edges = BTreeMap<(ModulePath, ModulePath), BTreeSet<Place>>;

pub(super) fn edges(tree: &Tree) -> Edges {
    let names = Names::new(tree);
    let mut edges = Edges::new();
    for (module, room) in tree {
        let mut add = |target: Option<ModulePath>, line, written: String| {
            let Some(target) = target.map(|target| names.file(&target)) else { return };
            if target != *module {
                let place = Place { file: room.path.clone(), line, written };
                edges.entry((module.clone(), target)).or_default().insert(place);
            }
        };
        let is_facade = names.facades.contains(module);
        for import in &room.source.imports {
            if import.is_reexport && is_facade {
                continue;
            }
            let scope = within(module, &import.inside);
            let written = import.segments.join("::");
            let target = names.resolve(&scope, &import.segments);
            if import.binds == Binds::Everything {
                let target = target.filter(|target| *target != scope);
                for found in target.into_iter().flat_map(|target| names.behind_glob(&target, &scope, &room.source)) {
                    add(Some(found), import.line, format!("{written}::*"));
                }
            } else {
                add(target, import.line, written);
            }
        }
        for path in &room.source.paths {
            let scope = within(module, &path.inside);
            let target = names.resolve(&scope, &path.segments);
            // `use crate::a::B;` is already counted: `B::c` adds nothing.
            let imported = names.imported(&scope, &path.segments[0]);
            if imported.is_none() || imported != target {
                add(target, path.line, path.segments.join("::"));
            }
        }
    }
    edges
}

fn within(module: &[String], inside: &[String]) -> ModulePath {
    [module, inside].concat()
}

/// The meaning of the names of every module.
struct Names<'a> {
    tree: &'a Tree,
    /// By module, which may be an inline one, and name.
    imported: BTreeMap<(ModulePath, &'a str), Vec<&'a Import>>,
    globs: BTreeMap<ModulePath, Vec<&'a Import>>,
    defined: BTreeSet<(ModulePath, &'a str)>,
    /// Modules within a file that have names.
    inline: BTreeSet<ModulePath>,
    facades: BTreeSet<&'a ModulePath>,
}

/// Longer chains of re-exports are cycles.
const MOST_REEXPORTS: usize = 16;

impl<'a> Names<'a> {
    fn new(tree: &'a Tree) -> Self {
        let mut names = Self {
            tree,
            imported: BTreeMap::new(),
            globs: BTreeMap::new(),
            defined: BTreeSet::new(),
            inline: BTreeSet::new(),
            facades: tree.keys().filter(|module| is_facade(tree, module)).collect(),
        };
        for (module, room) in tree {
            for import in &room.source.imports {
                let scope = within(module, &import.inside);
                names.inline.insert(scope.clone());
                match &import.binds {
                    Binds::Name(name) => names.imported.entry((scope, name)).or_default().push(import),
                    Binds::Everything => names.globs.entry(scope).or_default().push(import),
                    Binds::Nothing => {}
                }
            }
            names.inline.extend(room.source.defined.iter().map(|(inside, _)| within(module, inside)));
            names.defined.extend(room.source.defined.iter().map(|(inside, name)| (within(module, inside), &**name)));
        }
        names
    }

    /// The file of a module or an item in it.
    fn file(&self, path: &[String]) -> ModulePath {
        let lengths = (0..=path.len()).rev();
        lengths.map(|length| path[..length].to_vec()).find(|path| self.tree.contains_key(path)).unwrap_or_default()
    }

    /// The module of the item of a path in `scope`. `None`: it is in another crate.
    fn resolve(&self, scope: &[String], segments: &[String]) -> Option<ModulePath> {
        self.resolve_within(scope, segments, MOST_REEXPORTS)
    }

    fn resolve_within(&self, scope: &[String], segments: &[String], reexports: usize) -> Option<ModulePath> {
        let (first, mut rest) = segments.split_first()?;
        let mut current = match first.as_str() {
            "crate" => ModulePath::new(),
            "self" => scope.to_vec(),
            "super" => parent(scope)?,
            name => self.member(scope, name, reexports)?,
        };
        while let Some((next, after)) = rest.split_first() {
            current = match next.as_str() {
                "super" => parent(&current)?,
                // A re-export of a file that is not a facade counts as its own item.
                name if self.is_opaque(&current, name) => return Some(current),
                name => match self.member(&current, name, reexports) {
                    Some(found) => found,
                    // An item of `current`, or something of another crate that it re-exports.
                    None => return Some(current),
                },
            };
            rest = after;
        }
        Some(current)
    }

    fn is_opaque(&self, module: &ModulePath, name: &str) -> bool {
        !self.facades.contains(&self.file(module)) && !self.tree.contains_key(&within(module, &[name.to_owned()]))
    }

    /// The module that `name` in `module` is, or that defines it.
    fn member(&self, module: &[String], name: &str, reexports: usize) -> Option<ModulePath> {
        let child = within(module, &[name.to_owned()]);
        if self.tree.contains_key(&child) {
            return Some(child);
        }
        let reexports = reexports.checked_sub(1)?;
        let resolve = |import: &&Import| self.resolve_within(module, &import.segments, reexports);
        let key = (module.to_vec(), name);
        if let Some(imports) = self.imported.get(&key) {
            return imports.iter().find_map(resolve);
        }
        if self.defined.contains(&key) {
            // An inline module is a part of its file, and has names of its own.
            return Some(if self.inline.contains(&child) { child } else { module.to_vec() });
        }
        let globs = self.globs.get(module).into_iter().flatten();
        globs.filter_map(resolve).filter(|target| target != module).find_map(|target| {
            let has = self.member(&target, name, reexports);
            has.filter(|_| self.has(&target, name))
        })
    }

    fn has(&self, module: &ModulePath, name: &str) -> bool {
        let key = (module.clone(), name);
        self.defined.contains(&key) || self.imported.contains_key(&key) || self.globs.contains_key(module)
    }

    /// Resolves a name with the `use` lines of a scope.
    fn imported(&self, scope: &[String], name: &str) -> Option<ModulePath> {
        let imports = self.imported.get(&(scope.to_vec(), name))?;
        imports.iter().find_map(|import| self.resolve(scope, &import.segments))
    }

    /// The modules with names of `target` that a file uses without importing or defining them itself.
    fn behind_glob(&self, target: &ModulePath, scope: &ModulePath, source: &SourceFile) -> BTreeSet<ModulePath> {
        let own = |name: &str| {
            let key = (scope.clone(), name);
            self.imported.contains_key(&key) || self.defined.contains(&key)
        };
        let names = source.words.iter().filter(|word| !own(word));
        names.filter_map(|name| self.member(target, name, MOST_REEXPORTS)).collect()
    }
}

/// The root, a `mod.rs`, and any other file whose modules are separate files.
fn is_facade(tree: &Tree, module: &ModulePath) -> bool {
    let is_mod = tree[module].path.file_name().is_some_and(|name| name == "mod.rs");
    let has_children = || tree.keys().any(|other| other.len() > module.len() && other.starts_with(module));
    module.is_empty() || is_mod || has_children()
}

fn parent(module: &[String]) -> Option<ModulePath> {
    module.split_last().map(|(_, parent)| parent.to_vec())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::tree::tree, *};

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let read = |path: &Path| files.iter().find(|(name, _)| path == Path::new(name)).map(|(_, text)| (*text).into());
        let name = |module: &ModulePath| if module.is_empty() { "root".to_owned() } else { module.join("::") };
        let edges = edges(&tree(Path::new("lib.rs"), &read));
        let found = edges.iter().map(|((from, to), places)| {
            let lines: Vec<_> = places.iter().map(|place| place.line.to_string()).collect();
            format!("{} -> {} {}", name(from), name(to), lines.join(" "))
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{files:#?}");
    }

    #[test]
    fn a_path_leads_to_the_longest_module_that_is_a_file() {
        let root = ("lib.rs", "mod a; mod b;");
        check(&[root, ("a.rs", "use crate::b::C;"), ("b.rs", "")], &["a -> b 1"]);
        check(
            &[root, ("a.rs", "use crate::{\nb::{C, d::E}};"), ("b/mod.rs", "mod d;"), ("b/d.rs", "")],
            &["a -> b 2", "a -> b::d 2"],
        );
        check(
            &[root, ("a.rs", "fn f() { crate::b::c() }"), ("b.rs", "fn f() { super::a::f() }")],
            &["a -> b 1", "b -> a 1"],
        );
        check(&[root, ("a.rs", "use super::super::b; use std::b::C; use ::b::D; use b::E;"), ("b.rs", "")], &[]);
        check(&[root, ("a.rs", "use crate::own;"), ("b.rs", "")], &["a -> root 1"]);
    }

    #[test]
    fn reexports_of_a_facade_lead_through_it() {
        let root = ("lib.rs", "mod a; mod b; pub use b::{C, e as f};");
        check(
            &[
                root,
                ("a.rs", "use crate::C;\nuse super::f::G;"),
                ("b/mod.rs", "mod d; pub use self::d::*; pub mod e;"),
                ("b/d.rs", "pub struct C;"),
                ("b/e.rs", ""),
            ],
            &["a -> b::d 1", "a -> b::e 2"],
        );
        // A re-export of a file that is not a facade is an import.
        check(
            &[("lib.rs", "mod a; mod b;"), ("a.rs", "pub use crate::b::C;"), ("b.rs", "use crate::a::C;")],
            &["a -> b 1", "b -> a 1"],
        );
    }

    #[test]
    fn a_facade_with_code_is_a_room() {
        let b = ("b/mod.rs", "mod d; pub trait T {}\nfn f() { d::g() }");
        check(&[("lib.rs", "mod b;"), b, ("b/d.rs", "use super::T;")], &["b -> b::d 2", "b::d -> b 1"]);
    }

    #[test]
    fn an_imported_module_leads_further() {
        let root = ("lib.rs", "mod a; mod b;");
        check(
            &[
                root,
                ("a.rs", "use crate::b;\nfn f() { b::d::g() }\nfn h() { b::C::h() }"),
                ("b/mod.rs", "pub mod d; pub use d::C;"),
                ("b/d.rs", ""),
            ],
            &["a -> b 1", "a -> b::d 2 3"],
        );
        check(&[root, ("a.rs", "use crate::b::C;\nfn f() { C::new() }"), ("b.rs", "")], &["a -> b 1"]);
    }

    #[test]
    fn inline_modules_belong_to_their_file() {
        let root = ("lib.rs", "mod a; mod b;");
        check(
            &[root, ("a.rs", "mod m { use super::super::b::C;\nuse super::D; }"), ("b.rs", "use crate::a::m::E;")],
            &["a -> b 1", "b -> a 1"],
        );
        check(&[root, ("a.rs", "pub mod prelude { pub use crate::b::C; }"), ("b.rs", "")], &["a -> b 1"]);
    }

    #[test]
    fn a_glob_imports_what_is_named() {
        let root = ("lib.rs", "mod a; mod b; pub use b::C;");
        check(&[root, ("a.rs", "use super::*; fn f(c: C) {}"), ("b.rs", "pub struct C; pub struct D;")], &["a -> b 1"]);
        check(
            &[root, ("a.rs", "use super::b::*; fn f() -> D {}"), ("b.rs", "pub struct C; pub struct D;")],
            &["a -> b 1"],
        );
        check(&[root, ("a.rs", "use super::*; struct C;"), ("b.rs", "pub struct C;")], &[]);
    }
}
