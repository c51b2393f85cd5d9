//! The program, as users and xtask run it.

use std::process::{Command, Output};

use crate::tree::{DASHBOARD, Tree, root};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_batchsql-monitoring")).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn findings_are_told_and_fail_the_program() {
    let tree = Tree::copy();
    tree.edit(DASHBOARD, "batchsql_parked_tables", "batchsql_parked_table");
    let output = run(&["lint", "--root", tree.path("").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    let line = format!(
        "{DASHBOARD}: panel \"Parked Tables\": there is no metric batchsql_parked_table; did you mean batchsql_parked_tables?"
    );
    assert!(text.contains(&line), "{text}");
    assert!(text.contains(": 1 findings"), "{text}");
}

#[test]
fn the_wrong_folder_is_no_success() {
    let output = run(&["lint", "--root", "/nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("/nowhere/monitoring is not a folder; pass the root of the repository with --root"));
}

#[test]
fn a_prometheus_that_does_not_answer_is_named() {
    let dashboard = root().join(DASHBOARD);
    // The port of a closed listener.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let output = run(&["panels", "--prometheus", &url, "--dashboard", dashboard.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(text.contains(&format!("no Prometheus answers at {url}")) && text.contains("--prometheus"), "{text}");
    let output = run(&["panels", "--dashboard", "/nowhere.json"]);
    assert!(super::program::text(&output).contains("pass its path with --dashboard"));
}
