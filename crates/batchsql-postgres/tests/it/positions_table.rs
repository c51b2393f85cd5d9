//! The table of positions itself: who may make, change and use it, and which tables with its name are refused.

use std::time::Duration;

use batchsql_core::{Claim, Conflict, ErrorClass, Sink, Step};
use batchsql_postgres::sqlx::PgPool;
use batchsql_postgres::{PostgresOptions, PostgresSink};
use batchsql_testserver::unique;

use crate::positions::{anyone, claim, key, numbers, one_column, rows};
use crate::support::{execute, fresh, fresh_dsn, pipeline, user_until_end};

#[tokio::test]
async fn a_user_who_may_not_create_the_table_is_told_what_to_do() {
    let user = unique("positions");
    let _end = user_until_end(&user);
    let dsn = fresh_dsn(&format!(
        "CREATE TABLE t (id bigint); CREATE USER {user} PASSWORD 'p';
         DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {user}', current_schema()); END $$"
    ))
    .await;
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    let options = (*admin.pg_pool().connect_options()).clone().username(&user).password("p");
    let sink = PostgresSink::new(PgPool::connect_lazy_with(options));
    let error = pipeline(&sink).claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
    assert!(
        error.class() == ErrorClass::Permission && error.to_string().contains("CREATE TABLE IF NOT EXISTS"),
        "{error}"
    );
}

#[tokio::test]
async fn a_user_who_may_not_change_a_table_of_an_earlier_version_is_told_what_to_do() {
    let user = unique("positions");
    let _end = user_until_end(&user);
    let dsn = fresh_dsn(&format!("CREATE TABLE t (id bigint); CREATE USER {user} PASSWORD 'p'")).await;
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    claim(&pipeline(&admin)).await;
    let earlier = format!(
        "DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {user}', current_schema()); END $$;
         GRANT SELECT, INSERT, UPDATE ON batchsql_positions TO {user}; ALTER TABLE batchsql_positions DROP COLUMN moved_to"
    );
    execute(admin.pg_pool(), &earlier).await;
    let db = pipeline(&PostgresSink::connect(&with_user(&dsn, &user, "p")).await.unwrap());
    let error = db.claim(&key(), &anyone("a")).await.unwrap_err();
    let advice = "ALTER TABLE batchsql_positions ADD COLUMN moved_to bigint";
    assert!(error.class() == ErrorClass::Permission && error.to_string().contains(advice), "{error}");
    execute(admin.pg_pool(), advice).await;
    db.claim(&key(), &anyone("a")).await.unwrap().position().unwrap();
}

/// Nothing about the rows is said by an error of the position.
#[tokio::test]
async fn a_positions_table_that_is_gone_is_no_fault_of_the_rows() {
    let sink = fresh("CREATE TABLE t (id bigint)").await;
    let db = pipeline(&sink);
    let position = claim(&db).await;
    execute(sink.pg_pool(), "DROP TABLE batchsql_positions").await;
    let failed = db.write_step(rows(&one_column(Conflict::none()), [(1, 0)]).rows(), &Step::new(position, 1)).await;
    let failed = failed.unwrap_err().error;
    assert!(failed.class() == ErrorClass::Transient && failed.to_string().contains("position"), "{failed}");
    assert_eq!(numbers(&sink, "SELECT count(*) FROM t").await, [0]);
}

/// A crash of the server, or the end of a session, would empty it.
#[tokio::test]
async fn a_table_of_positions_that_is_not_durable_is_refused() {
    let sink = fresh("CREATE TABLE t (id bigint)").await;
    let db = pipeline(&sink);
    let lease = anyone("a").or_begin_at(0).lease(Duration::from_secs(600));
    db.claim(&key(), &lease).await.unwrap().position().unwrap();
    let refused = async |part: &str| {
        let error = db.claim(&key(), &Claim::of("a")).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema && error.to_string().contains(part), "{error}");
        let error = db.renew("s", "a", Duration::from_secs(600)).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    execute(sink.pg_pool(), "ALTER TABLE batchsql_positions SET UNLOGGED").await;
    refused("SET LOGGED").await;
    execute(sink.pg_pool(), "ALTER TABLE batchsql_positions SET LOGGED").await;
    assert_eq!(db.renew("s", "a", Duration::from_secs(600)).await.unwrap().len(), 1);
    db.claim(&key(), &Claim::of("a")).await.unwrap().position().unwrap();
    execute(sink.pg_pool(), "ALTER TABLE batchsql_positions RENAME TO kept").await;
    execute(sink.pg_pool(), "CREATE VIEW batchsql_positions AS SELECT * FROM kept").await;
    refused("not a plain table").await;
}

/// Two sources would share a position, and rows of one be passed over.
#[tokio::test]
async fn a_table_of_positions_that_makes_one_source_of_two_is_refused() {
    let sink = fresh(
        "CREATE TABLE t (id bigint); CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE DOMAIN short AS text",
    )
    .await;
    let db = pipeline(&sink);
    claim(&db).await;
    let columns = ["source", "incarnation", "table_name", "session"];
    for column in columns {
        let change = async |ty: &str| {
            let sql = format!("ALTER TABLE batchsql_positions ALTER COLUMN {column} TYPE {ty}");
            execute(sink.pg_pool(), &sql).await;
        };
        for inexact in ["text COLLATE ci", "char(20)"] {
            change(inexact).await;
            let error = db.claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
            assert!(error.class() == ErrorClass::Schema, "{error}");
            assert!(error.to_string().contains("share a position"), "{column} {inexact}: {error}");
            change("text COLLATE pg_catalog.\"default\"").await;
        }
        for exact in ["varchar(100)", "short", "text COLLATE \"C\"", "text COLLATE pg_catalog.\"default\""] {
            change(exact).await;
            claim(&db).await;
        }
    }
}

