//! Dead-letter files that are read again: lines, positions, and replays that go on where they were cut off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use batchsql_core::{
    Action, BatchSql, ColumnType, Conflict, DeadLetterLine, DeadLetterReader, DeadLetters, Delete, DynRow, ErrorClass,
    Json, NotReplayed, OutcomeKind, Replay, ReplayError, ReplayMark, Row, Schema, TableName, Value, ValueRef,
};
use batchsql_testkit::ScriptedSink;
use tokio::sync::Notify;

use crate::support::{HOUR, config, id, ids, pipeline, plain, row, table};

/// A dead-letter file with these rows, which were all refused.
async fn letters(rows: &[DynRow]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("failed.ndjson");
    let sink = ScriptedSink::new();
    sink.poison(|_| true);
    let builder = BatchSql::builder(sink).config(config());
    let db = builder.dead_letters(DeadLetters::file(&path).unwrap()).start().unwrap();
    db.submit_all(rows).await.unwrap();
    assert_eq!(db.close(HOUR).await.lost_letters, 0);
    (folder, path)
}

fn read(path: &Path) -> Vec<DeadLetterLine> {
    DeadLetterReader::open(path).unwrap().map(|entry| entry.unwrap().1.unwrap()).collect()
}

fn mark_of(path: &Path) -> PathBuf {
    path.with_file_name("failed.ndjson.mark")
}

type RowOf = Result<Option<DynRow>, Box<dyn std::error::Error + Send + Sync>>;

fn any(letter: &DeadLetterLine) -> RowOf {
    Ok(Some(letter.row(&plain())?))
}

