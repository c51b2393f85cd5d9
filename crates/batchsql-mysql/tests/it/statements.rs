//! How batches become statements: few shapes, no packet that the server rejects, wide tables and large rows.

use batchsql_core::{
    BatchSql, ColumnType, Conflict, ErrorClass, Ordering, Outcome, PipelineConfig, Schema, Sink, Value,
};
use batchsql_mysql::sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use batchsql_mysql::sqlx::{Connection, Executor};
use batchsql_mysql::{MySqlSink, Settings, ValuesInText};
use batchsql_testserver::{Kind, Server};

use crate::support::{Database, HOUR, outcomes, pipeline, row, schema, submitted, with_parameters, write};

/// One connection, so that its own counters show the statements; and prepared ones, however far the server is.
const PREPARED: &str = "max_connections=1&values_in_text=never";

#[tokio::test]
async fn batches_of_every_size_leave_few_statements_prepared() {
    let db = Database::with("CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)", PREPARED).await;
    let pipeline = pipeline(&db.sink);
    let schema = schema(Conflict::ignore(["id"]));
    let mut next = 0_i64;
    for size in (1..400).step_by(3).chain([500; 3]).chain((1..400).step_by(7)) {
        let rows: Vec<_> = (0..size).map(|n| row(&schema, next + n, "a")).collect();
        next += size;
        assert!(submitted(&pipeline, rows).await.iter().all(Outcome::is_written), "{size}");
    }
    let prepared = db.pool().acquire().await.unwrap().cached_statements_size();
    assert!((5..=40).contains(&prepared), "{prepared} statements are prepared");
    // The server has the same number: statements for one use are closed.
    assert_eq!(db.read("SELECT COUNT(*) FROM t").await, [next.to_string()]);
    let open: i64 = own_statements(&db).await;
    assert!(open <= 40, "{open} statements are open at the server");
}

/// Statements that this server has open for the one connection of the pool.
async fn own_statements(db: &Database) -> i64 {
    let count = async |name: &str| -> i64 {
        let rows = db.read(&format!("SHOW SESSION STATUS LIKE '{name}'")).await;
        rows[0].split_once('|').unwrap().1.parse().unwrap()
    };
    count("Com_stmt_prepare").await - count("Com_stmt_close").await
}

/// With a cache of 100 statements, the default of `sqlx`, these tables evict each other's.
#[tokio::test]
async fn the_statements_of_several_tables_stay_prepared() {
    let tables = ["t0", "t1", "t2", "t3", "t4", "t5"];
    let create = tables.map(|table| format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY, note VARCHAR(9))")).join(";");
    for (parameters, stay) in [("", true), ("&statement-cache-capacity=100", false)] {
        let db = Database::with(&create, &format!("{PREPARED}{parameters}")).await;
        let pipeline = pipeline(&db.sink);
        let schemas = tables.map(|table| {
            let schema = Schema::builder(table).column("id", ColumnType::I64).column("note", ColumnType::Text);
            schema.build().unwrap()
        });
        let mut next = 0;
        let mut prepared = Vec::new();
        for _ in 0..3 {
            for size in (1..400).step_by(19) {
                for schema in &schemas {
                    let rows = (next..next + size).map(|id| row(schema, id, "a"));
                    assert!(submitted(&pipeline, rows).await.iter().all(Outcome::is_written), "{size}");
                    next += size;
                }
            }
            let count = db.read("SHOW SESSION STATUS LIKE 'Com_stmt_prepare'").await.remove(0);
            prepared.push(count.split_once('|').unwrap().1.parse::<u32>().unwrap());
        }
        assert_eq!(prepared[2] == prepared[1], stay, "{parameters}: {prepared:?}");
    }
}

/// What docs/databases.md says of a row of defaults.
#[tokio::test]
async fn null_in_a_column_that_counts_gets_the_next_number() {
    let db =
        Database::new("CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(9) DEFAULT 'none')").await;
    let schema = Schema::builder("t").nullable("id", ColumnType::I64).build().unwrap();
    let rows = (0..3).map(|_| schema.row().set("id", Value::Null).unwrap().finish().unwrap());
    assert_eq!(write(&db.sink, rows).await, ["written"; 3]);
    assert_eq!(db.read("SELECT id, note FROM t").await, ["1|none", "2|none", "3|none"]);
}