/// A temporary table hides the one of all sessions.
#[tokio::test]
async fn a_temporary_table_of_positions_is_refused() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint)").await;
    let options: PostgresOptions = dsn.parse().unwrap();
    let sink = PostgresSink::with_options(&options.max_connections(1)).await.unwrap();
    let db = pipeline(&sink);
    claim(&db).await;
    execute(sink.pg_pool(), "CREATE TEMP TABLE batchsql_positions (LIKE batchsql_positions INCLUDING ALL)").await;
    let error = db.claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
    assert!(error.to_string().contains("temporary table"), "{error}");
    execute(sink.pg_pool(), "DROP TABLE pg_temp.batchsql_positions").await;
    let position = claim(&db).await;
    // One that comes later, with columns of its own.
    execute(sink.pg_pool(), "CREATE TEMP TABLE batchsql_positions (a int)").await;
    let step = Step::new(position, 1);
    let error = db.write_step(rows(&one_column(Conflict::none()), [(1, 0)]).rows(), &step).await.unwrap_err().error;
    assert!(error.to_string().contains("perhaps a temporary one of the session"), "{error}");
}

/// A session keeps the settings of its user from when it was opened.
#[tokio::test]
async fn a_setting_that_was_corrected_is_seen_at_the_next_claim() {
    let user = unique("positions");
    let _end = user_until_end(&user);
    let dsn = fresh_dsn(&format!(
        "CREATE TABLE t (id bigint); CREATE USER {user} PASSWORD 'p'; ALTER ROLE {user} SET synchronous_commit = off;
         DO $$ BEGIN EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO {user}', current_schema()); END $$"
    ))
    .await;
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    let of_user: PostgresOptions = with_user(&dsn, &user, "p").parse().unwrap();
    let sink = PostgresSink::with_options(&of_user.max_connections(3)).await.unwrap();
    // Sessions that other partitions, and writes, have opened.
    let opened = [sink.acquire().await.unwrap(), sink.acquire().await.unwrap(), sink.acquire().await.unwrap()];
    drop(opened);
    let db = pipeline(&sink);
    let error = db.claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
    assert!(error.to_string().contains("synchronous_commit is off"), "{error}");
    // Another time: sessions that were opened since are not closed by this one.
    let opened = [sink.acquire().await.unwrap(), sink.acquire().await.unwrap(), sink.acquire().await.unwrap()];
    drop(opened);
    let error = db.claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
    assert!(error.to_string().contains("synchronous_commit is off"), "{error}");
    execute(admin.pg_pool(), &format!("ALTER ROLE {user} RESET synchronous_commit")).await;
    // Until a claim gets a new session.
    while let Err(error) = db.claim(&key(), &anyone("a").or_begin_at(0)).await {
        assert!(error.to_string().contains("synchronous_commit is off"), "{error}");
    }
    // Rows are written by new sessions too.
    for _ in 0..3 {
        assert_eq!(db.make_durable().await.unwrap(), None);
    }
}

fn with_user(dsn: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = dsn.split_once("://").unwrap();
    let (_, address) = rest.split_once('@').unwrap();
    format!("{scheme}://{user}:{password}@{address}")
}

/// The table of the rows is not at fault.
#[tokio::test]
async fn a_right_to_positions_that_is_revoked_is_named() {
    let user = unique("positions");
    let _end = user_until_end(&user);
    let dsn = fresh_dsn(&format!("CREATE TABLE t (id bigint); CREATE USER {user} PASSWORD 'p'")).await;
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    claim(&pipeline(&admin)).await;
    let grant = format!(
        "DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {user}', current_schema()); END $$;
         GRANT INSERT, SELECT ON t TO {user}; GRANT SELECT, INSERT, UPDATE ON batchsql_positions TO {user}"
    );
    execute(admin.pg_pool(), &grant).await;
    let sink = PostgresSink::connect(&with_user(&dsn, &user, "p")).await.unwrap();
    let db = pipeline(&sink);
    let position = claim(&db).await;
    execute(admin.pg_pool(), &format!("REVOKE UPDATE ON batchsql_positions FROM {user}")).await;
    for size in [1, 1_500] {
        let rows = rows(&one_column(Conflict::none()), (0..size).map(|id| (id, 0)));
        let failed = db.write_step(rows.rows(), &Step::new(position, size)).await.unwrap_err().error;
        assert!(failed.class() == ErrorClass::Transient && failed.to_string().contains("position"), "{failed}");
    }
    let error = db.claim(&key(), &anyone("a")).await.unwrap_err();
    assert!(error.class() == ErrorClass::Permission, "{error}");
    assert!(error.to_string().contains("grant SELECT, INSERT and UPDATE"), "{error}");
    // A right to the table of the rows is one of the rows.
    execute(admin.pg_pool(), &format!("GRANT UPDATE ON batchsql_positions TO {user}; REVOKE INSERT ON t FROM {user}"))
        .await;
    let position = claim(&db).await;
    let rows = rows(&one_column(Conflict::none()), [(1, 0)]);
    let failed = db.write_step(rows.rows(), &Step::new(position, 1)).await.unwrap_err().error;
    assert!(failed.class() == ErrorClass::Permission && !failed.to_string().contains("position"), "{failed}");
}

#[tokio::test]
async fn another_table_with_the_name_is_named_with_advice() {
    for columns in ["id bigint", "id bigint PRIMARY KEY, sequence bigint, epoch bigint"] {
        let sink = fresh(&format!("CREATE TABLE batchsql_positions ({columns})")).await;
        let error = pipeline(&sink).claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema && error.to_string().contains("another table"), "{error}");
        assert!(error.to_string().contains("rename it"), "{error}");
    }
}
