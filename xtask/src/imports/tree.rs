//! The modules of one target: its root file, and every file that a `mod` line of a file names.
//! Must not know the disk: a function reads a file. Files that are compiled only for tests are ignored.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::parse::{SourceFile, parse};

/// The names from the root of a target to a module.
pub(super) type ModulePath = Vec<String>;

/// A module that is a file.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) path: PathBuf,
    pub(super) source: SourceFile,
}

/// The files of a target by module path; the root has the empty one.
pub(super) type Tree = BTreeMap<ModulePath, Room>;

/// Reads a target from its root file. `read` returns None for a file that does not exist.
pub(super) fn tree(root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![(ModulePath::new(), root.to_owned())];
    while let Some((module, path)) = waiting.pop() {
        let Some(text) = read(&path) else { continue };
        let source = parse(&text);
        if source.only_for_tests {
            continue;
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let is_folder_root = module.is_empty() || path.file_name().is_some_and(|name| name == "mod.rs");
        // `a.rs` has its modules in `a/`.
        let home = if is_folder_root { folder.to_owned() } else { path.with_extension("") };
        for declaration in &source.modules {
            let base = declaration.inside.iter().fold(home.clone(), |base, name| base.join(name));
            let candidates = match &declaration.file {
                Some(file) if declaration.inside.is_empty() => vec![folder.join(file)],
                Some(file) => vec![base.join(file)],
                None => {
                    vec![base.join(&declaration.name).with_extension("rs"), base.join(&declaration.name).join("mod.rs")]
                }
            };
            let mut child = module.clone();
            child.extend(declaration.inside.iter().cloned());
            child.push(declaration.name.clone());
            if let Some(path) = candidates.into_iter().find(|path| read(path).is_some()) {
                waiting.push((child, path));
            }
        }
        tree.insert(module, Room { path, source });
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mod_lines_lead_to_files() {
        let files = BTreeMap::from([
            ("src/lib.rs", "mod a; mod b; #[cfg(test)] mod t; mod u; mod v { mod w; } #[path = \"odd.rs\"] mod x;"),
            ("src/a.rs", "mod c; mod missing;"),
            ("src/a/c.rs", ""),
            ("src/b/mod.rs", "mod d;"),
            ("src/b/d.rs", ""),
            ("src/t.rs", ""),
            ("src/u.rs", "#![cfg(test)]"),
            ("src/v/w.rs", ""),
            ("src/odd.rs", ""),
            ("src/nobody.rs", ""),
        ]);
        let read = |path: &Path| files.get(path.to_str().unwrap()).map(|text| (*text).to_owned());
        let tree = tree(Path::new("src/lib.rs"), &read);
        let found: Vec<_> =
            tree.iter().map(|(module, room)| (module.join("::"), room.path.to_str().unwrap())).collect();
        let expected = [
            ("", "src/lib.rs"),
            ("a", "src/a.rs"),
            ("a::c", "src/a/c.rs"),
            ("b", "src/b/mod.rs"),
            ("b::d", "src/b/d.rs"),
            ("v::w", "src/v/w.rs"),
            ("x", "src/odd.rs"),
        ];
        assert_eq!(found, expected.map(|(module, path)| (module.to_owned(), path)));
    }
}