#[tokio::test]
async fn a_batch_of_the_usual_size_is_one_statement_and_one_transaction() {
    let db = Database::with("CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)", PREPARED).await;
    let pipeline = pipeline(&db.sink);
    let count = async |name: &str| -> i64 {
        let rows = db.read(&format!("SHOW SESSION STATUS LIKE '{name}'")).await;
        rows[0].split_once('|').unwrap().1.parse().unwrap()
    };
    for (batch, conflict) in
        [Conflict::none(), Conflict::ignore(["id"]), Conflict::update(["id"])].into_iter().enumerate()
    {
        let schema = schema(conflict);
        let write = async |start: i64| {
            let rows = (start..start + 500).map(|id| row(&schema, id, "a"));
            assert!(submitted(&pipeline, rows).await.iter().all(Outcome::is_written));
        };
        let first = batch as i64 * 10_000;
        // A new size is split into sizes that are already prepared.
        write(first).await;
        let before = (count("Com_stmt_execute").await, count("Com_begin").await);
        for start in [first + 500, first + 1_000, first + 1_500] {
            write(start).await;
        }
        assert_eq!((count("Com_stmt_execute").await, count("Com_begin").await), (before.0 + 3, before.1));
    }
}

#[tokio::test]
async fn wide_tables_are_split_by_the_bind_limit() {
    const COLUMNS: usize = 900;
    let columns: Vec<String> = (0..COLUMNS).map(|n| format!("c{n} INT")).collect();
    let db = Database::new(&format!("CREATE TABLE wide ({}, PRIMARY KEY (c0))", columns.join(","))).await;
    let schema = (0..COLUMNS).fold(Schema::builder("wide"), |b, n| b.column(format!("c{n}"), ColumnType::I32));
    let schema = schema.on_conflict(Conflict::ignore(["c0"])).build().unwrap();
    // 65,535 placeholders hold 72 such rows, so 200 rows take three statements, in one transaction.
    let rows = || {
        (0..200_i32).map(|id| {
            let values = (0..COLUMNS as i32).map(|n| Value::I32(id * 10_000 + n));
            schema.row().set_all(values).unwrap().finish().unwrap()
        })
    };
    assert!(write(&db.sink, rows()).await.iter().all(|name| *name == "written"));
    assert_eq!(db.read("SELECT COUNT(*), MIN(c0), MAX(c899) FROM wide").await, ["200|0|1990899"]);
    db.run("DELETE FROM wide WHERE c0 >= 1000000").await;
    let names = write(&db.sink, rows()).await;
    assert_eq!(names.iter().filter(|name| **name == "ignored").count(), 100);
    assert_eq!(db.read("SELECT COUNT(*) FROM wide").await, ["200"]);
}

#[tokio::test]
async fn batches_are_cut_below_max_allowed_packet_and_a_row_above_it_is_rejected_alone() {
    let server = Server::start(Kind::MySql, &["--max-allowed-packet=1M"]);
    for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::update(["id"])] {
        let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT)";
        let db = Database::on(server.dsn(), table, "").await;
        let config = PipelineConfig::default()
            .flush_interval(HOUR)
            .flush_bytes(64 << 20)
            .buffer_bytes(128 << 20)
            .ordering(Ordering::PerTable);
        let pipeline = BatchSql::builder(db.sink.clone()).config(config).start().unwrap();
        let schema = schema(conflict);
        let aborted = async || db.read("SHOW GLOBAL STATUS LIKE 'Aborted_clients'").await;
        let before = aborted().await;
        // 10 MB in rows of 100 kB; one row that just fits, one that just does not, and one far above.
        let size = |id: i64| match id {
            10 => 1_048_576 - 100,
            20 => 1_048_576,
            30 => 3_000_000,
            _ => 100_000,
        };
        let rows = (0..100).map(|id| row(&schema, id, "x".repeat(size(id))));
        for (id, outcome) in (0..).zip(submitted(&pipeline, rows).await) {
            match (id, outcome) {
                (20 | 30, Outcome::Rejected(failed)) => {
                    assert_eq!(failed.class(), Some(ErrorClass::Size));
                    let text = failed.error().unwrap().to_string();
                    assert!(text.contains("max_allowed_packet = 1048576; raise it, or split the row"), "{text}");
                }
                (id, outcome) => assert!(id != 20 && id != 30 && outcome.is_written(), "row {id}: {outcome:?}"),
            }
        }
        assert_eq!(db.read("SELECT COUNT(*), SUM(LENGTH(note)) FROM t").await, ["98|10748476"]);
        // No connection was lost.
        assert_eq!(aborted().await, before);
    }
}

