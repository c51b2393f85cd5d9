//! Streams of NATS JetStream: rows go over HTTP into the log of a front, from there to a stream, and workers write them. Each of
//! them is the program with a configuration of its own.

use std::fmt::Write as _;
use std::net::SocketAddr;

use async_nats::jetstream::{self, Context, stream::Config};
use batchsql_testserver::{Kind, Server, dsn, unique};
use sqlx::{Connection as _, Row as _};

use crate::client::{NDJSON, post, send};
use crate::program::{Place, Running, until};

/// Rows of one request.
pub(crate) const ROWS: usize = 200;

/// A stream, and who reads and writes it.
pub(crate) struct Cluster {
    pub(crate) place: Place,
    url: String,
    /// The lines of `[nats]` beside the servers.
    login: String,
    stream: String,
    /// The section of the database.
    database: String,
    /// Its name in the database.
    table: String,
    /// What its section has beside the name, for a database that does not know it.
    columns: String,
}

impl Cluster {
    fn new(url: &str) -> Self {
        let place = Place::new();
        let (database, table) = (place.database(), "orders".to_owned());
        let login = String::new();
        Self { url: url.to_owned(), login, stream: unique("stream"), database, table, columns: String::new(), place }
    }

    /// With a SQLite file, and a table without a key: a row that is written twice is there twice.
    pub(crate) fn of_sqlite(url: &str) -> Self {
        let cluster = Self::new(url);
        cluster.place.sql("PRAGMA journal_mode = WAL; CREATE TABLE orders (id INTEGER NOT NULL, note TEXT)");
        cluster
    }

    /// With a table of another database that has the columns of [`of_sqlite`](Self::of_sqlite), and this name.
    pub(crate) fn of_database(url: &str, dsn: &str, table: &str) -> Self {
        Self { database: format!("[database]\ndsn = \"{dsn}\"\n"), table: table.to_owned(), ..Self::new(url) }
    }

    /// With these lines in the sections of the table.
    pub(crate) fn with_columns(mut self, columns: &str) -> Self {
        columns.clone_into(&mut self.columns);
        self
    }

    fn stream(&self) -> String {
        let name = &self.stream;
        format!("stream = {{ name = \"{name}\", prefix = \"{name}\", partitions = 4, create = {{ replicas = 1 }} }}\n")
    }

    fn nats(&self) -> String {
        format!("[nats]\nservers = \"{}\"\n{}\n", self.url, self.login)
    }

    /// With other lines in `[nats]`.
    pub(crate) fn with_login(mut self, login: &str) -> Self {
        login.clone_into(&mut self.login);
        self
    }

    /// Takes rows over HTTP. Its log, if it has one, is published exactly once.
    pub(crate) fn front(&self, more: &str) -> String {
        let columns =
            "columns = [{ name = \"id\", type = \"i64\" }, { name = \"note\", type = \"text\", nullable = true }]\n";
        let columns = if self.columns.is_empty() { columns } else { &self.columns };
        format!(
            "{}[publish]\n{}[http]\nlisten = \"127.0.0.1:0\"\n[[tables]]\nname = \"orders\"\ntable = \"{}\"\n{columns}{more}",
            self.nats(),
            self.stream(),
            self.table
        )
    }

    /// Writes rows. `more` is of its source.
    pub(crate) fn worker(&self, more: &str) -> String {
        format!(
            "{}{}[pipeline]\nstatement_timeout = \"2s\"\n[dead_letters]\nfile = \"letters\"\n[metrics]\nlisten = \
             \"127.0.0.1:0\"\n[[tables]]\nname = \"orders\"\ntable = \"{}\"\n{}[[sources]]\nid = \
             \"orders\"\n[sources.jetstream]\n{}{more}\n",
            self.database,
            self.nats(),
            self.table,
            self.columns,
            self.stream()
        )
    }

    /// Starts a program without waiting for anything.
    fn spawn(&self, name: &str, config: &str) -> Running {
        self.place.write(name, config);
        Running::spawn(self.place.command(&["run", name]))
    }

