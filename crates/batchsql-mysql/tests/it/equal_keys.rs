//! Keys that are equal to the server in spite of different values, in one batch: the rows are written as if each had come
//! alone, whatever the rule.

use std::collections::BTreeMap;

use batchsql_core::{
    Action, BatchSql, Coalesce, ColumnType, Conflict, Decimal, DynRow, Expr, Json, Ordering, PipelineConfig, Schema,
    Value,
};
use batchsql_testserver::Random;

use crate::support::{Database, HOUR, pipeline, submitted, write};

/// A key column, and its values: those with the same number are one key to the server.
struct Case {
    declared: &'static str,
    ty: ColumnType,
    keys: Vec<(Value, usize)>,
}

fn cases(is_mariadb: bool) -> Vec<Case> {
    use ColumnType as C;
    let case = |declared, ty, keys: &[(&str, usize)]| {
        let value = |text: &str| match ty {
            C::Decimal => Value::from(text.parse::<Decimal>().unwrap()),
            C::Json => Value::from(text.parse::<Json>().unwrap()),
            C::F64 => Value::from(text.parse::<f64>().unwrap()),
            _ => Value::from(text),
        };
        Case { declared, ty, keys: keys.iter().map(|(text, key)| (value(text), *key)).collect() }
    };
    let mut cases = vec![
        case(
            "DECIMAL(8,2)",
            C::Decimal,
            &[("1.5", 0), ("1.50", 0), ("01.500", 0), ("7", 1), ("7.0", 1), ("0", 2), ("-0.0", 2)],
        ),
        // Two keys, as a text has no value.
        case(
            "VARCHAR(9) COLLATE utf8mb4_general_ci",
            C::Decimal,
            &[("1.5", 0), ("1.50", 1), ("01.5", 2), ("1.500", 3)],
        ),
        case("DOUBLE", C::F64, &[("0.0", 0), ("-0.0", 0), ("1.5", 1), ("0.1", 2)]),
        case(
            "SET('b','a','it''s')",
            C::Text,
            &[("a,b", 0), ("b,a", 0), ("b,a,b", 0), ("a", 1), ("a,a", 1), ("it's,a", 2), ("a,it's", 2), ("", 3)],
        ),
        case("BIT(4)", C::Text, &[("0101", 0), ("101", 0), ("1", 1), ("0001", 1), ("0", 2), ("00", 2)]),
        case("YEAR", C::Text, &[("2024", 0), ("0000", 1), ("1999", 2)]),
        case(
            "TIME(6)",
            C::Text,
            &[
                ("10:00:00", 0),
                ("010:00:00", 0),
                ("10:00:00.0", 0),
                ("11:00:00", 1),
                ("-01:00:00", 2),
                ("-001:00:00", 2),
            ],
        ),
        case(
            "VARCHAR(9) COLLATE utf8mb4_general_ci",
            C::Text,
            &[("Ada", 0), ("ada", 0), ("adä", 0), ("ADA  ", 0), ("b", 1), ("x", 2), ("X", 2)],
        ),
        case(
            "VARCHAR(9) COLLATE utf8mb4_bin",
            C::Text,
            &[("a", 0), ("a ", 0), ("a  ", 0), ("A", 1), ("b", 2), ("b ", 2)],
        ),
        case("CHAR(5)", C::Text, &[("a", 0), ("A", 0), ("b", 1), ("x", 2), ("X", 2)]),
        case(
            "VARCHAR(9) CHARACTER SET latin1 COLLATE latin1_german2_ci",
            C::Text,
            &[("ä", 0), ("ae", 0), ("Ä", 0), ("a", 1), ("ß", 2), ("ss", 2)],
        ),
        case("VARCHAR(9) COLLATE utf8mb4_general_ci", C::Json, &[("\"a\"", 0), ("\"A\"", 0), ("1", 1), ("1.0", 2)]),
    ];
    if is_mariadb {
        cases.push(case("INET6", C::Text, &[("::1", 0), ("0::1", 0), ("0:0:0:0:0:0:0:1", 0), ("::2", 1), ("::3", 2)]));
        let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let (upper, short) = ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc999c0b4ef8bb6d6bb9bd380a11");
        let other = "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        cases.push(case("UUID", C::Text, &[(uuid, 0), (upper, 0), (short, 0), (other, 1)]));
    }
    cases
}

