//! TLS, with a certificate authority that the test creates.

use std::path::Path;
use std::process::Command as Process;

use batchsql_core::{ColumnType, Schema};
use batchsql_redis::{Command, Key, RedisOptions, RedisSink};
use batchsql_testserver::{Kind, Server};

use crate::support::{row, write};

fn openssl(dir: &Path, arguments: &str) {
    let output =
        Process::new("openssl").current_dir(dir).args(arguments.split(' ')).output().expect("openssl is there");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate authority, and a server's certificate for `localhost`.
fn certificates(dir: &Path) {
    openssl(dir, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca");
    openssl(dir, "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost");
    std::fs::write(dir.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(
        dir,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
    // The server may run as another user.
    #[cfg(unix)]
    for file in ["", "server.key", "server.pem", "ca.pem"] {
        std::fs::set_permissions(dir.join(file), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn rows_go_through_tls_only_to_who_is_known() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let port = free_port();
    let _server = Server::start(
        Kind::Redis,
        &[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-auth-clients",
            "no",
        ],
    );
    let schema = Schema::builder("t").column("v", ColumnType::I64).build().unwrap();
    let options: RedisOptions = format!("rediss://localhost:{port}?ca={}", file("ca.pem")).parse().unwrap();
    let sink = RedisSink::with_options(&options.command("t", Command::sadd(Key::constant("s"), "v"))).await.unwrap();
    let rows = (0..1_000_i64).map(|v| row(&schema, [v.into()]));
    assert!(write(&sink, rows).await.iter().all(|outcome| outcome == "written"));

    let refused = async |dsn: String, part: &str| {
        let error = RedisSink::connect(&dsn).await.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{error} does not contain {part:?}");
    };
    // The server is not trusted: its authority is not one of the system's.
    refused(format!("rediss://:hunter2@localhost:{port}"), "certificate").await;
    // The certificate is for another name.
    refused(format!("rediss://:hunter2@127.0.0.1:{port}?ca={}", file("ca.pem")), "certificate").await;
    // Plain text to a server that expects TLS.
    refused(format!("redis://:hunter2@localhost:{port}"), "TLS").await;
    refused("rediss://:hunter2@localhost?ca=/no/such/file".into(), "cannot read the certificates").await;
    refused(format!("rediss://:hunter2@localhost?ca={}", file("names")), "no certificates in PEM form").await;
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    openssl(dir.path(), "req -newkey rsa:2048 -nodes -keyout app.key -out app.csr -subj /CN=app");
    openssl(
        dir.path(),
        "x509 -req -in app.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out app.pem -days 2 -extfile names",
    );
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let port = free_port();
    let arguments = [("port", port.to_string()), ("cert-file", file("server.pem")), ("key-file", file("server.key"))];
    let arguments = arguments.into_iter().chain([("ca-cert-file", file("ca.pem")), ("auth-clients", "yes".to_owned())]);
    let arguments: Vec<String> = arguments.flat_map(|(name, value)| [format!("--tls-{name}"), value]).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _server = Server::start(Kind::Redis, &arguments);
    let dsn = format!("rediss://localhost:{port}?ca={}", file("ca.pem"));
    let named = format!("{dsn}&cert={}&key={}", file("app.pem"), file("app.key"));
    let options: RedisOptions = named.parse().unwrap();
    let sink = RedisSink::with_options(&options.command("t", Command::sadd(Key::constant("s"), "v"))).await.unwrap();
    let schema = Schema::builder("t").column("v", ColumnType::I64).build().unwrap();
    assert_eq!(write(&sink, [row(&schema, [1_i64.into()])]).await, ["written"]);

    let refused = async |dsn: String, part: &str| {
        let error = RedisSink::connect(&dsn).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error} does not contain {part:?}");
    };
    refused(dsn.clone(), "certificate").await;
    refused(format!("{dsn}&cert={}", file("app.pem")), "belong together").await;
    refused(format!("{dsn}&cert={}&key={}", file("app.pem"), file("server.key")), "does not belong").await;
    refused(format!("{dsn}&cert={}&key={}", file("app.pem"), file("app.pem")), "no private key").await;
    refused(format!("{dsn}&cert={}&key={}", file("none.pem"), file("app.key")), "cannot read the certificates").await;
    refused(format!("redis://localhost:{port}?key={}", file("app.key")), "key is for rediss://").await;
}
