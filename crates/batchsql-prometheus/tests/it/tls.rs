//! Owns the checks of HTTPS: valid and invalid certificates, and clients without a complete handshake.
//! Must not know metrics.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};
use rcgen::CertifiedKey;
use rustls::RootCertStore;
use tempfile::TempDir;

use crate::http::{Connection, connect};

/// A self-signed certificate of `localhost`, and its key.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) roots: RootCertStore,
}

pub(crate) fn identity() -> Identity {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    Identity { certificate: cert.pem(), key: signing_key.serialize_pem(), roots }
}

async fn started(options: ServerOptions) -> (PrometheusMetrics, SocketAddr) {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server_with(options.port(0)).await.unwrap();
    (metrics, address)
}

fn files(certificate: &str, key: &str) -> (TempDir, ServerOptions) {
    let folder = tempfile::tempdir().unwrap();
    let [of_certificate, of_key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&of_certificate, certificate).unwrap();
    std::fs::write(&of_key, key).unwrap();
    let options = ServerOptions::new().tls_pem_files(of_certificate, of_key);
    (folder, options)
}

#[tokio::test]
async fn metrics_are_served_over_tls_from_text_and_from_files() {
    let identity = identity();
    let (_folder, of_files) = files(&identity.certificate, &identity.key);
    let of_text = ServerOptions::new().tls_pem(&identity.certificate, &identity.key);
    for options in [of_text, of_files] {
        let (metrics, address) = started(options.bearer_token("s3cret")).await;
        let mut connection = Connection::open_tls(address, identity.roots.clone());
        assert_eq!(connection.ask("GET", "/metrics", &[]).status, 401);
        let headers = [("Authorization", "Bearer s3cret"), ("Accept-Encoding", "gzip")];
        let answer = connection.ask("GET", "/metrics", &headers);
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains("batchsql_build_info"), "{}", answer.body);
        assert_eq!(connection.ask("GET", "/ready", &[]).body, "ready");
        metrics.stop_server().await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_work_is_told_by_what_is_wrong_with_it() {
    let (good, other) = (identity(), identity());
    let broken = good.key.replace("-----END", "-----");
    let encrypted = good.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let certificate_of_nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificate, key, part) in [
        (good.certificate.as_str(), other.key.as_str(), "does not match the first certificate in"),
        ("", &good.key, "there is no certificate in"),
        (&good.key, &good.key, "but a private key; certificate first, key second: are they swapped?"),
        (&good.key, &good.certificate, "but a private key; certificate first"),
        (&good.certificate, "", "there is no private key in"),
        (&good.certificate, &good.certificate, "but a certificate; certificate first, key second: are they swapped?"),
        (&good.certificate, &encrypted, "an encrypted one must be decrypted first"),
        (&good.certificate, &broken, "is not valid PEM"),
        (&good.certificate, no_key, "cannot be used"),
        (certificate_of_nothing, &good.key, "cannot be used"),
    ] {
        let (folder, of_files) = files(certificate, key);
        for (options, name) in
            [(of_files, folder.path().to_str().unwrap()), (ServerOptions::new().tls_pem(certificate, key), "the text")]
        {
            let metrics = PrometheusMetrics::new().unwrap();
            let error = metrics.start_server_with(options.port(0)).await.unwrap_err();
            let message = error.to_string();
            assert!(message.contains(part) && message.contains(name), "{message:?}: {part:?}, {name:?}");
            assert!(error.is_invalid_options(), "{message}");
            let secret = good.key.lines().nth(1).unwrap();
            assert!(!format!("{error:?}").contains(secret), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named() {
    let identity = identity();
    let (folder, _) = files(&identity.certificate, &identity.key);
    let [certificate, key, missing] = ["cert.pem", "key.pem", "missing.pem"].map(|name| folder.path().join(name));
    let check = async |certificate: &Path, key: &Path| {
        let metrics = PrometheusMetrics::new().unwrap();
        let error = metrics.start_server_with(ServerOptions::new().tls_pem_files(certificate, key)).await.unwrap_err();
        let message = error.to_string();
        assert!(message.contains("cannot read") && message.contains("missing.pem"), "{message}");
        let io = std::error::Error::source(&error).expect("the error of the system is the source");
        assert!(io.to_string().contains("No such file"), "{io}");
        assert_eq!(format!("{error:?}"), format!("{message}: {io}"), "as a main that returns the error prints it");
    };
    check(&certificate, &missing).await;
    check(&missing, &key).await;
}

#[tokio::test]
async fn one_file_may_have_everything() {
    let identity = identity();
    let (folder, _) = files(&format!("{}{}", identity.key, identity.certificate), "");
    let path = folder.path().join("cert.pem");
    let (metrics, address) = started(ServerOptions::new().tls_pem_files(&path, &path)).await;
    assert_eq!(Connection::open_tls(address, identity.roots.clone()).ask("GET", "/health", &[]).body, "ok");
    metrics.stop_server().await.unwrap();
}

/// What a client without TLS receives. The connection must end soon.
fn answer_to(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // The server may have closed it after the first bytes.
    let _ = stream.write_all(sent);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[tokio::test]
async fn what_is_no_tls_is_refused_and_harms_nobody() {
    let identity = identity();
    let options = ServerOptions::new().tls_pem(&identity.certificate, &identity.key);
    let (metrics, address) = started(options.header_time(Duration::from_secs(2))).await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    for round in 0..200 {
        let mut garbage: Vec<u8> = (0..1024).map(|_| noise()).collect();
        if round % 2 == 0 {
            // The head of a TLS record, then random bytes.
            garbage.splice(..5, [22, 3, 1, 2, 0]);
        }
        let answer = answer_to(address, &garbage);
        assert!(answer.len() < 64, "an alert at most: {answer:?}");
    }
    let plain = answer_to(address, b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(!String::from_utf8_lossy(&plain).contains("batchsql_"), "metrics were sent without TLS");
    assert_eq!(Connection::open_tls(address, identity.roots.clone()).ask("GET", "/metrics", &[]).status, 200);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_gives_its_place_back() {
    let identity = identity();
    let options = ServerOptions::new().tls_pem(&identity.certificate, &identity.key);
    let limit = Duration::from_millis(500);
    let (metrics, address) = started(options.max_connections(2).header_time(limit)).await;
    let mut stuck: Vec<_> = (0..4).map(|_| connect(address)).collect();
    for stream in &mut stuck[2..] {
        // The start of a record that never ends.
        stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    }
    let begin = Instant::now();
    let answer = Connection::open_tls(address, identity.roots.clone()).ask("GET", "/metrics", &[]);
    assert_eq!(answer.status, 200);
    assert!(begin.elapsed() < Duration::from_secs(60), "it waited for {:?}", begin.elapsed());
    let begin = Instant::now();
    metrics.stop_server().await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(60), "stopping waited for a handshake");
}