    pub(crate) fn start(&self, name: &str, config: &str) -> Running {
        let mut program = self.spawn(name, config);
        program.wait_for(" ready");
        program
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        let db = self.place.sql("");
        let mut query = db.prepare("SELECT id FROM orders ORDER BY id").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    pub(crate) fn stream_name(&self) -> &str {
        &self.stream
    }

    pub(crate) async fn context(&self) -> Context {
        jetstream::new(async_nats::connect(&self.url).await.unwrap())
    }
}

/// Sends rows with these ids, and returns when they are accepted.
pub(crate) fn put(front: SocketAddr, ids: std::ops::Range<usize>) {
    put_and_wait(front, "accepted", ids);
}

/// The same, and returns when they are that far.
pub(crate) fn put_and_wait(front: SocketAddr, wait: &str, ids: std::ops::Range<usize>) {
    let body = ids.clone().fold(String::new(), |mut body, id| {
        writeln!(body, "{{\"id\":{id},\"note\":\"n{id}\"}}").unwrap();
        body
    });
    let response = post(front, &format!("orders/rows?wait={wait}"), &[NDJSON], body);
    assert_eq!((response.status, response.number("accepted")), (200, ids.len() as u64), "{response:?}");
}

/// What `/ready` says.
pub(crate) fn readiness(metrics: SocketAddr) -> (u16, String) {
    let response = send(metrics, "GET", "/ready", &[], &[]);
    (response.status, response.body)
}

pub(crate) fn metrics_address(program: &mut Running) -> SocketAddr {
    let line = program.has_said("metrics on http://");
    let address = line.split("metrics on http://").nth(1).unwrap().split('/').next().unwrap();
    address.parse().unwrap()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Two workers, one of which is killed while it writes, and a front that is killed too. Every row that was accepted is there once.
fn kill_one_of_two(cluster: &Cluster, ids: &dyn Fn() -> Vec<i64>) {
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\nexactly_once = \"front\"\n";
    let (worker, front) = (cluster.worker("lease = \"5s\""), cluster.front(durable));
    let workers = [cluster.start("a.toml", &worker), cluster.start("b.toml", &worker)];
    let program = cluster.start("front.toml", &front);
    let all = 30 * ROWS;
    for request in 0..10 {
        put(program.address(), request * ROWS..(request + 1) * ROWS);
    }
    until(|| !ids().is_empty(), || "no row is written".to_owned());
    let [first, second] = workers;
    first.kill();
    for request in 10..20 {
        put(program.address(), request * ROWS..(request + 1) * ROWS);
    }
    // Its rows are in the log.
    program.kill();
    let program = cluster.start("front.toml", &front);
    for request in 20..30 {
        put(program.address(), request * ROWS..(request + 1) * ROWS);
    }
    until(|| ids().len() >= all, || format!("{} of {all} rows", ids().len()));
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    let (code, log) = second.stop();
    assert_eq!(code, 0, "{log}");
    // After the ends nobody writes any more: rows that were written twice would be there.
    assert!(ids().into_iter().eq(0..all as i64), "{} rows", ids().len());
    let letters = std::fs::read_to_string(cluster.place.path("letters")).unwrap();
    assert!(letters.is_empty(), "{letters}");
}

#[test]
fn sqlite_has_every_row_once_after_kills() {
    let cluster = Cluster::of_sqlite(&dsn(Kind::Nats));
    kill_one_of_two(&cluster, &|| cluster.ids());
}

#[test]
fn postgres_has_every_row_once_after_kills() {
    let (dsn_of_db, table, runtime) = (dsn(Kind::Postgres), unique("orders"), runtime());
    let execute = |sql: &str| {
        runtime.block_on(async {
            let mut connection = sqlx::PgConnection::connect(&dsn_of_db).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
        });
    };
    execute(&format!("CREATE TABLE {table} (id BIGINT NOT NULL, note TEXT)"));
    let cluster = Cluster::of_database(&dsn(Kind::Nats), &dsn_of_db, &table);
    let ids = || -> Vec<i64> {
        runtime.block_on(async {
            let mut connection = sqlx::PgConnection::connect(&dsn_of_db).await.unwrap();
            let query = format!("SELECT id FROM {table} ORDER BY id");
            let rows = sqlx::query(&query).fetch_all(&mut connection).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        })
    };
    kill_one_of_two(&cluster, &ids);
    execute(&format!("DROP TABLE {table}"));
}

#[test]
fn redis_is_written_at_least_once() {
    let (url, table, runtime) = (dsn(Kind::Redis), unique("orders"), runtime());
    let cluster = Cluster { table: table.clone(), ..Cluster::new(&dsn(Kind::Nats)) };
    let columns = "rule = \"update\"\nkey = [\"id\"]\ncolumns = [{ name = \"id\", type = \"i64\" }, { name = \"note\", type = \
                   \"text\", nullable = true }]\n";
    let cluster =
        Cluster { database: format!("[database]\ndsn = \"{url}\"\n"), columns: columns.to_owned(), ..cluster };
    // Without a log: rows are accepted when they are in the buffer, and written when the stream has them.
    let front = cluster.start("front.toml", &cluster.front(""));
    let worker = cluster.start("a.toml", &cluster.worker(""));
    let body = "{\"id\":1,\"note\":\"a\"}\n{\"id\":2,\"note\":\"b\"}\n";
    let response = post(front.address(), "orders/rows?wait=written", &[NDJSON], body);
    assert_eq!(response.json()["outcomes"]["written"], 2, "{response:?}");
    let has = || -> bool {
        runtime.block_on(async {
            let client = redis::Client::open(url.as_str()).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let keys: Vec<String> =
                redis::cmd("KEYS").arg(format!("{table}*")).query_async(&mut connection).await.unwrap();
            keys.len() == 2
        })
    };
    until(has, || "the rows are not in Redis".to_owned());
    assert_eq!((front.stop().0, worker.stop().0), (0, 0));
}

#[test]
fn a_server_that_is_unreachable_at_the_start_is_waited_for() {
    let mut server = Server::start(Kind::Nats, &[]);
    let cluster = Cluster::of_sqlite(server.dsn());
    server.stop();
    let mut worker = cluster.spawn("a.toml", &cluster.worker(""));
    let metrics = metrics_address(&mut worker);
    worker.wait_for("source orders waits for NATS");
    let waits = (503, "not ready\nsource orders: waits for NATS\n".to_owned());
    until(|| readiness(metrics) == waits, || format!("{:?}", readiness(metrics)));
    let mut front = cluster.spawn("front.toml", &cluster.front(""));
    front.wait_for("[publish] waits for NATS");
    // A signal ends the wait.
    let (code, log) = front.stop();
    assert_eq!(code, 3, "{log}");
    let mut front = cluster.spawn("front.toml", &cluster.front(""));
    front.wait_for("[publish] waits for NATS");
    // With a log rows are accepted meanwhile.
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n";
    let logged = cluster.start("logged.toml", &cluster.front(durable));
    put_and_wait(logged.address(), "logged", ROWS..2 * ROWS);
    server.start_again();
    front.wait_for(" ready");
    worker.wait_for(" ready");
    until(|| readiness(metrics).0 == 200, || format!("{:?}", readiness(metrics)));
    put(front.address(), 0..ROWS);
    until(|| cluster.ids().len() == 2 * ROWS, || format!("{} rows", cluster.ids().len()));
    let has_all = "ready\nsource orders: 4 partitions, ";
    until(|| readiness(metrics).1.starts_with(has_all), || format!("{:?}", readiness(metrics)));
    // And one that is stopped later.
    server.stop();
    until(|| readiness(metrics).0 == 503, || format!("{:?}", readiness(metrics)));
    server.start_again();
    until(|| readiness(metrics).0 == 200, || format!("{:?}", readiness(metrics)));
    assert_eq!((front.stop().0, logged.stop().0, worker.stop().0), (0, 0, 0));
}

/// It is in the stream.
#[test]
fn the_position_of_a_front_is_in_no_database() {
    let mut server = Server::start(Kind::Nats, &[]);
    let cluster = Cluster::of_sqlite(server.dsn());
    server.stop();
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\nexactly_once = \"front\"\n";
    let mut front = cluster.start("front.toml", &cluster.front(durable));
    put_and_wait(front.address(), "logged", 0..ROWS);
    let line = front.has_said("its position cannot be claimed: NATS has not answered");
    assert!(line.contains("trying again"), "{line}");
    assert_eq!(front.stop().0, 4);
}

/// Others do not wait for the leases of a worker that has ended.
#[test]
fn a_worker_that_ends_gives_its_partitions_away() {
    let cluster = Cluster::of_sqlite(&dsn(Kind::Nats));
    let front = cluster.start("front.toml", &cluster.front(""));
    let worker = cluster.start("a.toml", &cluster.worker("worker = \"one\"\nlease = \"1h\""));
    put(front.address(), 0..ROWS);
    let holders = "SELECT count(*) FROM batchsql_positions WHERE session = 'one'";
    until(|| cluster.ids().len() == ROWS, || format!("{} rows", cluster.ids().len()));
    assert!(cluster.place.number(holders) > 0);
    let (code, log) = worker.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(cluster.place.number(holders), 0, "{log}");
    // Another one goes on at once: an hour would be too long for this test.
    put(front.address(), ROWS..2 * ROWS);
    let other = cluster.start("b.toml", &cluster.worker("worker = \"two\"\nlease = \"1h\""));
    until(|| cluster.ids().len() == 2 * ROWS, || format!("{} rows", cluster.ids().len()));
    assert_eq!((front.stop().0, other.stop().0), (0, 0));
}

/// A worker that was killed and has the same name again goes on at once with its own partitions.
#[test]
fn a_worker_with_a_name_of_its_own_goes_on_after_a_kill() {
    let cluster = Cluster::of_sqlite(&dsn(Kind::Nats));
    let front = cluster.start("front.toml", &cluster.front(""));
    let config = cluster.worker("worker = \"one\"\nlease = \"1h\"");
    let worker = cluster.start("a.toml", &config);
    put(front.address(), 0..ROWS);
    until(|| cluster.ids().len() == ROWS, || format!("{} rows", cluster.ids().len()));
    worker.kill();
    put(front.address(), ROWS..2 * ROWS);
    let worker = cluster.start("a.toml", &config);
    until(|| cluster.ids().len() == 2 * ROWS, || format!("{} rows", cluster.ids().len()));
    assert_eq!((front.stop().0, worker.stop().0), (0, 0));
    assert!(cluster.ids().into_iter().eq(0..2 * ROWS as i64));
}

#[test]
fn missing_messages_stop_a_source_until_a_person_accepts_them() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let front = cluster.start("front.toml", &cluster.front(""));
    // Rows without a key are in any partition: each batch is in the next one.
    for request in 0..8 {
        put_and_wait(front.address(), "written", request * 10..(request + 1) * 10);
    }
    assert_eq!(front.stop().0, 0);
    runtime.block_on(async {
        let stream = cluster.context().await.get_stream(&cluster.stream).await.unwrap();
        let last = stream.cached_info().state.last_sequence;
        assert!(last >= 8, "{last} messages in 4 partitions");
        stream.delete_message(1).await.unwrap();
    });
    let mut worker = cluster.spawn("a.toml", &cluster.worker(""));
    let metrics = metrics_address(&mut worker);
    let line = worker.wait_for("a partition has stopped");
    assert!(line.contains("missing"), "{line}");
    until(|| readiness(metrics).1.contains("1 partitions have stopped"), || format!("{:?}", readiness(metrics)));
    assert_eq!(readiness(metrics).0, 503);
    let (_, log) = worker.stop();
    assert!(cluster.ids().len() < 70, "{log}");

    cluster.place.write("a.toml", cluster.worker(""));
    let wrong = cluster.place.run(&["run", "a.toml", "--accept-gap", "order"]);
    assert!(
        wrong.code() == 2 && wrong.err().contains("--accept-gap order: there is no such source"),
        "{}",
        wrong.all()
    );
    let worker = Running::start(cluster.place.command(&["run", "a.toml", "--accept-gap", "orders"]));
    until(|| cluster.ids().len() >= 70, || format!("{} rows", cluster.ids().len()));
    let (_, log) = worker.stop();
    assert!(cluster.ids().len() < 80 && log.contains("rows are missing; going on"), "{log}");
}

#[test]
fn streams_that_cannot_be_used_end_the_program() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let without_create = |config: String| config.replace(", create = { replicas = 1 }", "");
    let check = |config: &str, part: &str| {
        cluster.place.write("b.toml", config);
        let ran = cluster.place.run(&["run", "b.toml"]);
        assert!(ran.code() == 1 && ran.err().contains(part), "{part:?}: {}", ran.all());
        let checked = cluster.place.run(&["check", "b.toml"]);
        assert!(checked.code() == 1 && checked.out().contains(part), "{part:?}: {}", checked.all());
    };
    let missing = format!("there is no stream {}; correct its name, or give it `create", cluster.stream);
    check(&without_create(cluster.worker("")), &missing);
    check(&without_create(cluster.front("")), &missing);
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n";
    check(&without_create(cluster.front(durable)), &missing);
    let name = cluster.stream.clone();
    let config = Config { subjects: vec![format!("{name}.>")], name, max_bytes: 1 << 20, ..Config::default() };
    runtime.block_on(async { cluster.context().await.create_stream(config).await.unwrap() });
    for part in ["it has the subjects", "discard is old", "batchsql-partitions"] {
        check(&cluster.worker(""), part);
        check(&cluster.front(""), part);
    }
    // A login that is refused is not waited for.
    let server = Server::start(Kind::Nats, &["authorization={ token: s3cret }"]);
    let cluster = Cluster::of_sqlite(server.dsn());
    let place = &cluster.place;
    place.write("b.toml", cluster.worker(""));
    let refused = place.run(&["run", "b.toml"]);
    assert!(refused.code() == 3 && refused.err().contains("refuses the login"), "{}", refused.all());
    let config = cluster.worker("").replace("[nats]\n", "[nats]\ntoken = \"s3cret\"\n");
    let worker = cluster.start("b.toml", &config);
    let (code, log) = worker.stop();
    assert!(code == 0 && !log.contains("s3cret"), "{log}");
}

