//! What `batchsql load` takes from its arguments and from the environment.

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
