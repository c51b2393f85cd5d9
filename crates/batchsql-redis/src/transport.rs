//! Owns the bytes between this process and one server: TCP, TLS or a Unix socket, and how a lost peer is detected.
//! Must not know Redis.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use redis::ConnectionAddr;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::fan_out::{Task, first_ok, stagger_delay};
#[cfg(feature = "tls")]
pub(crate) use crate::tls::TlsClient;

/// All addresses of a host are tried within a quarter of this.
const ADDRESSES_WITHIN: Duration = Duration::from_secs(1);

/// Without the feature `tls` there is no client.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Clone)]
pub(crate) enum TlsClient {}

/// A stream of bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects. `silence_limit`: how long the remote system may not answer at all.
pub(crate) async fn open(
    addr: &ConnectionAddr,
    tls: Option<&TlsClient>,
    silence_limit: Duration,
) -> io::Result<Box<dyn Stream>> {
    match addr {
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port, silence_limit).await?)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let stream = tcp(host, *port, silence_limit).await?;
            with_tls(host, stream, tls).await
        }
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no such connections")),
    }
}

async fn tcp(host: &str, port: u16, silence_limit: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    // With staggered starts, because the first may not answer: for example an IPv6 address that is not reachable.
    let tasks = addresses.into_iter().enumerate().map(|(turn, address)| -> Task<'_, _> {
        Box::pin(async move {
            tokio::time::sleep(stagger_delay(turn, ADDRESSES_WITHIN)).await;
            TcpStream::connect(address).await
        })
    });
    let stream = first_ok(tasks.collect()).await.map_err(|mut errors| {
        errors.pop().unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
    })?;
    stream.set_nodelay(true)?;
    notice_silence(&stream, silence_limit)?;
    Ok(stream)
}

/// A lost peer is detected after `limit`: by keepalive probes while nothing is sent, and by unacknowledged data. For
/// Linux, a peer with a full receive buffer counts as one that does not acknowledge.
fn notice_silence(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    // Half of the time without a byte, then three probes in the other half. The socket options are in
    // seconds.
    let second = Duration::from_secs(1);
    let probe = (limit / 6).max(second);
    let keepalive = TcpKeepalive::new().with_time((limit / 2).max(second));
    #[cfg(not(any(target_os = "openbsd", target_os = "redox", target_os = "solaris")))]
    let keepalive = keepalive.with_interval(probe);
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd"))]
    let keepalive = keepalive.with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(limit))?;
    Ok(())
}

#[cfg(feature = "tls")]
async fn with_tls(host: &str, stream: TcpStream, tls: Option<&TlsClient>) -> io::Result<Box<dyn Stream>> {
    let tls = tls.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the options have no TLS"))?;
    tls.connect(host, stream).await.map(|stream| Box::new(stream) as Box<dyn Stream>)
}

#[cfg(not(feature = "tls"))]
async fn with_tls(_: &str, _: TcpStream, _: Option<&TlsClient>) -> io::Result<Box<dyn Stream>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the feature \"tls\" is off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_watches_over_each_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tcp("127.0.0.1", listener.local_addr().unwrap().port(), Duration::from_secs(30)).await.unwrap();
        let socket = SockRef::from(&stream);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(5));
        assert!(stream.nodelay().unwrap());
    }
}
