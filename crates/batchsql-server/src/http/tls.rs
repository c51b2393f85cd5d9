//! Owns the certificate of the server.
//! Must not know HTTP, and never shows a key.

use tokio_rustls::TlsAcceptor;

use crate::config::sections::Tls;

/// Reads the certificates, that of the server first, and its key, both PEM.
///
/// # Errors
/// A file cannot be read, or the two do not fit: what to do, and the cause.
pub(crate) fn acceptor(files: &Tls) -> Result<TlsAcceptor, String> {
    batchsql::prometheus::tls_acceptor(&files.certificates, &files.key).map_err(|error| format!("{error:?}"))
}
