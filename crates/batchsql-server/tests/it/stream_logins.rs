//! NATS with TLS, and with the credentials of an operator: what the program sends reaches a real server.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use batchsql_testserver::{Kind, Server};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::program::{Place, until};
use crate::streams::{Cluster, put};

const ROWS: usize = 50;

/// Rows go from a front through the stream to a worker; both log in with these lines of `[nats]`.
fn check(cluster: &Cluster) {
    let worker = cluster.start("worker.toml", &cluster.worker(""));
    let front = cluster.start("front.toml", &cluster.front(""));
    put(front.address(), 0..ROWS);
    until(|| cluster.ids().len() >= ROWS, || format!("{} rows", cluster.ids().len()));
    for program in [front, worker] {
        let (code, log) = program.stop();
        assert_eq!(code, 0, "{log}");
    }
    assert!(cluster.ids().into_iter().eq(0..ROWS as i64));
}

/// What `check` says about a login that does not work.
fn refused(cluster: &Cluster) -> String {
    cluster.place.write("refused.toml", cluster.worker(""));
    let ran = cluster.place.run(&["check", "refused.toml"]);
    assert_ne!(ran.code(), 0, "{}", ran.all());
    ran.all()
}

/// A file that the server may read, which is of another user.
fn shared(place: &Place, name: &str, content: &str) -> String {
    let path = place.write(name, content);
    let folder = path.parent().unwrap();
    for (path, mode) in [(folder, 0o755), (&path, 0o644)] {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    path.display().to_string()
}

#[test]
fn tls_with_certificates_of_both_sides() {
    let place = Place::new();
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (server, client, other) = (make(), make(), make());
    let ca = shared(&place, "server.pem", &server.cert.pem());
    let key = shared(&place, "server.key", &server.signing_key.serialize_pem());
    let certificate = shared(&place, "client.pem", &client.cert.pem());
    let client_key = shared(&place, "client.key", &client.signing_key.serialize_pem());
    let other = shared(&place, "other.pem", &other.cert.pem());
    let tls = format!(
        "tls={{cert_file: \"{ca}\", key_file: \"{key}\", ca_file: \"{certificate}\", verify: true, timeout: 60}}"
    );
    let server = Server::start(Kind::Nats, &[&tls]);
    let url = server.dsn().to_owned();
    let own = |ca: &str| format!("tls = {{ ca = \"{ca}\", certificates = \"{certificate}\", key = \"{client_key}\" }}");
    check(&Cluster::of_sqlite(&url).with_login(&own(&ca)));
    // The scheme alone asks for TLS too.
    check(&Cluster::of_sqlite(&url.replace("nats://", "tls://")).with_login(&own(&ca)));
    let text = refused(&Cluster::of_sqlite(&url).with_login(&own(&other)));
    assert!(text.contains("cannot be reached"), "{text}");
    // Without a certificate of its own.
    let text = refused(&Cluster::of_sqlite(&url).with_login(&format!("tls = {{ ca = \"{ca}\" }}")));
    assert!(text.contains("cannot be reached") || text.contains("refuses the login"), "{text}");
}

/// A token that is signed by `issuer`.
fn token(issuer: &KeyPair, subject: &str, name: &str, nats: &Value) -> String {
    let issued = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims =
        json!({"jti": name, "iat": issued, "iss": issuer.public_key(), "name": name, "sub": subject, "nats": nats});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// What `nsc generate creds` writes.
fn credentials(account: &KeyPair) -> String {
    let user = KeyPair::new_user();
    let rights = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
    let token = token(account, &user.public_key(), "writer", &rights);
    format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY \
         SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    )
}

#[test]
fn credentials_of_an_operator() {
    let (operator, system, account) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let account_token = |pair: &KeyPair, name: &str, jetstream: Value| {
        let mut limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1});
        limits.as_object_mut().unwrap().extend(jetstream.as_object().unwrap().clone());
        let nats =
            json!({"limits": limits, "default_permissions": {"pub": {}, "sub": {}}, "type": "account", "version": 2});
        token(&operator, &pair.public_key(), name, &nats)
    };
    let all = json!({"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let of_operator = json!({"type": "operator", "version": 2, "system_account": system.public_key()});
    let settings = [
        format!("operator={}", token(&operator, &operator.public_key(), "tests", &of_operator)),
        format!("system_account={}", system.public_key()),
        "resolver=MEMORY".to_owned(),
        format!(
            "resolver_preload={{{}: {}, {}: {}}}",
            system.public_key(),
            account_token(&system, "system", json!({})),
            account.public_key(),
            account_token(&account, "rows", all)
        ),
    ];
    let server = Server::start(Kind::Nats, &settings.each_ref().map(String::as_str));
    let login = |place: &Place, content: &str| {
        let path = place.write("writer.creds", content);
        assert!(Path::new(&path).is_absolute());
        format!("credentials_file = \"{}\"", path.display())
    };
    let cluster = Cluster::of_sqlite(server.dsn());
    let own = login(&cluster.place, &credentials(&account));
    check(&cluster.with_login(&own));
    // Of an account that the server does not know, and none at all.
    let cluster = Cluster::of_sqlite(server.dsn());
    let own = login(&cluster.place, &credentials(&KeyPair::new_account()));
    let text = refused(&cluster.with_login(&own));
    assert!(text.contains("refuses the login"), "{text}");
    let text = refused(&Cluster::of_sqlite(server.dsn()));
    assert!(text.contains("refuses the login"), "{text}");
}
