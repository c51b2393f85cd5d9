//! Checks of the README: its example is the doctest of this crate, and its links exist.

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn readme() -> String {
    std::fs::read_to_string(format!("{ROOT}/README.md")).expect("the workspace has a README")
}

#[test]
fn the_readme_shows_the_example_that_is_tested() {
    let example = include_str!("../../example.md");
    assert!(readme().contains(example), "copy crates/batchsql/example.md into README.md");
}

#[test]
fn what_the_readme_links_to_is_there() {
    let readme = readme();
    let links: Vec<&str> = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() >= 4, "{links:?}");
    for link in links.into_iter().filter(|link| !link.starts_with("http")) {
        assert!(std::path::Path::new(ROOT).join(link).exists(), "{link} is not there");
    }
}

#[test]
fn the_index_of_the_docs_has_every_page_and_no_other() {
    let docs = std::path::Path::new(ROOT).join("docs");
    let index = std::fs::read_to_string(docs.join("README.md")).expect("the docs have an index");
    let links: Vec<&str> = index.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    for link in &links {
        assert!(docs.join(link).exists(), "{link} is not there");
    }
    for page in std::fs::read_dir(&docs).expect("the workspace has docs") {
        let page = page.expect("the folder can be read").file_name().into_string().expect("names are UTF-8");
        let is_listed = !page.ends_with(".md") || page == "README.md" || links.contains(&&*page);
        assert!(is_listed, "docs/README.md does not list {page}");
    }
}