/// What becomes of a row that has a key.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Ignore,
    Update,
    Add,
    Newer,
    Only,
    OnlyAdd,
    OnlyGreatest,
    OnlyNewer,
    Delete,
}

const RULES: [Rule; 9] = [
    Rule::Ignore,
    Rule::Update,
    Rule::Add,
    Rule::Newer,
    Rule::Only,
    Rule::OnlyAdd,
    Rule::OnlyGreatest,
    Rule::OnlyNewer,
    Rule::Delete,
];

impl Rule {
    fn conflict(self) -> Conflict {
        match self {
            Self::Ignore => Conflict::ignore(["k"]),
            Self::Update => Conflict::update(["k"]),
            Self::Add => Conflict::update(["k"]).set("n", Expr::add()),
            Self::Newer => Conflict::update(["k"]).only_if_newer("v"),
            Self::Only => Conflict::update_only(["k"]),
            Self::OnlyAdd => Conflict::update_only(["k"]).set("n", Expr::add()),
            Self::OnlyGreatest => Conflict::update_only(["k"]).set("n", Expr::greatest()),
            Self::OnlyNewer => Conflict::update_only(["k"]).only_if_newer("v"),
            Self::Delete => Conflict::delete(["k"]),
        }
    }

    /// Whether a row is written, and the `n` and `v` that it leaves.
    fn apply(self, stored: Option<(i64, i64)>, (n, v): (i64, i64)) -> Option<Option<(i64, i64)>> {
        match (self, stored) {
            (Self::Delete, Some(_)) => Some(None),
            (Self::Ignore, Some(_)) | (Self::Delete, None) => None,
            (Self::Only | Self::OnlyAdd | Self::OnlyGreatest | Self::OnlyNewer, None) => None,
            (Self::Newer | Self::OnlyNewer, Some((_, stored))) if v <= stored => None,
            (Self::Add | Self::OnlyAdd, Some((stored, _))) => Some(Some((stored + n, v))),
            (Self::OnlyGreatest, Some((stored, _))) => Some(Some((stored.max(n), v))),
            _ => Some(Some((n, v))),
        }
    }
}

/// A row: the place of its key, its numbers, and whether the server refuses it.
type Sent = (usize, (i64, i64), bool);

/// Outcomes and content if each row comes alone.
fn model(rule: Rule, case: &Case, rows: &[Sent], stored: &[usize]) -> (Vec<&'static str>, Vec<String>) {
    let mut table: BTreeMap<usize, (i64, i64)> = stored.iter().map(|place| (case.keys[*place].1, (10, 5))).collect();
    let mut outcomes = Vec::new();
    for (place, values, is_refused) in rows {
        let key = case.keys[*place].1;
        outcomes.push(match rule.apply(table.get(&key).copied(), *values) {
            None => "ignored",
            Some(Some(_)) if *is_refused => "rejected",
            Some(left) => {
                table.remove(&key);
                table.extend(left.map(|left| (key, left)));
                "written"
            }
        });
    }
    let mut content: Vec<String> = table.values().map(|(n, v)| format!("{n}|{v}")).collect();
    content.sort();
    (outcomes, content)
}

fn start(db: &Database, ordering: Ordering, coalesce: Coalesce) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR).ordering(ordering).coalesce(coalesce);
    BatchSql::builder(db.sink.clone()).config(config).start().unwrap()
}