#[tokio::test]
async fn a_max_allowed_packet_that_becomes_smaller_is_kept_by_the_next_connection() {
    let server = Server::start(Kind::MySql, &["--max-allowed-packet=16M"]);
    let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT)";
    let db = Database::on(server.dsn(), table, "max_connections=1").await;
    let pipeline = pipeline(&db.sink);
    let schema = schema(Conflict::none());
    let write = async |start: i64| {
        let rows = (start..start + 40).map(|id| row(&schema, id, "x".repeat(100_000)));
        submitted(&pipeline, rows).await
    };
    assert!(write(0).await.iter().all(Outcome::is_written));
    let id = db.read("SELECT CONNECTION_ID()").await.remove(0);
    db.run("SET GLOBAL max_allowed_packet = 1048576").await;
    db.connection().await.execute(&*format!("KILL {id}")).await.unwrap();
    let outcomes = write(100).await;
    assert!(outcomes.iter().all(Outcome::is_written), "{:?}", outcomes[0]);
}

#[tokio::test]
async fn rows_larger_than_a_packet_of_the_protocol_are_written() {
    let server = Server::start(Kind::MySql, &["--max-allowed-packet=64M", "--innodb-log-file-size=512M"]);
    let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT)";
    let db = Database::on(server.dsn(), table, "").await;
    let config = PipelineConfig::default().buffer_bytes(512 << 20).flush_bytes(64 << 20);
    let pipeline = BatchSql::builder(db.sink.clone()).config(config).start().unwrap();
    let schema = schema(Conflict::none());
    // 16 MiB is where the protocol splits a packet.
    let sizes = [(16 << 20) - 64, 16 << 20, (16 << 20) + 64, 40 << 20];
    let rows = sizes.iter().zip(0..).map(|(size, id)| row(&schema, id, "x".repeat(*size)));
    let outcomes = submitted(&pipeline, rows).await;
    assert!(outcomes.iter().all(Outcome::is_written), "{outcomes:?}");
    let stored = db.read("SELECT LENGTH(note) FROM t ORDER BY id").await;
    assert_eq!(stored, sizes.map(|size: usize| size.to_string()));
}

#[tokio::test]
async fn more_rows_than_one_statement_takes_are_one_transaction() {
    let db =
        Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(9)); INSERT INTO t VALUES (29999, 'old')")
            .await;
    let config = PipelineConfig::default()
        .buffer_size(50_000)
        .flush_size(30_000)
        .flush_interval(HOUR)
        .ordering(Ordering::PerTable)
        .isolation(batchsql_core::Isolation::AtomicBatch);
    let pipeline = BatchSql::builder(db.sink.clone()).config(config).start().unwrap();
    // The last row is rejected, so nothing of the batch may be written.
    let schema = schema(Conflict::none());
    let rows = (0..30_000).map(|id| row(&schema, id, "new"));
    let outcomes = submitted(&pipeline, rows).await;
    assert!(outcomes.iter().all(|outcome| outcome.kind().name() == "rejected"));
    assert_eq!(db.read("SELECT * FROM t").await, ["29999|old"]);
    db.run("DELETE FROM t").await;
    let rows = (0..30_000).map(|id| row(&schema, id, "new"));
    assert!(submitted(&pipeline, rows).await.iter().all(Outcome::is_written));
    assert_eq!(db.read("SELECT COUNT(*) FROM t").await, ["30000"]);
}

#[tokio::test]
async fn a_sink_chosen_at_run_time_works_the_same() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)").await;
    let pipeline = BatchSql::builder(batchsql_core::DynSink::new(db.sink.clone())).start().unwrap();
    let schema = schema(Conflict::ignore(["id"]));
    for id in [1, 2, 2] {
        pipeline.submit(&row(&schema, id, "a")).await.unwrap();
    }
    let report = pipeline.close(HOUR).await;
    assert_eq!((report.balance.written(), report.balance.ignored()), (2, 1));
    assert!(outcomes(&db.sink, [row(&schema, 3, "a")]).await[0].is_written());
}

