//! Names of tables and columns on real databases: whatever a database accepts as a quoted name, rows are written there.

use std::time::Duration;

use batchsql::{BatchSql, ColumnType, Conflict, OutcomeKind, Schema};
use batchsql_suite::database::DatabaseName::{self, Mysql, Postgres, Sqlite};
use batchsql_suite::database::{self, Database};
use batchsql_suite::digest::{Canonical, Digest};
use proptest::prelude::*;

use super::{check_each, config, corpus};
use crate::matrix::{Setup, with_setup};

/// A name of at most 15 characters, which is within the limit of every database. Its last character is a digit: MySQL does
/// not accept a space there, and the two columns differ also where the case does not count.
fn name(database: DatabaseName, digit: char) -> impl Strategy<Value = String> {
    // MySQL accepts no characters beyond the basic plane.
    let strange = if database == Mysql { "é漢ßİ\u{301}" } else { "é漢ß𝕏\u{301}\u{202e}" };
    let strange: Vec<char> = strange.chars().collect();
    let character = prop_oneof![
        2 => prop::sample::select("abXY_09".chars().collect::<Vec<_>>()),
        5 => prop::sample::select("\"`'\\;-/*%$?:@#[](){}<>=!|&^~+., \t\n\r\u{1}".chars().collect::<Vec<_>>()),
        1 => prop::sample::select(strange),
    ];
    let text = prop::collection::vec(character, 0..14).prop_map(String::from_iter);
    let words = vec!["select", "order", "excluded", "values", "new", "t; DROP TABLE x; --", "$1", "?", "%s", "a.b"];
    let words = prop::sample::select(words).prop_map(|word| word.chars().take(14).collect());
    // `Setup` replaces this text.
    prop_oneof![4 => text, 1 => words].prop_map(move |name: String| format!("{name}{digit}").replace("{t}", "t"))
}

/// Written here once more, so that it does not share a mistake with the library.
fn quoted(database: DatabaseName, name: &str) -> String {
    let quote = if database == Mysql { '`' } else { '"' };
    let mut text = String::from(quote);
    for character in name.chars() {
        if character == quote {
            text.push(quote);
        }
        text.push(character);
    }
    text.push(quote);
    text
}

async fn open(name: DatabaseName, url: &str) -> Box<dyn Database> {
    match name {
        Postgres => Box::new(database::Postgres::open(url).await.unwrap()),
        Mysql => Box::new(database::MySql::open(url).await.unwrap()),
        _ => Box::new(database::Sqlite::open(Some(url)).unwrap()),
    }
}

/// The content that a table must have.
fn expected(rows: &[(i64, &str)]) -> Digest {
    let mut digest = Digest::default();
    rows.iter().for_each(|(id, text)| digest.add_canonical([Canonical::Int((*id).into()), Canonical::Text(text)]));
    digest
}

async fn check(
    name: DatabaseName,
    database: &dyn Database,
    setup: &Setup,
    (table, key, value): (String, String, String),
) -> Result<(), TestCaseError> {
    let [quoted_table, quoted_key, quoted_value] = [&table, &key, &value].map(|text| quoted(name, text));
    let create = format!(
        "CREATE TABLE {quoted_table} ({quoted_key} BIGINT NOT NULL PRIMARY KEY, {quoted_value} VARCHAR(20) NOT NULL)"
    );
    setup.execute(&create, "").await;
    let db = BatchSql::builder(database.sink()).start().unwrap();
    for (round, rule) in [Conflict::none(), Conflict::update([&key]), Conflict::ignore([&key])].into_iter().enumerate()
    {
        let schema = Schema::builder(table.as_str())
            .column(key.as_str(), ColumnType::I64)
            .column(value.as_str(), ColumnType::Text);
        let schema = schema.on_conflict(rule).build().unwrap();
        let text = ["a", "b", "c"][round];
        let row = |id: i64| schema.row().set(&key, id).unwrap().set(&value, text).unwrap().finish().unwrap();
        // The second and the third round have a key of the round before, and a new one.
        for id in [round as i64, round as i64 + 1] {
            let outcome = db.submit_tracked(&row(id)).await.unwrap().await;
            let ignored = round == 2 && id == 2;
            let ends = if ignored { OutcomeKind::Ignored } else { OutcomeKind::Written };
            prop_assert_eq!(outcome.kind(), ends, "{:?} {:?} {:?}: {:?}", table, key, value, outcome);
        }
        let content =
            [&[(0, "a"), (1, "a")][..], &[(0, "a"), (1, "b"), (2, "b")], &[(0, "a"), (1, "b"), (2, "b"), (3, "c")]];
        prop_assert_eq!(database.digest(&schema).await.unwrap(), expected(content[round]));
    }
    prop_assert!(db.close(Duration::from_secs(30)).await.is_complete());
    setup.execute(&format!("DROP TABLE {quoted_table}"), "").await;
    Ok(())
}

async fn any_name(name: DatabaseName) {
    with_setup(name, async |url, setup| {
        let database = open(name, url).await;
        for case in corpus("names.txt") {
            let text = String::from_utf8(case).expect("a name is text");
            let names = [0, 1, 2].map(|digit| format!("{text}{digit}"));
            let checked = check(name, &*database, setup, names.into()).await;
            checked.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        }
        let names = (self::name(name, '0'), self::name(name, '1'), self::name(name, '2'));
        check_each(&names, config(40, file!()), async |names| check(name, &*database, setup, names).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_writes_to_any_name() {
    any_name(Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_writes_to_any_name() {
    any_name(Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_writes_to_any_name() {
    any_name(Mysql).await;
}
