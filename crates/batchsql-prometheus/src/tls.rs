//! Owns certificates and the handshake.
//! Must not know HTTP, and never shows a key.

#[cfg(not(feature = "tls"))]
pub(crate) use without::Tls;

#[cfg(feature = "tls")]
pub(crate) use with::Tls;
#[cfg(feature = "tls")]
pub use with::tls_acceptor;

#[cfg(feature = "tls")]
mod with {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use tokio::net::TcpStream;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{Error as TlsError, ServerConfig};
    use tokio_rustls::server::TlsStream;

    use crate::error::{Mistake, PrometheusError};

    /// The server's side of handshakes, from the certificates, that of the server first, and its key, both PEM.
    ///
    /// # Errors
    /// A file cannot be read, a certificate or a key is missing, or the key does not match the certificate.
    pub fn tls_acceptor(certificates: &Path, key: &Path) -> Result<TlsAcceptor, PrometheusError> {
        Tls::from_files(certificates, key).map(|tls| tls.0)
    }

    /// The server's side of a handshake.
    #[derive(Clone)]
    pub(crate) struct Tls(TlsAcceptor);

    impl Tls {
        /// # Errors
        /// A file cannot be read, or an error of [`from_text`](Self::from_text), with the name of the file.
        pub(crate) fn from_files(certificates: &Path, key: &Path) -> Result<Self, PrometheusError> {
            let read = |path: &Path| {
                std::fs::read(path).map_err(|source| Mistake::UnreadableFile { path: path.to_owned(), source })
            };
            let (chain, secret) = (read(certificates)?, read(key)?);
            Self::new(&chain, &secret, &[certificates, key].map(|path| path.display().to_string()))
        }

        /// # Errors
        /// A certificate or a key is missing, or the key does not match the certificate.
        pub(crate) fn from_text(certificates: &str, key: &str) -> Result<Self, PrometheusError> {
            let names = ["the text of the certificates", "the text of the key"].map(str::to_owned);
            Self::new(certificates.as_bytes(), key.as_bytes(), &names)
        }

        fn new(certificates: &[u8], key: &[u8], [of_chain, of_key]: &[String; 2]) -> Result<Self, PrometheusError> {
            let broken = |name: &String| {
                let name = name.clone();
                move |source: PemError| Mistake::BrokenPem { name, source: Box::new(source) }
            };
            let chain: Vec<_> =
                CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().map_err(broken(of_chain))?;
            if chain.is_empty() {
                let name = of_chain.clone();
                return Err(match PrivateKeyDer::from_pem_slice(certificates) {
                    Ok(_) => Mistake::KeyForCertificate { name },
                    Err(_) => Mistake::NoCertificate { name },
                }
                .into());
            }
            let key = match PrivateKeyDer::from_pem_slice(key) {
                Ok(key) => key,
                Err(PemError::NoItemsFound) => {
                    let name = of_key.clone();
                    return Err(match CertificateDer::from_pem_slice(key) {
                        Ok(_) => Mistake::CertificateForKey { name },
                        Err(_) => Mistake::NoKey { name },
                    }
                    .into());
                }
                Err(error) => return Err(broken(of_key)(error).into()),
            };
            // Explicit, so that it does not depend on a default provider of the process.
            let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("ring has cipher suites for the versions that rustls was built with")
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(|error| match error {
                    TlsError::InconsistentKeys(_) => {
                        Mistake::KeyOfAnother { certificates: of_chain.clone(), key: of_key.clone() }
                    }
                    error => Mistake::RefusedByTls { name: of_chain.clone(), source: Box::new(error) },
                })?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(Self(TlsAcceptor::from(Arc::new(config))))
        }

        pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
            self.0.accept(stream).await
        }
    }
}

#[cfg(not(feature = "tls"))]
mod without {
    use std::io;

    use tokio::net::TcpStream;

    /// Replacement without the feature `tls`; it never exists.
    #[derive(Clone)]
    pub(crate) enum Tls {}

    impl Tls {
        pub(crate) async fn accept(&self, _stream: TcpStream) -> io::Result<TcpStream> {
            match *self {}
        }
    }
}