#[tokio::test]
async fn a_text_is_a_text_in_every_mode_of_the_session() {
    let texts = ["'", "\\", "\\'", "''", "'); DROP TABLE t; --", "\\\\'", "\"`", "a\0b", "%_\\%", "🦀'\\"];
    for mode in ["", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT"] {
        let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)").await;
        // A session of the sink's own pool with another mode is closed.
        let pool = MySqlPoolOptions::new().max_connections(1).after_connect(move |connection, _| {
            let sql = format!("SET sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,{mode}'");
            Box::pin(async move { connection.execute(&*sql).await.map(drop) })
        });
        let pool = pool.connect_with(db.dsn.parse().unwrap()).await.unwrap();
        let sink = MySqlSink::from_pool(pool, Settings::default().values_in_text(ValuesInText::Always));
        let schema = schema(Conflict::update(["id"]));
        for round in [0, 100] {
            let rows = texts.iter().zip(round..).map(|(text, id)| row(&schema, id, *text));
            assert!(write(&sink, rows).await.iter().all(|name| *name == "written"), "{mode}");
        }
        let read = batchsql_mysql::sqlx::query_scalar::<_, String>("SELECT @@sql_mode").fetch_one(sink.mysql_pool());
        let modes = read.await.unwrap();
        assert!(mode.split(',').all(|mode| modes.contains(mode)), "{modes}");
        assert_eq!(db.read("SELECT note FROM t WHERE id < 100 ORDER BY id").await, texts, "{mode}");
        assert_eq!(db.read("SELECT COUNT(*) FROM t").await, [(2 * texts.len()).to_string()]);
    }
}

#[tokio::test]
async fn values_in_text_are_one_statement_for_any_number_of_rows_and_keep_to_the_packet() {
    let server = Server::start(Kind::MySql, &["--max-allowed-packet=1M"]);
    let parameters = "values_in_text=always&max_connections=1";
    let db = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT)", parameters).await;
    let schema = schema(Conflict::update(["id"]));
    let count = async |name: &str| -> i64 {
        let rows = db.read(&format!("SHOW SESSION STATUS LIKE '{name}'")).await;
        rows[0].split_once('|').unwrap().1.parse().unwrap()
    };
    let pipeline = pipeline(&db.sink);
    assert!(submitted(&pipeline, [row(&schema, 0, "a")]).await[0].is_written());
    let before = (count("Com_insert").await, count("Com_stmt_prepare").await);
    for (batches, size) in (1..).zip([487, 3, 311, 488]) {
        let rows = (0..size).map(|id| row(&schema, id, "it's"));
        assert!(submitted(&pipeline, rows).await.iter().all(Outcome::is_written));
        assert_eq!((count("Com_insert").await, count("Com_stmt_prepare").await), (before.0 + batches, before.1));
    }
    // These are too large for a packet when written as bytes in text; bound, the server accepts them.
    let rows = (0..4).map(|id| row(&schema, id, "\\".repeat(300_000)));
    assert!(submitted(&pipeline, rows).await.iter().all(Outcome::is_written));
    assert_eq!(db.read("SELECT SUM(LENGTH(note)) FROM t WHERE id < 4").await, ["1200000"]);
    assert_eq!(db.read("SHOW GLOBAL STATUS LIKE 'Aborted_clients'").await, ["Aborted_clients|0"]);
}

