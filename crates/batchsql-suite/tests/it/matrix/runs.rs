//! The suite's program against servers: every case, and the messages if a server is not available.

use std::process::Command;

use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Redis};
use batchsql_testserver::{Kind, Server};
use serde_json::Value;

use super::servers::on;

const VARIABLES: [&str; 3] = ["POSTGRES_DSN", "MYSQL_DSN", "REDIS_DSN"];

/// The output and the report of a run.
struct Run {
    code: Option<i32>,
    output: String,
    report: Option<Value>,
}

fn run(database: &str, variable: &str, dsn: Option<&str>, args: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql-suite"));
    for name in VARIABLES {
        command.env_remove(name);
    }
    command.args(["--db", database, "--metrics-port", "0", "--report-dir"]).arg(folder.path()).args(args);
    command.envs(dsn.map(|dsn| (variable, dsn)));
    let output = command.env_remove("RUST_LOG").output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let report = std::fs::read_to_string(folder.path().join("report.json")).ok();
    Run { code: output.status.code(), output: text, report: report.map(|json| serde_json::from_str(&json).unwrap()) }
}

fn variable(name: DatabaseName) -> &'static str {
    match name {
        Postgres => "POSTGRES_DSN",
        Mysql => "MYSQL_DSN",
        _ => "REDIS_DSN",
    }
}

async fn every_case_passes(name: DatabaseName, dsn: String) {
    let small = ["--workers", "4", "--records-per-worker", "600", "--batch-size", "100"];
    let run = tokio::task::spawn_blocking({
        let dsn = dsn.clone();
        move || run(name.name(), variable(name), Some(&dsn), &small)
    });
    let run = run.await.unwrap();
    assert_eq!(run.code, Some(0), "{}", run.output);
    let report = run.report.unwrap();
    assert_eq!(report["summary"]["passed"], 10, "{report}");
    let database = &report["environment"]["databases"][0];
    assert_eq!(database["name"], name.name());
    assert!(database["version"].as_str().unwrap().starts_with(|c: char| c.is_ascii_digit()), "{database}");
    // No user, password or host.
    let everything = format!("{}{report}", run.output);
    let (_, authority) = dsn.split_once("://").unwrap();
    assert!(!everything.contains(authority), "{everything}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_passes_on_postgres() {
    on(Postgres, async |own| every_case_passes(Postgres, own.dsn.clone().unwrap()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_passes_on_mysql() {
    on(Mysql, async |own| every_case_passes(Mysql, own.dsn.clone().unwrap()).await).await;
}

/// On its own server, because the suite's keys have fixed names.
#[tokio::test(flavor = "multi_thread")]
async fn every_case_passes_on_redis() {
    let server = Server::start(Kind::Redis, &[]);
    every_case_passes(Redis, server.dsn().to_owned()).await;
}

#[test]
fn a_server_that_cannot_be_had_ends_the_run_before_its_first_row() {
    let check = |name: DatabaseName, dsn: Option<&str>, parts: &[&str]| {
        let run = run(name.name(), variable(name), dsn, &[]);
        assert_eq!(run.code, Some(2), "{}", run.output);
        parts.iter().for_each(|part| assert!(run.output.contains(part), "{part:?} is not in {}", run.output));
        assert!(!run.output.contains("hunter2"), "{}", run.output);
        assert!(run.report.is_none());
    };
    for name in [Postgres, Mysql, Redis] {
        check(name, None, &[&format!("set {}", variable(name)), &format!("--db {}", name.name())]);
        check(name, Some("sqlite://u:hunter2@h/db"), &[variable(name), "\"sqlite\""]);
    }
    // No server listens on port 1.
    check(Postgres, Some("postgres://u:hunter2@127.0.0.1:1/db"), &["POSTGRES_DSN", "127.0.0.1"]);
    check(Mysql, Some("mysql://u:hunter2@127.0.0.1:1/db"), &["MYSQL_DSN", "127.0.0.1"]);
    check(Redis, Some("redis://u:hunter2@127.0.0.1:1"), &["REDIS_DSN", "127.0.0.1"]);
}
