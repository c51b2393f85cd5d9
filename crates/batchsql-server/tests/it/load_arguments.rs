//! What `batchsql load` takes from its arguments and from the environment.

use batchsql_testserver::{Kind, dsn, unique};

use crate::program::{Place, Ran};

fn run(place: &Place, variable: Option<&str>, arguments: &[&str]) -> Ran {
    let mut command = place.command(&[&["load", "a.csv"], arguments].concat());
    match variable {
        Some(dsn) => command.env("BATCHSQL_DATABASE", dsn),
        None => command.env_remove("BATCHSQL_DATABASE"),
    };
    Ran(command.output().unwrap())
}

/// Part of it may be a password, and no variable is replaced there.
#[test]
fn a_dsn_of_the_command_line_has_no_variables() {
    let place = Place::new();
    place.write("a.csv", "id\n1\n");
    for dsn in ["postgres://u:pa${CANARYPW}x@h/db", "postgres://u:pa${CANARYPW:-CANARYPW}x@h/db", "sqlite:a${CANARYPW"]
    {
        let given = run(&place, None, &["--database", dsn, "--table", "orders"]);
        let variable = run(&place, Some(dsn), &["--table", "orders"]);
        for ran in [given, variable] {
            assert_eq!(ran.code(), 2, "{}", ran.all());
            assert!(ran.err().contains("variables are replaced in configuration files only"), "{}", ran.all());
            assert!(!ran.all().contains("CANARYPW"), "{}", ran.all());
        }
    }
}

/// A name may have these characters.
#[test]
fn the_name_of_a_table_is_taken_as_it_is() {
    let place = Place::new();
    place.sql("CREATE TABLE \"a${B}c\" (id INTEGER);");
    place.write("a.csv", "id\n1\n");
    let ran = run(&place, Some("sqlite:a.db"), &["--table", "a${B}c"]);
    assert_eq!(ran.code(), 0, "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM \"a${B}c\""), 1);
}

#[test]
fn a_configuration_takes_the_place_of_the_variable() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER);");
    place.write("a.csv", "id\n1\n");
    place.write("b.toml", format!("{}[[tables]]\nname = \"orders\"\n", place.database()));
    let ran = run(&place, Some("sqlite:other.db"), &["--config", "b.toml"]);
    assert_eq!(ran.code(), 0, "{}", ran.all());
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
    let both = run(&place, None, &["--config", "b.toml", "--database", "sqlite:a.db"]);
    assert!(both.code() == 2 && both.err().contains("cannot be used with"), "{}", both.all());
    let neither = run(&place, Some(""), &["--table", "orders"]);
    assert!(neither.code() == 2 && neither.err().contains("say where to"), "{}", neither.all());
}

/// A name with quotes is not another one in messages.
#[test]
fn messages_have_the_table_as_it_was_given() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER);");
    place.write("a.csv", "id\n1\n");
    let ran = run(&place, None, &["--database", "sqlite:a.db", "--table", "\"orders\""]);
    assert!(ran.code() == 1 && ran.err().contains("table `\"orders\"`: "), "{}", ran.all());
}

#[test]
fn messages_are_of_the_program() {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER, n NUMERIC);");
    place.write("a.csv", "n\n1\n");
    let ran = run(&place, None, &["--database", "sqlite:a.db", "--table", "orders"]);
    assert!(ran.code() == 2 && ran.err().contains("in `columns` of the table"), "{}", ran.all());
}

#[cfg(feature = "arrow")]
#[test]
fn a_parquet_file_without_a_column_of_the_table_is_refused_in_words_of_the_program() {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;

    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER);");
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("zzz", numbers)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    place.write("a.parquet", writer.into_inner().unwrap());
    let ran = place.run(&["load", "a.parquet", "--database", "sqlite:a.db", "--table", "orders", "--ignore-unknown"]);
    assert!(ran.code() == 2 && ran.err().contains("it has no field that is a column"), "{}", ran.all());
}

/// PostgreSQL, where names have their case.
#[test]
fn a_table_of_another_name_is_told_as_the_program_takes_it() {
    use sqlx::Connection as _;

    let (dsn, place, table) = (dsn(Kind::Postgres), Place::new(), unique("arguments"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = sqlx::PgConnection::connect(&dsn).await.unwrap();
        sqlx::query(&format!("CREATE TABLE {table} (id BIGINT)")).execute(&mut connection).await.unwrap();
    });
    place.write("a.csv", "id\n1\n");
    let ran = run(&place, None, &["--database", &dsn, "--table", &table.to_uppercase()]);
    let expected = format!("name it with its schema, as schema.table (\"public\", \"{table}\")");
    assert!(ran.code() == 1 && ran.err().contains(&expected), "{}", ran.all());
}