#[tokio::test]
async fn the_definition_of_a_table_is_read_once_for_rows_that_leave_out_different_columns() {
    let columns: Vec<String> = (0..7).map(|n| format!("c{n} INT")).collect();
    let server = Server::start(Kind::MySql, &["--general-log=1", "--log-output=TABLE"]);
    let table = format!("CREATE TABLE t (id BIGINT PRIMARY KEY, {})", columns.join(","));
    let db = Database::on(server.dsn(), &table, "").await;
    let builder = Schema::builder("t").column("id", ColumnType::I64);
    let builder = (0..7).fold(builder, |builder, n| builder.nullable(format!("c{n}"), ColumnType::I32));
    let schema = builder.on_conflict(Conflict::update(["id"])).build().unwrap();
    let pipeline = pipeline(&db.sink);
    let row = |shape: i32| {
        let row = schema.row().set("id", i64::from(shape)).unwrap();
        let carried = (0..7).filter(|n| shape & (1 << n) != 0);
        carried.fold(row, |row, n| row.set(&format!("c{n}"), shape).unwrap()).finish().unwrap()
    };
    assert!(submitted(&pipeline, (1..128).map(row)).await.iter().all(Outcome::is_written));
    assert_eq!(db.read("SELECT COUNT(*), SUM(c0), SUM(c6) FROM t").await, ["127|4096|6112"]);
    let reads = "SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE '%FROM information_schema.COLUMNS%'
                 AND argument NOT LIKE '%general_log%' AND command_type = 'Query'";
    assert_eq!(db.read(reads).await, ["1"]);
    // A new column and a dropped column: no schema is rejected because of an earlier reading.
    db.run("ALTER TABLE t ADD COLUMN c7 INT, DROP COLUMN c6").await;
    let changed = Schema::builder("t").column("id", ColumnType::I64).nullable("c7", ColumnType::I32);
    let changed = changed.on_conflict(Conflict::update(["id"])).build().unwrap();
    let new = changed.row().set("id", 1_i64).unwrap().set("c7", 7).unwrap().finish().unwrap();
    let config = PipelineConfig::default().park_for(std::time::Duration::ZERO).flush_interval(HOUR);
    let hasty = BatchSql::builder(db.sink.clone()).config(config).start().unwrap();
    assert!(submitted(&hasty, [new]).await[0].is_written());
    let outcomes = submitted(&hasty, [row(64), row(1)]).await;
    assert_eq!(outcomes[0].failure().and_then(|failed| failed.class()), Some(ErrorClass::Schema), "{outcomes:?}");
    assert!(outcomes[1].is_written(), "{outcomes:?}");
}

/// A proxy with a delay of at least 3 ms in each direction.
async fn far_away(server: &str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = server.split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let dsn = server.replace(&host, &listener.local_addr().unwrap().to_string());
    async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut bytes = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut bytes).await {
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            if to.write_all(&bytes[..len]).await.is_err() {
                return;
            }
        }
    }
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = tokio::net::TcpStream::connect(&host).await else { return };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(carry(from_client, to_server));
            tokio::spawn(carry(from_server, to_client));
        }
    });
    with_parameters(&dsn, "ssl-mode=DISABLED")
}

#[tokio::test]
async fn far_from_the_server_an_unusual_number_of_rows_is_not_cut() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)").await;
    let dsn = far_away(&db.dsn).await;
    let ours = MySqlSink::connect(&with_parameters(&dsn, "max_connections=1")).await.unwrap();
    let never = with_parameters(&dsn, "max_connections=1&values_in_text=never");
    let bound = MySqlSink::connect(&never).await.unwrap();
    let options: MySqlConnectOptions = dsn.parse().unwrap();
    let theirs = MySqlPoolOptions::new().max_connections(1).after_connect(|connection, _| {
        Box::pin(async move { connection.execute("SET sql_mode = 'STRICT_ALL_TABLES'").await.map(drop) })
    });
    let theirs = MySqlSink::new(theirs.connect_with(options).await.unwrap());
    // 200 for each millisecond of the round trip, which a busy machine lengthens.
    assert!((1_000..=5_000).contains(&ours.efficient_batch_rows()), "{}", ours.efficient_batch_rows());
    assert_eq!((bound.efficient_batch_rows(), theirs.efficient_batch_rows()), (0, 0));
    let schema = schema(Conflict::update(["id"]));
    for (sink, prepared_for_it) in [(ours, 0), (bound, 1), (theirs, 1)] {
        let count = async |name: &str| -> i64 {
            let sql = format!("SHOW SESSION STATUS LIKE '{name}'");
            let (_, value): (String, String) =
                batchsql_mysql::sqlx::query_as(&sql).fetch_one(sink.mysql_pool()).await.unwrap();
            value.parse().unwrap()
        };
        let pipeline = pipeline(&sink);
        let submit = async |rows: i64| {
            let rows = (0..rows).map(|id| row(&schema, id, "it's"));
            assert!(submitted(&pipeline, rows).await.iter().all(Outcome::is_written));
        };
        submit(1).await;
        for rows in [487, 311] {
            // The counters are read by statements that are prepared once.
            let names = ["Com_insert", "Com_begin", "Com_stmt_prepare"];
            for name in names {
                count(name).await;
            }
            let mut before = Vec::new();
            for name in names {
                before.push(count(name).await);
            }
            submit(rows).await;
            let mut did = Vec::new();
            for (name, before) in names.into_iter().zip(before) {
                did.push(count(name).await - before);
            }
            assert_eq!(did, [1, 0, prepared_for_it], "{rows} rows");
        }
    }
}
