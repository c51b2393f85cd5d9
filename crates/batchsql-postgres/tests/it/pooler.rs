//! PgBouncer in transaction mode: every statement may use a different server connection.

use std::time::Duration;

use batchsql_core::{Action, BatchSql, Conflict, OutcomeKind, PipelineConfig, Sink};
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};
use batchsql_testserver::{Kind, Server, unique};

use crate::support::{HOUR, execute, outcomes_by, read, row, schema};

#[tokio::test]
async fn every_strategy_works_behind_a_pooler_in_transaction_mode() {
    let server = Server::start(Kind::PgBouncer, &[]);
    let namespace = unique("pooled");
    for strategy in [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Copy, Strategy::Staging] {
        let options: PostgresOptions = server.dsn().parse().unwrap();
        let options = options.strategy(strategy).prepared_statements(false).max_connections(4);
        let sink = PostgresSink::with_options(&options).await.unwrap();
        let table = format!("{}_{}", namespace, strategy.name().replace('-', "_"));
        execute(sink.pg_pool(), &format!("CREATE TABLE {table} (id bigint PRIMARY KEY, note text, e text)")).await;
        for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::replace(["id"])] {
            if strategy == Strategy::Copy && conflict != Conflict::none() {
                continue;
            }
            let schema = batchsql_core::Schema::builder(&*table)
                .column("id", batchsql_core::ColumnType::I64)
                .nullable("note", batchsql_core::ColumnType::Text)
                .on_conflict(conflict.clone())
                .build()
                .unwrap();
            // Many batches at once on few server connections.
            let config = PipelineConfig::default().flush_size(50);
            let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
            let outcomes = outcomes_by(&db, (0..1_000).map(|id| row(&schema, id, "a"))).await;
            let expected = if conflict.action() == Action::Ignore {
                batchsql_core::OutcomeKind::Ignored
            } else {
                batchsql_core::OutcomeKind::Written
            };
            assert!(outcomes.iter().all(|o| o.kind() == expected), "{strategy:?} {conflict:?} {:?}", outcomes.first());
        }
        assert_eq!(read(&sink, &format!("SELECT count(*) FROM {table}")).await, ["1000"], "{strategy:?}");
        // Bad rows leave no open transaction on a shared connection.
        let schema = batchsql_core::Schema::builder(&*table)
            .column("id", batchsql_core::ColumnType::I64)
            .nullable("note", batchsql_core::ColumnType::Text)
            .build()
            .unwrap();
        let db = BatchSql::builder(sink.clone()).start().unwrap();
        let outcomes = outcomes_by(&db, (990..1_010).map(|id| row(&schema, id, "a"))).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_written()).count(), 10, "{strategy:?}");
    }
}

#[tokio::test]
async fn named_statements_behind_a_pooler_are_told_what_to_do() {
    let server = Server::start(Kind::PgBouncer, &[]);
    let error = PostgresSink::connect(server.dsn()).await.unwrap_err().to_string();
    assert!(error.contains("behind a pooler use prepared_statements(false)"), "{error}");
}

/// Two connections share a session of the server. If the pooler does not keep their statements apart, the second one cannot
/// prepare a statement of the same name.
#[tokio::test]
async fn connections_that_share_a_session_of_the_server_are_opened() {
    let settings = ["ignore_startup_parameters = extra_float_digits,options", "default_pool_size = 1"];
    let server = Server::start(Kind::PgBouncer, &settings);
    let options: PostgresOptions = server.dsn().parse().unwrap();
    let sink = PostgresSink::with_options(&options.max_connections(2)).await.unwrap();
    let (one, two) = tokio::join!(sink.acquire(), sink.acquire());
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
}

/// PgBouncer closes the connection with its own error (08P01), and the server continues the COMMIT.
#[tokio::test]
async fn a_pooler_that_gives_up_a_commit_does_not_know_whether_it_was_done() {
    let server = Server::start(Kind::PgBouncer, &["query_timeout=1"]);
    let slow = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN new; END';
        CREATE TABLE t (id bigint, note text);
        CREATE CONSTRAINT TRIGGER f AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION f()";
    let options: PostgresOptions = server.dsn().parse().unwrap();
    let sink = PostgresSink::with_options(&options.clone().prepared_statements(false)).await.unwrap();
    execute(sink.pg_pool(), slow).await;
    for strategy in [Strategy::Unnest, Strategy::Copy, Strategy::Staging] {
        let options = options.clone().prepared_statements(false).strategy(strategy);
        let sink = PostgresSink::with_options(&options).await.unwrap();
        execute(sink.pg_pool(), "TRUNCATE t").await;
        let config = PipelineConfig::default().flush_interval(HOUR);
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        let schema = schema(Conflict::none());
        let outcomes = outcomes_by(&db, (0..15).map(|id| row(&schema, id, "a"))).await;
        assert!(outcomes.iter().all(|o| o.kind() == OutcomeKind::Unknown), "{strategy:?} {:?}", outcomes[0]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let there = read(&sink, "SELECT count(*) = count(DISTINCT id) FROM t").await;
        assert_eq!(there, ["t"], "{strategy:?}");
    }
}