#[tokio::test]
async fn a_line_becomes_the_row_that_it_was() {
    let schema = Schema::builder(TableName::qualified("a.b", "c"))
        .column("id", ColumnType::U64)
        .column("document", ColumnType::Json)
        .nullable("at", ColumnType::TimestampTz)
        .nullable("left out", ColumnType::Text)
        .build()
        .unwrap();
    let documents = ["{\"n\": 18446744073709551617,\n \"n\": 1e400}", "null", "\"text\""];
    let rows: Vec<DynRow> = documents
        .iter()
        .map(|document| {
            let document: Json = document.parse().unwrap();
            let row = schema.row().set("id", u64::MAX).unwrap().set("document", document).unwrap();
            row.set("at", Value::Null).unwrap().finish().unwrap()
        })
        .collect();
    let (_folder, path) = letters(&rows).await;
    let lines = read(&path);
    for (line, row) in lines.iter().zip(&rows) {
        assert_eq!((line.table(), line.outcome()), (schema.table(), OutcomeKind::Rejected));
        assert_eq!((line.class(), line.code()), (Some(ErrorClass::Row), Some("poison")));
        assert!(line.attempts() > 1 && line.error().is_some() && line.time().to_string().starts_with("20"));
        let again = line.row(&schema).unwrap();
        assert_eq!(again.schema().columns().len(), 3, "a column that was left out stays left out");
        assert_eq!(again.get("id"), row.get("id"));
        assert_eq!(again.get("at"), Some(ValueRef::Null));
        let document = |row: &DynRow| match row.get("document") {
            Some(ValueRef::Json(text)) => text.replace(['\n', ' '], ""),
            other => panic!("{other:?}"),
        };
        assert_eq!(document(&again), document(row));
        assert!(!format!("{line:?}").contains("18446744073709551615"), "no value in {line:?}");
    }
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn a_row_is_typed_by_the_schema_of_today() {
    let (_folder, path) = letters(&[row(&plain(), 7)]).await;
    let line = read(&path).remove(0);
    let table = |id, note| Schema::builder("t").column("id", id).nullable("note", note).build().unwrap();
    let wider = line.row(&table(ColumnType::Decimal, ColumnType::Text)).unwrap();
    assert_eq!(wider.get("id"), Some(ValueRef::Decimal("7")));
    let check = |schema: &Schema, part: &str| {
        let error = line.row(schema).unwrap_err();
        assert!(error.row_error().is_some() && error.to_string().contains(part), "{error}");
    };
    check(&table(ColumnType::I64, ColumnType::Bytes), "column \"note\" expects bytes but got text");
    check(&Schema::builder("t").column("id", ColumnType::I64).build().unwrap(), "column \"note\" is not declared");
}

#[tokio::test]
async fn a_row_keeps_its_action() {
    let rule_of = |action| match action {
        Action::Insert => Conflict::none(),
        Action::Ignore => Conflict::ignore(["id"]),
        Action::Replace => Conflict::replace(["id"]),
        Action::Update => Conflict::update(["id"]),
        Action::UpdateOnly => Conflict::update_only(["id"]),
        Action::Delete => Conflict::delete(["id"]),
    };
    let schema_of = |action| match action {
        Action::Delete => table("t", Conflict::ignore(["id"])).deletion().unwrap(),
        _ => table("t", rule_of(action)),
    };
    let row_of = |action| match action {
        Action::Delete => schema_of(action).row().set("id", 7_i64).unwrap().finish().unwrap(),
        _ => row(&schema_of(action), 7),
    };
    let kind_of = |action| match action {
        Action::Delete => 0,
        Action::UpdateOnly => 1,
        _ => 2,
    };
    for action in Action::ALL {
        let (_folder, path) = letters(&[row_of(action)]).await;
        let line = read(&path).remove(0);
        assert_eq!(line.action(), action);
        for other in Action::ALL {
            let again = line.row(&schema_of(other));
            assert_eq!(again.is_ok(), kind_of(action) == kind_of(other), "{action:?} as {other:?}");
            if let Err(error) = again {
                let text = error.to_string();
                let names = text.contains(action.name()) && text.contains(other.name());
                assert!(names && text.contains("; use ") && error.row_error().is_none(), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn a_delete_is_replayed_as_a_delete() {
    let schema = table("t", Conflict::update(["id"]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("failed.ndjson");
    let failing = ScriptedSink::new();
    failing.poison(|_| true);
    let builder = BatchSql::builder(failing).config(config());
    let db = builder.dead_letters(DeadLetters::file(&path).unwrap()).start().unwrap();
    db.submit(&Delete::of(&row(&schema, 7)).unwrap()).await.unwrap();
    assert_eq!(db.close(HOUR).await.balance.rejected(), 1);

    let (db, sink) = pipeline(config());
    db.submit_all((7..9).map(|id| row(&schema, id))).await.unwrap();
    let wrong = Replay::new(&path).run(&db, |letter| Ok(Some(letter.row(&schema)?))).await.unwrap();
    assert!(wrong.failed[0].reason.to_string().contains("schema.deletion()"), "{wrong:?}");
    let deletes = schema.deletion().unwrap();
    let report = Replay::new(&path)
        .run(&db, |letter| Ok(Some(letter.row(if letter.action() == Action::Delete { &deletes } else { &schema })?)))
        .await
        .unwrap();
    assert_eq!((report.counts.get(OutcomeKind::Written), report.is_complete()), (1, true));
    let left: Vec<_> = sink.tables().rows("t").iter().map(|row| row["id"].clone()).collect();
    assert_eq!(left, [Value::I64(8)]);
}

#[test]
fn what_is_no_letter_is_an_error_with_a_reason_and_without_values() {
    let letter = r#"{"version":1,"time":"2026-11-23T03:09:28.000000Z","outcome":"expired","table":"t","action":"insert","attempts":0,
        "row":{"secret":7},"types":{"secret":"i64"}}"#;
    let sound: DeadLetterLine = letter.parse().unwrap();
    assert_eq!((sound.outcome(), sound.code(), sound.attempts()), (OutcomeKind::Expired, None, 0));
    let check = |from: &str, to: &str, part: &str| {
        assert!(letter.contains(from));
        let error = letter.replacen(from, to, 1).parse::<DeadLetterLine>().unwrap_err();
        assert!(error.to_string().contains(part) && error.row_error().is_none(), "{error}");
    };
    check("{\"version\":1,", "", "not a JSON object");
    check("\"version\":1", "\"version\":2", "its version is 2");
    check("\"version\":1,", "", "it has no version");
    check("expired", "eaten", "\"outcome\" is missing or invalid");
    check("\"insert\"", "\"upsert\"", "\"action\" is missing or invalid");
    check("\"action\":\"insert\",", "", "\"action\" is missing or invalid");
    check("03:09:28", "3:09:28", "\"time\" is missing or invalid");
    check("\"attempts\":0", "\"attempts\":-1", "\"attempts\" is missing or invalid");
    check("{\"secret\":7}", "7", "\"row\" is missing or invalid");
    check("\"i64\"", "\"i65\"", "column \"secret\" has no known type");
    check("}}", "}} x", "not a JSON object");
    let schema = Schema::builder("t").column("secret", ColumnType::I64).build().unwrap();
    let error = letter.replacen(":7", ":\"x7\"", 1).parse::<DeadLetterLine>().unwrap().row(&schema).unwrap_err();
    assert!(error.to_string().contains("column \"secret\" holds no i64") && !error.to_string().contains("x7"));
}

#[tokio::test]
async fn a_line_that_is_not_complete_is_the_end_until_it_is() {
    let (_folder, path) = letters(&[row(&plain(), 1), row(&plain(), 2)]).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let (half, rest) = text.split_at(text.len() - 10);
    std::fs::write(&path, half).unwrap();
    let mut reader = DeadLetterReader::open(&path).unwrap();
    assert!(reader.next().is_some() && reader.next().is_none() && reader.next().is_none());
    let position = reader.position();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, rest.as_bytes()).unwrap();
    for mut reader in [reader, DeadLetterReader::open_at(&path, position).unwrap()] {
        let (at, line) = reader.next().unwrap().unwrap();
        assert_eq!((at, id(&line.unwrap().row(&plain()).unwrap())), (position, 2));
        assert!(reader.next().is_none());
    }
    let error = DeadLetterReader::open_at(&path, position + 1).unwrap_err();
    assert!(error.to_string().contains("not the same file"), "{error}");
    assert!(DeadLetterReader::open_at(&path, 1 << 40).is_err());
}

#[tokio::test]
async fn a_line_that_a_crash_has_torn_takes_no_other_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("failed.ndjson");
    let fail = async |id: i64| {
        let sink = ScriptedSink::new();
        sink.poison(|_| true);
        let builder = BatchSql::builder(sink).config(config());
        let db = builder.dead_letters(DeadLetters::file(&path).unwrap()).start().unwrap();
        db.submit(&row(&plain(), id)).await.unwrap();
        assert_eq!(db.close(HOUR).await.lost_letters, 0);
    };
    for id in 1..4 {
        fail(id).await;
    }
    let whole = std::fs::read_to_string(&path).unwrap();
    assert_eq!(whole.lines().count(), 3, "no empty line where none is torn");
    std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    fail(4).await;
    let entries: Vec<_> = DeadLetterReader::open(&path).unwrap().map(|entry| entry.unwrap().1).collect();
    let ids: Vec<_> =
        entries.iter().map(|line| line.as_ref().map(|line| id(&line.row(&plain()).unwrap())).ok()).collect();
    assert_eq!(ids, [Some(1), Some(2), None, Some(4)]);
}

/// An earlier version has noted them as lines that failed.
#[tokio::test]
async fn the_line_behind_an_empty_one_is_not_replayed_in_its_place() {
    let (_folder, path) = letters(&[row(&plain(), 1), row(&plain(), 2)]).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let first = text.find('\n').unwrap() + 1;
    std::fs::write(&path, format!("{} \r\n{}\n", &text[..first], &text[first..])).unwrap();
    assert_eq!(read(&path).len(), 2);
    let mut mark = ReplayMark::open(&path, mark_of(&path)).unwrap();
    mark.advance(std::fs::metadata(&path).unwrap().len()).unwrap();
    mark.note(first as u64, false);
    mark.note(text.len() as u64 + 3, false);
    mark.write().unwrap();
    drop(mark);
    let (db, sink) = pipeline(config());
    let report = Replay::new(&path).run(&db, any).await.unwrap();
    assert_eq!((report.counts.total(), report.is_complete(), sink.applied().len()), (0, true, 0));
    Replay::new(&path).delete().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_replay_that_was_cut_off_goes_on_where_it_was() {
    let all: Vec<DynRow> = (0..2500).map(|id| row(&plain(), id)).collect();
    let (_folder, path) = letters(&all).await;
    let (db, sink) = pipeline(config());
    let (mut seen, cut) = (0, Arc::new(Notify::new()));
    let stop = Arc::clone(&cut);
    let first = Replay::new(&path).run(&db, move |letter| {
        seen += 1;
        if seen == 1500 {
            stop.notify_one();
        }
        any(letter)
    });
    tokio::select! {
        biased;
        () = cut.notified() => {}
        report = first => panic!("not cut off: {report:?}"),
    }
    let mut seen = 0;
    let count = |letter: &DeadLetterLine| {
        seen += 1;
        any(letter)
    };
    let report = Replay::new(&path).run(&db, count).await.unwrap();
    assert_eq!((report.counts.get(OutcomeKind::Written), report.is_complete()), (1500, true));
    assert_eq!(seen, 1500, "the first 1000 lines were replayed before");
    let mut written = ids(&sink.applied());
    written.sort_unstable();
    assert!(written[..1000].iter().copied().eq(0..1000), "rows before the mark are submitted once");
    written.dedup();
    assert!(written.into_iter().eq(0..2500), "no row is left out");
    assert_eq!(Replay::new(&path).run(&db, any).await.unwrap().counts.total(), 0, "nothing is left");
}

#[tokio::test]
async fn lines_that_fail_again_are_kept_for_the_next_replay() {
    let all: Vec<DynRow> = (0..20).map(|id| row(&plain(), id)).collect();
    let (_folder, path) = letters(&all).await;
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.insert_str(0, "half a line\n");
    std::fs::write(&path, text).unwrap();
    let (db, sink) = pipeline(config());
    sink.poison(|row| id(row) == 3);
    let huge = "x".repeat(64 << 20);
    let first = |letter: &DeadLetterLine| -> RowOf {
        let row = letter.row(&plain())?;
        match id(&row) {
            5 => Ok(None),
            7 => Err("not today".into()),
            9 => Ok(Some(row.edit().set("note", huge.clone())?.finish()?)),
            _ => Ok(Some(row)),
        }
    };
    let report = Replay::new(&path).run(&db, first).await.unwrap();
    assert_eq!((report.counts.get(OutcomeKind::Written), report.skipped, report.is_complete()), (16, 1, false));
    assert!(!report.is_handed_on(), "some lines were never submitted");
    let mut reasons: Vec<_> = report.failed.iter().map(|failure| (failure.position, &failure.reason)).collect();
    reasons.sort_by_key(|(position, _)| *position);
    let [(0, NotReplayed::Unreadable(_)), (_, failed), (_, no_row), (_, refused)] = reasons.as_slice() else {
        panic!("{reasons:?}")
    };
    assert!(matches!(failed, NotReplayed::Failed(outcome) if outcome.kind() == OutcomeKind::Rejected));
    assert_eq!(no_row.to_string(), "not today");
    assert!(matches!(refused, NotReplayed::Refused(error) if error.row_error().unwrap().is_too_large()));

    sink.poison(|_| false);
    let report = Replay::new(&path).run(&db, any).await.unwrap();
    assert_eq!((report.counts.get(OutcomeKind::Written), report.failed.len()), (3, 1), "only those that failed");
    let mut written = ids(&sink.applied());
    written.sort_unstable();
    assert_eq!(written, (0..20).filter(|id| *id != 5).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_file_whose_rows_are_in_another_one_is_deleted_with_its_mark() {
    let all: Vec<DynRow> = (0..20).map(|id| row(&plain(), id)).collect();
    let (folder, path) = letters(&all).await;
    let new = folder.path().join("new.ndjson");
    let sink = ScriptedSink::new();
    sink.poison(|row| id(row) == 3);
    let builder = BatchSql::builder(sink).config(config()).dead_letters(DeadLetters::file(&new).unwrap());
    let db = builder.start().unwrap();
    let replay = Replay::new(&path);
    let report = replay.clone().run(&db, any).await.unwrap();
    assert!(report.is_handed_on() && !report.is_complete());
    assert_eq!(db.close(HOUR).await.lost_letters, 0);
    assert_eq!(read(&new).len(), 1);
    assert!(path.exists() && mark_of(&path).exists());
    replay.clone().delete().await.unwrap();
    assert!(!path.exists() && !mark_of(&path).exists());
    replay.delete().await.expect("both are gone");
    Replay::new(folder.path()).delete().await.expect_err("a folder is no file");
}

#[tokio::test]
async fn a_replay_says_why_it_cannot_go_on() {
    let (_folder, path) = letters(&[row(&plain(), 1)]).await;
    let (db, _) = pipeline(config());
    let run = async |db: &BatchSql| Replay::new(&path).run(db, any).await.unwrap_err();
    std::fs::write(mark_of(&path), r#"{"position":5,"failed":[],"content":0}"#).unwrap();
    assert!(run(&db).await.to_string().contains("not the same file"));
    std::fs::write(mark_of(&path), "7").unwrap();
    assert!(run(&db).await.to_string().contains("delete it to start anew"));
    std::fs::remove_file(mark_of(&path)).unwrap();
    db.close(HOUR).await;
    assert!(matches!(run(&db).await, ReplayError::Submit(error) if error.is_closed()));
    assert!(!mark_of(&path).exists(), "the row is not lost");
    let (db, _) = pipeline(config());
    let elsewhere = path.with_file_name("elsewhere");
    Replay::new(&path).mark(&elsewhere).run(&db, any).await.unwrap();
    assert!(elsewhere.exists() && !mark_of(&path).exists());
}

#[tokio::test]
async fn a_mark_of_another_file_is_refused_and_of_one_that_grew_is_not() {
    let (_folder, path) = letters(&[row(&plain(), 1), row(&plain(), 2)]).await;
    let (db, sink) = pipeline(config());
    let run = async || Replay::new(&path).run(&db, any).await;
    assert!(run().await.unwrap().is_complete());
    let text = std::fs::read_to_string(&path).unwrap();
    let with = |first: &str, second: &str| {
        let id = |id: &str| format!("\"row\":{{\"id\":{id}");
        text.replacen(&id("1"), &id(first), 1).replacen(&id("2"), &id(second), 1)
    };
    std::fs::write(&path, text.clone() + &with("3", "4")).unwrap();
    assert!(run().await.unwrap().is_complete());
    assert_eq!(ids(&sink.applied()), [1, 2, 3, 4]);
    // Of the next day, with the same name and lines of the same length.
    std::fs::write(&path, with("5", "6").repeat(3)).unwrap();
    let error = run().await.unwrap_err().to_string();
    assert!(error.contains("failed.ndjson.mark") && error.contains("delete the mark"), "{error}");
    Replay::new(&path).delete().await.expect_err("it was not replayed");
    std::fs::remove_file(mark_of(&path)).unwrap();
    assert!(Replay::new(&path).delete().await.unwrap_err().to_string().contains("from byte 0 on were not replayed"));
    assert_eq!(run().await.unwrap().counts.get(OutcomeKind::Written), 6);
    Replay::new(&path).delete().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_last_line_without_a_line_feed_is_replayed_if_it_is_complete() {
    let (_folder, path) = letters(&[row(&plain(), 1), row(&plain(), 2)]).await;
    let (db, sink) = pipeline(config());
    let text = std::fs::read_to_string(&path).unwrap();
    let run = async |text: &str| {
        std::fs::write(&path, text).unwrap();
        Replay::new(&path).run(&db, any).await.unwrap()
    };
    let second = text.find('\n').unwrap() as u64 + 1;
    for _ in 0..2 {
        let report = run(&text[..text.len() - 2]).await;
        let [failure] = &*report.failed else { panic!("{report:?}") };
        assert!(failure.position == second && matches!(failure.reason, NotReplayed::Unfinished), "{failure:?}");
        assert!(!report.is_complete() && !report.is_handed_on());
        Replay::new(&path).delete().await.expect_err("its last line was not replayed");
    }
    assert!(run(text.trim_end()).await.is_complete());
    assert_eq!(ids(&sink.applied()), [1, 2]);
    // Its line feed comes, then a line.
    assert!(run(&text).await.is_complete());
    assert!(run(&(text.clone() + &text)).await.is_complete());
    assert_eq!(ids(&sink.applied()), [1, 2, 1, 2]);
    let report = run(&(text.clone() + &text + text.trim_end())).await;
    assert!(report.is_complete() && report.counts.get(OutcomeKind::Written) == 2);
    assert!(run(&text.repeat(3)).await.is_complete());
    Replay::new(&path).delete().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_replay_of_the_file_is_refused() {
    let (_folder, path) = letters(&[row(&plain(), 1), row(&plain(), 2)]).await;
    let (db, sink) = pipeline(config());
    let others = std::cell::RefCell::new(Vec::new());
    // Another one begins while this one has the first row.
    let first = Replay::new(&path).run(&db, |letter| {
        let (path, db) = (path.clone(), db.clone());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let run =
                    runtime.block_on(Replay::new(&path).run(&db, |_| Err("no row".into()))).unwrap_err().to_string();
                (run, runtime.block_on(Replay::new(&path).delete()).unwrap_err().to_string())
            });
            others.borrow_mut().push(other.join().unwrap());
        });
        any(letter)
    });
    assert!(first.await.unwrap().is_complete());
    let others = others.into_inner();
    for error in others.iter().flat_map(|(run, delete)| [run, delete]) {
        assert!(error.contains("another process replays this file"), "{error}");
    }
    assert_eq!((others.len(), ids(&sink.applied())), (2, vec![1, 2]));
    Replay::new(&path).run(&db, any).await.expect("the lock is given up");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_moved_or_replaced_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("failed.ndjson");
    let sink = ScriptedSink::new();
    sink.poison(|_| true);
    let config = config().flush_size(1);
    let db = BatchSql::builder(sink).config(config).dead_letters(DeadLetters::file(&path).unwrap()).start().unwrap();
    let fail = async |id: i64| {
        db.submit(&row(&plain(), id)).await.unwrap();
        db.flush().await.unwrap();
        // The file has a thread of its own.
        while std::fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
            tokio::task::yield_now().await;
        }
    };
    fail(1).await;
    let moved = folder.path().join("failed.1.ndjson");
    std::fs::rename(&path, &moved).unwrap();
    fail(2).await;
    let replaced = folder.path().join("failed.2.ndjson");
    std::fs::rename(&path, &replaced).unwrap();
    std::fs::write(&path, "").unwrap();
    fail(3).await;
    db.close(HOUR).await;
    let ids: [Vec<i64>; 3] =
        [moved, replaced, path].map(|path| read(&path).iter().map(|l| id(&l.row(&plain()).unwrap())).collect());
    assert_eq!(ids, [vec![1], vec![2], vec![3]]);
}
