//! The cluster of `docker/docker-compose.cluster.yml` without containers: three servers of NATS, and a front and three workers with
//! the files of `docker/cluster`. One of each is killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use batchsql_testserver::{Kind, Server, dsn, unique};
use serde_json::json;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::client::{JSON, post};
use crate::program::{Place, Running, until};
use crate::streams::metrics_address;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const TOKEN: &str = "t0ken";

fn file(name: &str) -> PathBuf {
    Path::new(ROOT).join("docker/cluster").join(name)
}

/// Three servers that know each other.
fn servers() -> [Server; 3] {
    // The ports between them are free now.
    let ports = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = ports.map(|listener| listener.local_addr().unwrap().port());
    let routes = ports.map(|port| format!("\"nats://127.0.0.1:{port}\"")).join(", ");
    [0, 1, 2].map(|number| {
        let listen = format!("listen: \"127.0.0.1:{}\"", ports[number]);
        let cluster = format!("cluster={{ name: batchsql, {listen}, routes: [{routes}] }}");
        let name = format!("server_name=nats-{number}");
        let token = format!("authorization={{ token: \"{TOKEN}\" }}");
        Server::start(Kind::Nats, &[&cluster, &name, &token])
    })
}

struct Cluster {
    place: Place,
    servers: String,
    database: String,
}

impl Cluster {
    fn command(&self, name: &str, config: &str, verb: &str) -> Command {
        let mut command = self.place.command(&[verb, file(config).to_str().unwrap()]);
        let data = self.place.path(name);
        std::fs::create_dir_all(&data).unwrap();
        command.env("DATA", data).env("SECRETS", self.place.path("secrets")).env("HOSTNAME", name);
        command.env("LISTEN", "127.0.0.1:0").env("METRICS", "127.0.0.1:0").env("MAX_BYTES", "100MiB");
        command.env("NATS_URL", &self.servers).env("DATABASE", &self.database);
        command
    }

    /// Starts a program, and returns it with the address of its metrics.
    fn start(&self, name: &str, config: &str) -> (Running, SocketAddr) {
        let mut program = Running::spawn(self.command(name, config, "run"));
        let metrics = metrics_address(&mut program);
        program.wait_for(" ready");
        (program, metrics)
    }
}

/// The health check of the compose file, with another port.
fn is_healthy(metrics: SocketAddr) -> bool {
    let compose = std::fs::read_to_string(file("../docker-compose.cluster.yml")).unwrap();
    let script = compose.lines().find_map(|line| line.split_once("[CMD, bash, -c, '")?.1.strip_suffix("']")).unwrap();
    let script = script.replace("/9090;", &format!("/{};", metrics.port()));
    let ran = Command::new("timeout").args(["10", "bash", "-c", &script]).output().unwrap();
    ran.status.success()
}

#[test]
fn a_cluster_loses_nothing_when_one_of_each_is_killed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (shared, name) = (dsn(Kind::Postgres), unique("cluster"));
    let execute = |dsn: &str, sql: &str| {
        runtime.block_on(async {
            let mut connection = PgConnection::connect(dsn).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        });
    };
    execute(&shared, &format!("CREATE DATABASE {name}"));
    let (server, parameters) = shared.split_once('?').unwrap_or((&shared, ""));
    let (server, _) = server.rsplit_once('/').unwrap();
    let database = format!("{server}/{name}?{parameters}");
    execute(&database, &std::fs::read_to_string(file("schema.sql")).unwrap());

    let place = Place::new();
    std::fs::create_dir(place.path("secrets")).unwrap();
    let (scheme, rest) = database.split_once("://").unwrap();
    let (user, host) = rest.split_once('@').unwrap();
    let (user, password) = user.split_once(':').unwrap();
    let secrets = [("postgres_password", password), ("nats_token", TOKEN), ("http_token", "h"), ("metrics_token", "m")];
    for (name, secret) in secrets {
        place.write(&format!("secrets/{name}"), secret);
    }
    // The other variables have the values of the containers, whose folders are not here.
    for config in ["front.toml", "worker.toml"] {
        let mut command = place.command(&["check", file(config).to_str().unwrap(), "--offline"]);
        command.env("SECRETS", place.path("secrets")).env("HOSTNAME", "worker-1").env("DATA", place.folder());
        let ran = crate::program::Ran(command.output().unwrap());
        assert_eq!(ran.code(), 0, "{}", ran.all());
    }
    let mut servers = servers();
    let urls = servers.each_ref().map(|server| server.dsn().to_owned()).join(",");
    let cluster = Cluster { place, servers: urls, database: format!("{scheme}://{user}@{host}") };
    let (front, front_metrics) = cluster.start("front", "front.toml");
    let [first, second, third] = ["worker-1", "worker-2", "worker-3"].map(|name| cluster.start(name, "worker.toml"));
    for metrics in [front_metrics, first.1, second.1, third.1] {
        until(|| is_healthy(metrics), || format!("{metrics} is not healthy"));
    }

    let versions = || -> (i64, i64) {
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&database).await.unwrap();
            let query = "SELECT count(*), coalesce(sum(version), 0)::bigint FROM orders";
            let row = sqlx::query(query).fetch_one(&mut connection).await.unwrap();
            (row.get(0), row.get(1))
        })
    };
    let put = |version: i64, ids: std::ops::Range<i64>| {
        let rows: Vec<_> =
            ids.map(|id| json!({ "id": id, "customer": "c", "total": 1.5, "version": version })).collect();
        let headers = [JSON, ("Authorization", "Bearer h")];
        let response = post(front.address(), "orders/rows?wait=logged", &headers, json!(rows).to_string());
        assert_eq!((response.status, response.number("accepted")), (200, rows.len() as u64), "{response:?}");
    };
    assert_eq!(post(front.address(), "orders/rows", &[JSON], "[]").status, 401, "a token is needed");
    put(1, 0..1000);
    until(|| versions() == (1000, 1000), || format!("{:?}", versions()));
    let check = |name: &str, config: &str| {
        let ran = crate::program::Ran(cluster.command(name, config, "check").output().unwrap());
        let is_so =
            ran.code() == 0 && ran.out().contains("16 partitions, 3 replicas") && !ran.out().contains("sync_interval");
        assert!(is_so, "{}", ran.all());
        ran.out()
    };
    check("front-check", "front.toml");
    let found = check("worker-1", "worker.toml");
    assert!(found.contains("3 workers hold leases"), "{found}");

    // Some of the second versions are sent before the kills, some in between, some after them.
    put(2, 0..300);
    let (second, metrics) = second;
    second.kill();
    assert!(!is_healthy(metrics));
    put(2, 300..600);
    servers[0].kill();
    put(2, 600..1000);
    // It has the name that it had.
    let (second, _) = cluster.start("worker-2", "worker.toml");
    until(|| versions() == (1000, 2000), || format!("{:?}", versions()));
    servers[0].start_again();
    put(3, 0..1000);
    until(|| versions() == (1000, 3000), || format!("{:?}", versions()));
    for program in [front, first.0, second, third.0] {
        let (code, log) = program.stop();
        assert_eq!(code, 0, "{log}");
    }
    execute(&shared, &format!("DROP DATABASE {name} WITH (FORCE)"));
}
