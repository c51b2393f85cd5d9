//! Owns the client side of TLS: the trusted authorities, and the client certificate.
//! Must not know Redis.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Created once and used for every connection.
#[derive(Clone)]
pub(crate) struct TlsClient(Arc<ClientConfig>);

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").finish_non_exhaustive()
    }
}

impl TlsClient {
    /// `ca`: a file of the authorities to trust, instead of those of the system. `identity`: the files of the client
    /// certificate and of its key.
    ///
    /// # Errors
    /// A file cannot be used; the text contains advice.
    pub(crate) fn new(ca: Option<&str>, identity: Option<(&str, &str)>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(ca) => {
                for certificate in certificates(ca)? {
                    roots.add(certificate).map_err(|_| no_certificates(ca))?;
                }
            }
            // Certificates of the system that cannot be read are not trusted; the others are.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        // The crypto provider of the process, if the application chose one.
        let provider = rustls::crypto::CryptoProvider::get_default().cloned();
        let provider = provider.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|_| "the crypto provider of this process has no TLS 1.2 or 1.3".to_owned())?;
        let config = config.with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                config.with_client_auth_cert(chain, private_key(key)?).map_err(|error| {
                    format!("the key {key} does not belong to certificate {cert}, or one of them is invalid: {error}")
                })?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned());
        let name =
            name.map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host has no valid name for TLS"))?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}

fn no_certificates(file: &str) -> String {
    format!("the file {file} has no certificates in PEM form; name another one")
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem =
        std::fs::read(Path::new(file)).map_err(|error| format!("cannot read the certificates {file}: {error}"))?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(no_certificates(file)),
    }
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, String> {
    let pem = std::fs::read(Path::new(file)).map_err(|error| format!("cannot read the key {file}: {error}"))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| format!("the file {file} has no private key in PEM form; name another one (without a passphrase)"))
}
