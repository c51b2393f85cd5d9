//! Owns the certificate of the server.
//! Must not know HTTP, and never shows a key.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::sections::Tls;

/// Reads the certificates, that of the server first, and its key, both PEM.
///
/// # Errors
/// A file cannot be read, or the two do not fit.
pub(crate) fn acceptor(files: &Tls) -> Result<TlsAcceptor, String> {
    let chain = read(&files.certificates)?;
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{} is not PEM: {error}", files.certificates.display()))?;
    if chain.is_empty() {
        return Err(format!("{} has no certificate; name the file with the chain", files.certificates.display()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| format!("{} has no private key: {error}", files.key.display()))?;
    // Explicit, so that it does not depend on a default provider of the process.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for the versions that rustls was built with")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("{} does not fit its key: {error}", files.certificates.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
