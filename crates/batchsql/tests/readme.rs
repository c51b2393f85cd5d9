//! The example of the README is the doctest of this crate.

#[test]
fn the_readme_shows_the_example_that_is_tested() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let readme = std::fs::read_to_string(format!("{root}/README.md")).expect("the workspace has a README");
    let example = include_str!("../example.md");
    assert!(readme.contains(example), "copy crates/batchsql/example.md into README.md");
}
