//! Tables that other tables inherit from: one key may have rows in several of them.

use batchsql_core::{Action, ColumnType, Conflict, Decimal, Schema, Value};
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};

use crate::support::{FOR_EVERY_RULE, execute, fresh_dsn, read, values, write};

fn of_rule(key: ColumnType, rule: &Conflict) -> Schema {
    let schema = Schema::builder("t").column("id", key);
    let schema = if rule.action() == Action::Delete { schema } else { schema.column("a", ColumnType::I64) };
    schema.on_conflict(rule.clone()).build().unwrap()
}

/// Key 1 has a row in both tables, 3 in one, 5 in the other one; 2 and 4 have none.
const FILL: &str = "TRUNCATE t; INSERT INTO t VALUES (1, 0), (3, 0); INSERT INTO c VALUES (1, 0), (5, 0)";

#[tokio::test]
async fn keys_with_rows_in_several_tables_have_exact_outcomes() {
    let integer = |id: i64| Value::from(id);
    let numeric = |id: i64| Value::from(format!("{id}.0").parse::<Decimal>().unwrap());
    type Key = fn(i64) -> Value;
    let keys: [(&str, ColumnType, Key); 2] =
        [("bigint", ColumnType::I64, integer), ("numeric", ColumnType::Decimal, numeric)];
    // Each would end otherwise by the count of the stored rows.
    let batches: [&[i64]; 4] = [&[1, 2], &[1, 2, 3], &[1], &[2, 4, 5, 1]];
    for (ty, column, key) in keys {
        // With a trigger that drops an update the batch is written in parts.
        for drops in [false, true] {
            let trigger =
                "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN old.id <> 3 THEN
                CASE WHEN TG_OP = ''DELETE'' THEN old ELSE new END END; END';
                CREATE TRIGGER g BEFORE UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION f()";
            let trigger = if drops { trigger } else { "" };
            let sql =
                format!("CREATE TABLE t (id {ty} PRIMARY KEY, a bigint); CREATE TABLE c () INHERITS (t); {trigger}");
            let dsn = fresh_dsn(&sql).await;
            // A temporary table is refused if a trigger may drop rows.
            for strategy in FOR_EVERY_RULE.into_iter().filter(|strategy| !drops || *strategy != Strategy::Staging) {
                for named in [true, false] {
                    let options: PostgresOptions = dsn.parse().unwrap();
                    let options = options.strategy(strategy).prepared_statements(named);
                    let sink = PostgresSink::with_options(&options).await.unwrap();
                    for rule in [Conflict::update_only(["id"]), Conflict::delete(["id"])] {
                        for ids in batches {
                            execute(sink.pg_pool(), FILL).await;
                            let schema = of_rule(column, &rule);
                            let cells = |id: i64| {
                                let mut cells = vec![key(id), id.into()];
                                cells.truncate(schema.columns().len());
                                values(&schema, cells)
                            };
                            let outcomes = write(&sink, ids.iter().map(|id| cells(*id))).await;
                            let is_found = |id: &i64| matches!(id, 1 | 5) || (*id == 3 && !drops);
                            let outcome = |id| if is_found(id) { "written" } else { "ignored" };
                            let expected: Vec<&str> = ids.iter().map(outcome).collect();
                            let case = format!("{ty} {drops} {strategy:?} {named} {rule:?} {ids:?}");
                            assert_eq!(outcomes, expected, "{case}");
                            let untouched = |id: &i64| !ids.contains(id) || !is_found(id);
                            let left: Vec<String> =
                                [1, 1, 3, 5].iter().filter(|id| untouched(id)).map(i64::to_string).collect();
                            assert_eq!(read(&sink, "SELECT id FROM t WHERE a = 0 ORDER BY 1").await, left, "{case}");
                            let changed = if rule.action() == Action::Delete { 0 } else { 4 - left.len() };
                            let written = read(&sink, "SELECT count(*) FROM t WHERE a = id AND a <> 0").await;
                            assert_eq!(written, [changed.to_string()], "{case}");
                        }
                    }
                }
            }
        }
    }
}
