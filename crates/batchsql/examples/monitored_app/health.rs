//! Owns the health check: whether the service on this machine is ready, by `/ready`.
//! Must not know the service itself; it runs in a process of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::Result;
use crate::settings::{Settings, Tls};

const PATIENCE: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// # Errors
/// The service does not answer within two seconds, or is not ready.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    let address = SocketAddr::new(reachable(settings.bind[0]), settings.port);
    let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| format!("{address}: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let answer = match &settings.tls {
        None => ask(stream)?,
        Some(tls) => ask(StreamOwned::new(secured(tls)?, stream))?,
    };
    match answer.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("{address} is not ready: {}", answer.lines().next().unwrap_or("no answer")).into()),
    }
}

/// A service that listens on every address is asked on loopback.
fn reachable(bind: IpAddr) -> IpAddr {
    match bind {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn ask(mut stream: impl Read + Write) -> Result<String> {
    stream.write_all(REQUEST)?;
    let mut head = [0; 64];
    let mut length = 0;
    // The first line is enough.
    while length < head.len() && !head[..length].contains(&b'\n') {
        match stream.read(&mut head[length..])? {
            0 => break,
            bytes => length += bytes,
        }
    }
    Ok(String::from_utf8_lossy(&head[..length]).into_owned())
}

fn secured(tls: &Tls) -> Result<ClientConnection> {
    let Some(file) = &tls.authority else {
        return Err("METRICS_TLS_CA_FILE is not set; the health check needs the authority of the certificate".into());
    };
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        authorities.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Ok(ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?)
}