#[tokio::test]
async fn rows_whose_keys_are_equal_to_the_server_are_rows_of_one_key() {
    let db = Database::new("").await;
    let is_mariadb = db.read("SELECT VERSION()").await[0].contains("MariaDB");
    let mut random = Random::new(7);
    let mut wrong = Vec::new();
    for (number, case) in cases(is_mariadb).iter().enumerate() {
        // The first key is stored, or the first two, or none.
        let firsts: Vec<usize> =
            (0..2).map(|key| case.keys.iter().position(|(_, other)| *other == key).unwrap()).collect();
        for rule in RULES {
            let table = format!("t{number}_{rule:?}").to_lowercase();
            db.run(&format!(
                "CREATE TABLE {table} (k {} PRIMARY KEY, n BIGINT, v BIGINT, note VARCHAR(3))",
                case.declared
            ))
            .await;
            let keys = Schema::builder(table.as_str()).column("k", case.ty);
            let insert =
                keys.column("n", ColumnType::I64).column("v", ColumnType::I64).nullable("note", ColumnType::Text);
            let plain = insert.clone().build().unwrap();
            let schema = match rule {
                Rule::Delete => Schema::builder(table.as_str()).column("k", case.ty),
                _ => insert,
            };
            let schema = schema.on_conflict(rule.conflict()).build().unwrap();
            for round in 0..6 {
                let stored = &firsts[..[1, 2, 0][round % 3]];
                let coalesce = if round < 4 { Coalesce::Off } else { Coalesce::LastPerKey };
                // The server looks at the values of a row before it looks for its key, unless it is told otherwise.
                // Their values show that they are equal.
                let is_number = matches!(case.ty, ColumnType::Decimal | ColumnType::F64);
                let ordering = if round == 5 && is_number { Ordering::Auto } else { Ordering::PerTable };
                // Rows that are merged have the note of the last one.
                let is_merged =
                    ordering == Ordering::Auto && matches!(rule, Rule::Add | Rule::OnlyAdd | Rule::OnlyGreatest);
                let may_refuse = !matches!(rule, Rule::Delete | Rule::Ignore) && !is_merged;
                // Versions differ, so that no order of rows decides.
                let mut versions: Vec<i64> = (1..=12).collect();
                let rows: Vec<Sent> = (0..12)
                    .map(|_| {
                        let v = versions.swap_remove(random.below(versions.len() as u64) as usize);
                        let is_refused = may_refuse && round % 2 == 1 && random.below(6) == 0;
                        (random.below(case.keys.len() as u64) as usize, (random.below(30) as i64, v), is_refused)
                    })
                    .collect();
                db.run(&format!("DELETE FROM {table}")).await;
                let old = |place: &usize| -> DynRow {
                    let values = [case.keys[*place].0.clone(), 10_i64.into(), 5_i64.into(), Value::Null];
                    plain.row().set_all(values).unwrap().finish().unwrap()
                };
                assert!(write(&db.sink, stored.iter().map(old)).await.iter().all(|outcome| *outcome == "written"));
                let row = |(place, (n, v), is_refused): &Sent| {
                    let row = schema.row().set("k", case.keys[*place].0.clone()).unwrap();
                    if schema.columns().len() == 1 {
                        return row.finish().unwrap();
                    }
                    let row = row.set("n", *n).unwrap().set("v", *v).unwrap();
                    row.set("note", is_refused.then_some("long")).unwrap().finish().unwrap()
                };
                let pipeline = start(&db, ordering, coalesce);
                let outcomes = submitted(&pipeline, rows.iter().map(row)).await;
                pipeline.close(HOUR).await;
                let mut outcomes: Vec<&str> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
                let mut content = db.read(&format!("SELECT n, v FROM {table}")).await;
                content.sort();
                let expected = model(rule, case, &rows, stored);
                if ordering == Ordering::Auto {
                    // Of two rows with the same value of a key only one may have been sent.
                    outcomes.clone_from(&expected.0);
                }
                if (&outcomes, &content) != (&expected.0, &expected.1) {
                    let ty = case.declared;
                    wrong.push(format!(
                        "{ty} {:?} {rule:?} round {round} stored {stored:?} rows {rows:?}\n  is   {outcomes:?} {content:?}\n  want {:?} {:?}",
                        case.ty, expected.0, expected.1
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A key of a decimal and a text, or of the decimal alone.
fn pair(rule: Conflict) -> Schema {
    let schema = Schema::builder("t").column("k", ColumnType::Decimal);
    let is_delete = rule.action() == Action::Delete;
    let has_name = !is_delete || rule.key().len() == 2;
    let schema = if has_name { schema.column("name", ColumnType::Text) } else { schema };
    let schema = if is_delete { schema } else { schema.column("v", ColumnType::I64) };
    schema.on_conflict(rule).build().unwrap()
}

#[tokio::test]
async fn a_number_that_its_column_cannot_hold_finds_no_row() {
    for keys in [vec!["k", "name"], vec!["k"]] {
        let table = format!(
            "CREATE TABLE t (k DECIMAL(8,2), name VARCHAR(9), v BIGINT, PRIMARY KEY ({})); \
             INSERT INTO t VALUES (999999.99, 'a', 5), (-999999.99, 'a', 5), (1, 'a', 5)",
            keys.join(",")
        );
        let large = ["1000000", "-12345678.50", "99999999999999999999999999999999.99"];
        for (rule, outcome) in [
            (Conflict::delete(keys.clone()), "ignored"),
            (Conflict::update_only(keys.clone()), "ignored"),
            (Conflict::update_only(keys.clone()).only_if_newer("v"), "ignored"),
            (Conflict::update(keys.clone()).only_if_newer("v"), "rejected"),
            (Conflict::update(keys.clone()), "rejected"),
            (Conflict::ignore(keys.clone()), "rejected"),
        ] {
            let db = Database::new(&table).await;
            let schema = pair(rule.clone());
            let row = |digits: &str| {
                let mut row = schema.row().set("k", digits.parse::<Decimal>().unwrap()).unwrap();
                for column in &schema.columns()[1..] {
                    let value = if column.name() == "v" { Value::from(9_i64) } else { Value::from("a") };
                    row = row.set(column.name(), value).unwrap();
                }
                row.finish().unwrap()
            };
            assert_eq!(write(&db.sink, large.map(row)).await, [outcome; 3], "{rule:?}");
            assert_eq!(write(&db.sink, [row(large[0])]).await, [outcome], "{rule:?}");
            let stored = db.read("SELECT k, v FROM t ORDER BY k").await;
            assert_eq!(stored, ["-999999.99|5", "1.00|5", "999999.99|5"], "{rule:?}");
        }
    }
}

#[tokio::test]
async fn a_set_whose_members_servers_show_in_different_ways_is_no_key_of_a_rule_that_compares_keys() {
    let db = Database::new("CREATE TABLE t (k SET('a','b\\\\c') PRIMARY KEY, v BIGINT)").await;
    let schema = |rule: Conflict| {
        let schema = Schema::builder("t").column("k", ColumnType::Text);
        let schema = if rule.action() == Action::Delete { schema } else { schema.column("v", ColumnType::I64) };
        schema.on_conflict(rule).build().unwrap()
    };
    for rule in [
        Conflict::ignore(["k"]),
        Conflict::update(["k"]).only_if_newer("v"),
        Conflict::update_only(["k"]),
        Conflict::delete(["k"]),
    ] {
        let error = pipeline(&db.sink).prepare(&schema(rule)).await.unwrap_err().to_string();
        assert!(error.contains("its key column \"k\" is a SET with a backslash"), "{error}");
    }
    // The server compares the keys of an insert as it stores them.
    let update = schema(Conflict::update(["k"]));
    let row = |k: &str, v: i64| update.row().set("k", k).unwrap().set("v", v).unwrap().finish().unwrap();
    assert_eq!(write(&db.sink, [row("a,b\\c", 1), row("b\\c,a", 2), row("a", 3)]).await, ["written"; 3]);
    assert_eq!(db.read("SELECT v FROM t ORDER BY v").await, ["2", "3"]);
}
