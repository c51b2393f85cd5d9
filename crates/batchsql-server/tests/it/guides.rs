//! The commands of the guides are executed, in their order, in one shell: a block of `sh` is a script, a block of
//! `toml file=NAME` is a file, a block of `text` has lines that the script before it must print. A block with `ignore` is not for a
//! test. A script with `feature=NAME` is left out, with its output, if the program was built without this feature.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::program::Place;

#[derive(Debug)]
enum Block {
    File(String, String),
    Script(String),
    Output(String),
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = guide.lines();
    let mut is_left_out = false;
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let body: String =
            lines.by_ref().take_while(|line| *line != "```").fold(String::new(), |text, line| text + line + "\n");
        match kind.split_once(' ').unwrap_or((kind, "")) {
            ("toml", name) => blocks.push(Block::File(name.strip_prefix("file=").unwrap().to_owned(), body)),
            ("sh" | "text", "ignore") => {}
            // Those of the library are tests of its crate.
            ("rust,no_run", _) => {}
            ("sh", "feature=arrow") if cfg!(not(feature = "arrow")) => is_left_out = true,
            ("text", _) if is_left_out => {}
            ("sh", _) => {
                is_left_out = false;
                blocks.push(Block::Script(body));
            }
            ("text", _) => blocks.push(Block::Output(body)),
            other => panic!("what is a block of {other:?}?"),
        }
    }
    blocks
}

/// Executes a guide in an empty folder, with these variables.
fn execute(guide: &str, variables: &[(&str, &str)]) {
    for (program, required) in [("curl", "BATCHSQL_REQUIRE_CURL"), ("sqlite3", "BATCHSQL_REQUIRE_SQLITE3")] {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if found.is_err() {
            assert!(std::env::var_os(required).is_none(), "the guides use {program}: install it");
            eprintln!("skipped: the guides use {program}, which is not here; `cargo xtask test` installs it");
            return;
        }
    }
    let place = Place::new();
    #[cfg(feature = "arrow")]
    place.write("orders.parquet", crate::load_batches::orders_of_the_guide());
    // As in a terminal, background jobs have a number; they are killed at the end.
    let mut script = "set -euo pipefail -m\ntrap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    let mut expected: Vec<Vec<String>> = Vec::new();
    for block in blocks(guide) {
        match block {
            Block::File(name, body) => write!(script, "cat > {name} <<'END_OF_FILE'\n{body}END_OF_FILE\n").unwrap(),
            Block::Script(body) => {
                write!(script, "echo '=== {}'\n{body}", expected.len()).unwrap();
                expected.push(Vec::new());
            }
            Block::Output(body) => expected.last_mut().unwrap().extend(body.lines().map(str::to_owned)),
        }
    }
    assert!(expected.iter().flatten().count() > 2, "the guide shows what its commands print");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = Path::new(env!("CARGO_BIN_EXE_batchsql")).parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap();
    let mut bash = Command::new("timeout");
    bash.args(["180", "bash", "-c", &script]).current_dir(place.folder()).stdin(Stdio::null());
    bash.env("PATH", format!("{program}:{path}")).env("PORT", port.to_string());
    let ran = bash.envs(variables.iter().copied()).output().unwrap();
    let ran = crate::program::Ran(ran);
    assert_eq!(ran.code(), 0, "{}", ran.all());
    let out = ran.out();
    let parts: Vec<&str> = out.split("=== ").skip(1).collect();
    for (part, lines) in parts.iter().zip(&expected) {
        for line in lines {
            assert!(part.contains(line.as_str()), "{line:?} is not in the output {part}\n{}", ran.err());
        }
    }
    assert_eq!(parts.len(), expected.len());
}

#[test]
fn run_as_a_service() {
    execute(include_str!("../../../../docs/guides/run-as-a-service.md"), &[]);
}

#[test]
fn load_a_file() {
    execute(include_str!("../../../../docs/guides/load-a-file.md"), &[]);
}

#[cfg(feature = "nats")]
#[test]
fn from_one_machine_to_many() {
    // Its stream has an ordinary name.
    let server = batchsql_testserver::Server::start(batchsql_testserver::Kind::Nats, &[]);
    execute(include_str!("../../../../docs/guides/from-one-machine-to-many.md"), &[("NATS_URL", server.dsn())]);
}
