//! The example `durable_log`, run as a program: what it prints and how it ends, for whole, damaged, foreign and used folders.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use batchsql_core::{
    Action, ColumnType, Conflict, DeadLetterLine, ErrorClass, Expr, OutcomeKind, Schema, TableName, Value, ValueRef,
};
use batchsql_durable::DurableBatchSql;
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{LONG, keyed, options, plain, row, start};

/// How a run has ended: the exit code, standard output, standard error.
type Ended = (i32, String, String);

/// Cargo does not show tests the path of examples, and builds them only when neither a kind of target nor a name of a test is
/// given: then build it first, or this runs an old one.
fn run(arguments: &[&str]) -> Ended {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).expect("tests are in target/…/deps").join("examples/durable_log");
    let advice = "build it with `cargo build -p batchsql-durable --examples`";
    assert!(program.exists(), "{} is not there; {advice}", program.display());
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run_on(verb: &str, folder: &Path) -> Ended {
    run(&[verb, folder.to_str().unwrap()])
}

/// An intake whose database is unreachable.
async fn stranded(folder: &Path) -> DurableBatchSql {
    let sink = ScriptedSink::new();
    sink.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
    start(&sink, options(folder)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_are_exported_with_their_values_and_without_a_schema() {
    let dir = tempfile::tempdir().unwrap();
    // SQL text in the rule: the program would be needed to write the rows, but not to see them.
    let rule = Conflict::update(["id"]).set("n", Expr::raw("{old} + {new}")).may_add_twice();
    let odd = Schema::builder(TableName::qualified("audit", "odd \"name\""))
        .column("id", ColumnType::U64)
        .column("n", ColumnType::Decimal)
        .nullable("note", ColumnType::Text)
        .on_conflict(rule)
        .build()
        .unwrap();
    // Three rows are written; later ones wait.
    let db = start(&ScriptedSink::new(), options(dir.path())).await.unwrap();
    for version in 0..3 {
        db.submit(&row(&keyed(), 1, version)).await.unwrap();
    }
    db.flush().await.unwrap();
    db.close(LONG).await;
    let db = stranded(dir.path()).await;
    db.submit_all((3..8).map(|version| row(&keyed(), 1, version))).await.unwrap();
    let values = [Value::U64(u64::MAX), Value::Decimal("-1.50".parse().unwrap()), Value::Text("a\nb é".into())];
    db.submit(&odd.row().set_all(values).unwrap().finish().unwrap()).await.unwrap();
    let gone = odd.row().set_all([Value::U64(2), Value::Decimal("0".parse().unwrap()), Value::Null]).unwrap();
    db.submit(&gone.finish().unwrap()).await.unwrap();
    let source = db.recovered().clone();
    assert!(source.is_clean);
    assert_eq!(db.close(Duration::ZERO).await.left_in_log, 7);

    let before = listing(dir.path());
    let (code, printed, said) = run_on("export", dir.path());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("7 rows\n") && said.contains("nothing is damaged or missing"), "{said}");
    let lines: Vec<DeadLetterLine> = printed.lines().map(|line| line.parse().unwrap()).collect();
    let versions: Vec<_> = lines
        .iter()
        .filter(|line| line.table().name() == "keyed")
        .map(|line| line.row(&keyed()).unwrap().get("version").map(|value| value == ValueRef::I64(3)))
        .collect();
    assert_eq!(
        versions,
        [Some(true), Some(false), Some(false), Some(false), Some(false)],
        "in order, from the fourth on"
    );
    let odds: Vec<_> = lines.iter().filter(|line| line.table() == odd.table()).collect();
    assert_eq!(odds.len(), 2, "{printed}");
    assert!(odds.iter().all(|line| line.action() == Action::Update && line.outcome() == OutcomeKind::Unknown));
    let plain_rule = Schema::builder("t")
        .column("id", ColumnType::U64)
        .column("n", ColumnType::Decimal)
        .nullable("note", ColumnType::Text)
        .on_conflict(Conflict::ignore(["id"]))
        .build()
        .unwrap();
    let read = odds.iter().map(|line| line.row(&plain_rule).unwrap());
    let row = read.into_iter().find(|row| row.get("id") == Some(ValueRef::U64(u64::MAX))).expect("the row is there");
    assert_eq!(row.get("note"), Some(ValueRef::Text("a\nb é")));
    assert_eq!(row.get("n"), Some(ValueRef::Decimal("-1.50")));
    assert!(printed.lines().all(|line| line.contains("\"id\":\"")), "each line has its id");
    assert_eq!(listing(dir.path()), before, "nothing was changed");

    // Rows that have ended are there for as long as their file.
    let (code, all, said) = run(&["export", dir.path().to_str().unwrap(), "--all"]);
    assert!(code == 0 && said.contains("rows\n"), "{said}");
    assert!(printed.lines().all(|line| all.lines().any(|other| other == line)), "{all}");
    assert_eq!(run(&["verify", dir.path().to_str().unwrap(), "--all"]).0, 2, "only an export has it");

    // The folder of the log itself will do.
    assert_eq!(run_on("export", &dir.path().join("log")).1, printed);

    let (code, printed, said) = run_on("inspect", dir.path());
    assert_eq!((code, printed.contains("8 partitions per table")), (0, true), "{printed}{said}");
    assert!(printed.contains(": 5 rows wait; settled up to 3, next row 9"), "{printed}");
    assert!(printed.contains("\"audit\".\"odd \"\"name\"\"\""), "{printed}");
    let (code, printed, said) = run_on("verify", dir.path());
    assert_eq!((code, &*printed), (0, ""));
    assert!(said.contains("nothing is damaged or missing"), "{said}");
}

/// Names and bytes of the files of the log.
fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder.join("log")).unwrap().map(|file| file.unwrap());
    let mut files: Vec<_> = files
        .filter(|file| file.file_type().unwrap().is_file())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_refused_unless_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let db = stranded(dir.path()).await;
    db.submit(&row(&keyed(), 1, 1)).await.unwrap();
    for verb in ["inspect", "verify", "export"] {
        let (code, printed, said) = run_on(verb, dir.path());
        assert_eq!((code, &*printed), (2, ""), "{verb}");
        assert!(said.starts_with("error: ") && said.contains("is used by a program; stop the program first"), "{said}");
    }
    let (code, printed, said) = run(&["export", dir.path().to_str().unwrap(), "--in-use"]);
    assert_eq!((code, printed.lines().count()), (0, 1), "{said}");
    // It has locked nothing.
    db.submit(&row(&keyed(), 1, 2)).await.unwrap();
    db.close(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_are_no_log_are_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| dir.path().join(name);
    fs::create_dir(folder("empty")).unwrap();
    fs::create_dir(folder("foreign")).unwrap();
    fs::write(folder("foreign").join("letter.txt"), "dear").unwrap();
    start(&ScriptedSink::new(), options(&folder("newer"))).await.unwrap().close(LONG).await;
    let identity = folder("newer").join("log/IDENTITY");
    let text = fs::read_to_string(&identity).unwrap();
    let (title, rest) = text.split_once('\n').unwrap();
    let (title, body) = (title.rsplit_once(' ').unwrap().0, rest.rsplit_once("crc ").unwrap().0);
    let newer = format!("{title} 99\n{body}");
    let checksum = crc32fast::hash(newer.as_bytes());
    fs::write(&identity, format!("{newer}crc {checksum:08x}\n")).unwrap();
    start(&ScriptedSink::new(), options(&folder("torn"))).await.unwrap().close(LONG).await;
    fs::write(folder("torn").join("log/IDENTITY"), "what").unwrap();
    for (name, advice) in [
        ("missing", "has no log: there is no file IDENTITY in it"),
        ("empty", "has no log: there is no file IDENTITY in it"),
        ("foreign", "has no log: there is no file IDENTITY in it"),
        ("newer", "has version 99 of the format, this program reads up to version 2; use a newer program"),
        ("torn", "IDENTITY"),
    ] {
        for verb in ["inspect", "verify", "export"] {
            let (code, printed, said) = run_on(verb, &folder(name));
            assert_eq!((code, &*printed), (2, ""), "{verb} {name}: {said}");
            assert!(said.starts_with("error: ") && said.contains(advice), "{verb} {name}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    assert!(!folder("missing").exists());
    assert_eq!(fs::read_dir(folder("foreign")).unwrap().count(), 1, "no lock file was made");
}

#[test]
fn wrong_words_get_the_usage() {
    for words in [&[][..], &["export"], &["remove", "folder"], &["export", "a", "b"], &["export", "a", "--force"]] {
        let (code, printed, said) = run(words);
        assert_eq!((code, &*printed), (2, ""), "{words:?}");
        assert!(said.starts_with("usage: durable_log inspect|verify|export FOLDER"), "{said}");
    }
    let (code, printed, said) = run(&["--help"]);
    assert_eq!((code, &*said), (0, ""));
    assert!(printed.starts_with("usage: ") && printed.contains("with their values"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_reported_and_the_other_rows_are_exported() {
    let dir = tempfile::tempdir().unwrap();
    const MARK: i64 = 0x1122_3344_5566_7788;
    for version in [1, MARK, 3] {
        let db = stranded(dir.path()).await;
        db.submit(&row(&keyed(), 1, version)).await.unwrap();
        db.submit(&row(&plain(), 1, 0)).await.unwrap();
        db.close(Duration::ZERO).await;
    }
    for (name, mut bytes) in listing(dir.path()) {
        if let Some(place) = bytes.windows(8).position(|window| window == MARK.to_le_bytes()) {
            bytes[place] ^= 1;
            fs::write(dir.path().join("log").join(name), bytes).unwrap();
        }
    }
    let before = listing(dir.path());
    for verb in ["inspect", "verify", "export"] {
        let (code, printed, said) = run_on(verb, dir.path());
        assert_eq!(code, 1, "{verb}: {said}");
        assert!(said.contains("damaged: ") && said.contains("the log is damaged"), "{said}");
        assert!(said.contains("missing: rows 2 to 2 of \"keyed\", partition "), "{said}");
        assert!(!said.contains(&MARK.to_string()), "no values in errors");
        if verb == "export" {
            assert_eq!(printed.lines().filter(|line| line.contains("\"table\":\"keyed\"")).count(), 2, "{printed}");
            assert_eq!(printed.lines().filter(|line| line.contains("\"table\":\"plain\"")).count(), 3, "{printed}");
        }
    }
    assert_eq!(listing(dir.path()), before, "nothing was cut or quarantined");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_segment_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let db = stranded(dir.path()).await;
    db.submit(&row(&keyed(), 1, 1)).await.unwrap();
    db.close(Duration::ZERO).await;
    let name = format!("{:020}.seg", 99);
    for (content, start) in [("", "removes it"), ("BSQLLOG", "moves it to the folder quarantine")] {
        fs::write(dir.path().join("log").join(&name), content).unwrap();
        let before = listing(dir.path());
        for verb in ["inspect", "verify", "export"] {
            let (code, _, said) = run_on(verb, dir.path());
            assert_eq!(code, 1, "{verb}: {said}");
            assert!(said.contains(&format!("unfinished: {name} has {} bytes", content.len())), "{said}");
            assert!(said.contains(&format!("a start {start}")) && said.contains("rows are missing if "), "{said}");
        }
        assert_eq!(listing(dir.path()), before);
    }
}