#[test]
fn a_check_looks_at_the_stream_and_the_positions() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let check = |name: &str, config: &str, code: i32, parts: &[&str]| {
        cluster.place.write(name, config);
        let ran = cluster.place.run(&["check", name]);
        assert_eq!(ran.code(), code, "{}", ran.all());
        for part in parts {
            assert!(ran.out().contains(part), "{part:?} is not in:\n{}", ran.all());
        }
    };
    let (worker, front) = (cluster.worker(""), cluster.front("[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\n"));
    let missing = "it is missing; `run` makes it with 1 replicas";
    check("a.toml", &worker, 0, &["exactly once, tables orders", "accepts the login; version 2.", missing]);
    check("front.toml", &front, 0, &["insert in orders, 2 columns", missing]);
    let repeats = worker.replace("[sources.jetstream]\n", "[sources.jetstream]\nguarantee = \"at_least_once\"\n");
    check("b.toml", &repeats, 0, &["warn", "doubles rows of a plain insert"]);
    // What would end `run` is found before the stream is made.
    let adds = front.replace("columns =", "rule = \"update\"\nkey = [\"note\"]\nset = { id = \"add\" }\ncolumns =");
    let adds = adds.replace(", nullable = true", "");
    check("b.toml", &adds, 1, &["use `exactly_once` in [durable], or use another rule", missing]);
    let program = cluster.start("front.toml", &front);
    let writer = cluster.start("a.toml", &worker);
    put(program.address(), 0..ROWS);
    until(|| cluster.ids().len() == ROWS, || format!("{} rows", cluster.ids().len()));
    assert_eq!((program.stop().0, writer.stop().0), (0, 0));
    let stream = "4 partitions, 1 replicas, discard new, no limit of its own";
    check(
        "a.toml",
        &worker,
        0,
        &[stream, "sync_interval", "partitions have one that fits the stream, 0 workers hold leases"],
    );
    check("front.toml", &front, 0, &[stream, "sync_interval"]);
    let wrong = "it has 4 partitions, and the program says 5";
    check("b.toml", &worker.replace("partitions = 4", "partitions = 5"), 1, &[wrong]);
    // Rows of a table that nobody writes.
    let others = worker.replace("name = \"orders\"", "name = \"others\"");
    cluster.place.sql("CREATE TABLE others (id INTEGER)");
    let others = others.replace("table = \"orders\"\n", "");
    check("b.toml", &others, 0, &["it has rows of tables that are not written here: orders"]);
    // The database is ahead of the stream.
    cluster.place.sql("UPDATE batchsql_positions SET sequence = sequence + 100 * 1048576 WHERE sequence > 0");
    check("a.toml", &worker, 1, &["but the stream ends at"]);
    runtime.block_on(async { cluster.context().await.delete_stream(&cluster.stream).await.unwrap() });
    let offline = cluster.place.run(&["check", "a.toml", "--offline"]);
    assert!(offline.code() == 0 && offline.out().contains("not asked (--offline)"), "{}", offline.all());
    let unreachable = worker.replace(&cluster.nats(), "[nats]\nservers = \"nats://127.0.0.1:1\"\n");
    check("b.toml", &unreachable, 3, &["nats           127.0.0.1:1: 127.0.0.1:1 cannot be reached"]);
}
