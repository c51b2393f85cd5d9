//! The import cycles of every crate of this workspace, as text.
//! Must not know how a file is read or a path is followed.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use cargo_metadata::{Target, TargetKind};

use super::{
    graph::{Graph, circles},
    resolve::{Edges, Place, edges},
    tree::{ModulePath, Tree, tree},
};
use crate::{cargo, workspace};

/// What was read, and its import cycles.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) crates: usize,
    pub(crate) files: usize,
    /// One text for each cycle: its name in the first line, then a line for each import.
    pub(crate) circles: Vec<String>,
}

/// Maximum number of import lines shown for each step of a cycle.
const MOST_LINES: usize = 4;

/// Checks the libraries and programs of every crate of the workspace.
///
/// # Errors
/// `cargo metadata` fails, or a root file cannot be read.
pub(crate) fn workspace() -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    for package in workspace::packages()? {
        findings.crates += 1;
        for target in package.targets.iter().filter(|target| is_code_of_the_crate(target)) {
            let root = target.src_path.as_std_path();
            anyhow::ensure!(root.is_file(), "cannot read {}", root.display());
            let root = root.strip_prefix(cargo::workspace_root()).unwrap_or(root);
            let read = |path: &Path| fs::read_to_string(cargo::workspace_root().join(path)).ok();
            let tree = tree(root, &read);
            findings.files += tree.len();
            findings.circles.extend(check(&package.name, &tree));
        }
    }
    Ok(findings)
}

/// The cycles of one target: first between its files, then between the top folders of its source.
fn check(crate_name: &str, tree: &Tree) -> Vec<String> {
    let edges = edges(tree);
    let root = tree.get(&ModulePath::new()).and_then(|root| root.path.file_stem());
    let root = root.map_or_else(|| "root".to_owned(), |stem| stem.display().to_string());
    let rooms = Named::new(&edges, |module| if module.is_empty() { root.clone() } else { module.join("::") });
    let wings = Named::new(&edges, |module| module.first().unwrap_or(&root).clone());
    let of_rooms = circles(&rooms.graph());
    let mut texts: Vec<_> = of_rooms.iter().map(|circle| rooms.text(crate_name, circle)).collect();
    for circle in circles(&wings.graph()) {
        // If every top folder is one file, this cycle is already in the list.
        if !of_rooms.contains(&circle) {
            texts.push(wings.text(&format!("{crate_name}, folders"), &circle));
        }
    }
    texts
}

/// Imports between names instead of modules.
struct Named<'a>(BTreeMap<(String, String), Vec<&'a Place>>);

impl<'a> Named<'a> {
    fn new(edges: &'a Edges, name: impl Fn(&ModulePath) -> String) -> Self {
        let mut named = BTreeMap::<_, Vec<_>>::new();
        for ((from, to), places) in edges {
            let (from, to) = (name(from), name(to));
            if from != to {
                named.entry((from, to)).or_default().extend(places);
            }
        }
        Self(named)
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (from, to) in self.0.keys() {
            graph.entry(from.clone()).or_default().insert(to.clone());
        }
        graph
    }

    fn text(&self, title: &str, circle: &[String]) -> String {
        let mut text = format!("{title}: {} -> {}", circle.join(" -> "), circle[0]);
        for (from, to) in circle.iter().zip(circle.iter().cycle().skip(1)) {
            let mut lines = BTreeMap::<_, Vec<_>>::new();
            for Place { file, line, written } in self.0.get(&(from.clone(), to.clone())).into_iter().flatten() {
                lines.entry((file, line)).or_default().push(written.as_str());
            }
            for ((file, line), written) in lines.iter().take(MOST_LINES) {
                let written = written.join(", ");
                write!(text, "\n    {from} -> {to}: {}:{line}: {written}", file.display()).expect("infallible");
            }
            if let Some(more) = lines.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
                write!(text, "\n    {from} -> {to}: {more} more lines").expect("infallible");
            }
        }
        text
    }
}

/// A library or a program, not a test, benchmark, example or build script.
fn is_code_of_the_crate(target: &Target) -> bool {
    target.kind.iter().any(|kind| matches!(kind, TargetKind::Bin | TargetKind::Lib | TargetKind::ProcMacro))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_files(files: &[(&str, &str)], expected: &[&str]) {
        let read = |path: &Path| files.iter().find(|(name, _)| path == Path::new(name)).map(|(_, text)| (*text).into());
        assert_eq!(check("x", &tree(Path::new("src/lib.rs"), &read)), expected, "{files:#?}");
    }

    const ROOT: (&str, &str) = ("src/lib.rs", "mod a; mod b; mod c;");

    #[test]
    fn a_circle_is_named_with_the_place_of_each_import() {
        check_files(
            &[
                ROOT,
                ("src/a.rs", "use std::fmt;\nuse crate::{b::{B, C}, d::E};"),
                ("src/b.rs", "\n\nuse crate::c::D;"),
                ("src/c.rs", "fn f() { crate::a::g() }"),
            ],
            &["x: a -> b -> c -> a\
               \n    a -> b: src/a.rs:2: crate::b::B, crate::b::C\
               \n    b -> c: src/b.rs:3: crate::c::D\
               \n    c -> a: src/c.rs:1: crate::a::g"],
        );
    }

    #[test]
    fn super_hides_no_circle() {
        check_files(
            &[
                ROOT,
                ("src/a/mod.rs", "mod d; mod e;"),
                ("src/a/d.rs", "use super::e::E;"),
                ("src/a/e.rs", "fn f() { super::d::g() }"),
            ],
            &["x: a::d -> a::e -> a::d\
               \n    a::d -> a::e: src/a/d.rs:1: super::e::E\
               \n    a::e -> a::d: src/a/e.rs:1: super::d::g"],
        );
    }

    #[test]
    fn tests_may_import_in_circles() {
        check_files(
            &[
                ROOT,
                ("src/a.rs", "use crate::b::B;"),
                ("src/b.rs", "#[cfg(test)] mod tests { use crate::a::A; } #[cfg(test)] mod more;"),
                ("src/b/more.rs", "use crate::a::A;"),
            ],
            &[],
        );
    }

    #[test]
    fn folders_are_in_a_circle_where_their_files_are_in_none() {
        check_files(
            &[
                ROOT,
                ("src/a/mod.rs", "mod d; mod e;"),
                ("src/a/d.rs", "use crate::b::B;"),
                ("src/a/e.rs", ""),
                ("src/b.rs", "use crate::a::e::E;"),
            ],
            &["x, folders: a -> b -> a\
               \n    a -> b: src/a/d.rs:1: crate::b::B\
               \n    b -> a: src/b.rs:1: crate::a::e::E"],
        );
    }
}
