//! Checks of the READMEs, the indexes of the docs and the guides: the example is the doctest of this crate, pages are
//! listed, links exist. `batchsql-suite` checks that both languages of a page say the same.

use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).expect("the workspace has this file")
}

/// What a page links to, outside of its blocks of code.
fn links(page: &str) -> Vec<String> {
    let prose: String = page.split("```").step_by(2).collect();
    prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

/// The files that a page in this folder links to exist. Addresses of the web are not checked.
fn check_links(folder: &Path, page: &str) {
    for link in links(page).iter().filter(|link| !link.starts_with("http")) {
        let file = link.split('#').next().unwrap_or_default();
        assert!(folder.join(file).exists(), "{link} is not in {}", folder.display());
    }
}

#[test]
fn the_readme_shows_the_example_that_is_tested() {
    let example = include_str!("../../example.md");
    for name in READMES {
        assert!(read(name).contains(example), "copy crates/batchsql/example.md into {name}");
    }
}

#[test]
fn what_the_readme_links_to_is_there() {
    for name in READMES {
        let readme = read(name);
        assert!(links(&readme).len() >= 4, "{name}: {:?}", links(&readme));
        check_links(Path::new(ROOT), &readme);
    }
}

#[test]
fn each_published_crate_has_a_readme() {
    let crates = Path::new(ROOT).join("crates");
    for folder in std::fs::read_dir(crates).expect("the workspace has crates") {
        let folder = folder.expect("the folder can be read").path();
        let Ok(manifest) = std::fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        match std::fs::read_to_string(folder.join("README.md")) {
            Ok(readme) => check_links(&folder, &readme),
            Err(error) => assert!(manifest.contains("publish = false"), "{}: {error}", folder.display()),
        }
    }
}

#[test]
fn the_readme_of_the_crate_has_every_feature() {
    let (manifest, readme) = (read("crates/batchsql/Cargo.toml"), read("crates/batchsql/README.md"));
    let section = manifest.split("[features]").nth(1).and_then(|rest| rest.split("\n[").next()).unwrap_or_default();
    let features: Vec<&str> = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    assert!(features.len() > 10, "{features:?}");
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `")).collect();
    for feature in features.iter().filter(|name| **name != "default" && !name.starts_with('#')) {
        let is_there = rows.iter().any(|row| row.contains(&format!("`{feature}`")));
        assert!(is_there, "the table of features in crates/batchsql/README.md has no `{feature}`");
    }
}

#[test]
fn the_index_of_the_docs_has_every_page_and_no_other() {
    let docs = Path::new(ROOT).join("docs");
    let index = read("docs/README.md");
    let links = links(&index);
    for link in &links {
        assert!(docs.join(link).exists(), "{link} is not there");
    }
    for page in std::fs::read_dir(&docs).expect("the workspace has docs") {
        let page = page.expect("the folder can be read").file_name().into_string().expect("names are UTF-8");
        let is_listed = !page.ends_with(".md") || page == "README.md" || links.contains(&page);
        assert!(is_listed, "docs/README.md does not list {page}");
    }
}

#[test]
fn every_guide_is_listed_and_tested_and_its_links_exist() {
    let guides = Path::new(ROOT).join("docs/guides");
    let listed = links(&read("docs/guides/README.md"));
    // Those of the program have commands in place of Rust, and its tests execute them.
    let tested = [read("crates/batchsql/src/lib.rs"), read("crates/batchsql-server/tests/it/guides.rs")];
    for page in std::fs::read_dir(&guides).expect("there are guides") {
        let name = page.expect("the folder can be read").file_name().into_string().expect("names are UTF-8");
        check_links(&guides, &read(&format!("docs/guides/{name}")));
        if name != "README.md" {
            assert!(listed.contains(&name), "docs/guides/README.md does not list {name}");
            let is_tested = tested.iter().any(|tests| tests.contains(&format!("docs/guides/{name}")));
            assert!(is_tested, "no test has the examples of {name}");
        }
    }
}
