//! Owns the transfer of the bytes of a batch to the server, and of the replies back.
//! Must not know what commands and replies mean.
//!
//! A connection has two users, one after the other: the client of `redis`, which performs the handshake, sends
//! queries and detects a closed connection; and a batch, which borrows the stream for its own bytes. Why a batch does
//! not use the client: the client returns the replies of a pipeline only together, and none of them if the connection
//! breaks after the first. Example: rows 1 to 3 are answered, the server rejects row 4 and closes. Here the four
//! replies are known.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use redis::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::reply::{Parsed, parse};
use crate::transport::Stream;

/// Bytes per read.
const READ_SIZE: usize = 1 << 14;

/// A stream that the client and the batches share. Clones are the same stream.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Mutex<Shared>>);

struct Shared {
    stream: Box<dyn Stream>,
    /// A batch uses the stream.
    is_lent: bool,
    /// The waker of the task that waits for unsolicited bytes of the server, and for the end of the stream.
    reader: Option<Waker>,
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self(Arc::new(Mutex::new(Shared { stream, is_lent: false, reader: None })))
    }

    /// Sends `bytes` and reads their replies into `replies`, as they come.
    ///
    /// # Errors
    /// The connection broke, or the server does not speak the protocol.
    ///
    /// # Cancel safety
    /// If the future is dropped, the stream must not be used again; `replies` has the received replies.
    pub(crate) async fn exchange(&self, bytes: &[u8], expected: usize, replies: &mut Vec<Value>) -> io::Result<()> {
        let mut exchange = Exchange { bytes, flushed: false, expected, replies, buffer: Vec::new(), start: 0 };
        self.lock().is_lent = true;
        poll_fn(|context| exchange.poll(&mut self.lock().stream, context)).await?;
        let reader = {
            let mut shared = self.lock();
            shared.is_lent = false;
            shared.reader.take()
        };
        // The system wakes only the last registered task.
        reader.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exchange of one batch.
struct Exchange<'a> {
    /// The bytes that are not written yet.
    bytes: &'a [u8],
    flushed: bool,
    expected: usize,
    replies: &'a mut Vec<Value>,
    /// The bytes that were read; those before `start` are parsed.
    buffer: Vec<u8>,
    start: usize,
}

impl Exchange<'_> {
    fn poll(&mut self, stream: &mut Box<dyn Stream>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Write and read concurrently: a server that cannot send its replies does not read.
        if let Poll::Ready(Err(_)) = self.poll_write(stream, context) {
            // The connection is broken: the read returns the earlier replies and then the error. Until then the
            // caller's timeout applies, as for a server that does not answer.
            self.bytes = &[];
            self.flushed = true;
        }
        self.poll_read(stream, context)
    }

    fn poll_write(&mut self, stream: &mut Box<dyn Stream>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            match Pin::new(&mut *stream).poll_write(context, self.bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.bytes = &self.bytes[written..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if !self.flushed {
            match Pin::new(&mut *stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.flushed = true,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, stream: &mut Box<dyn Stream>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let filled = self.buffer.len();
            self.buffer.resize(filled + READ_SIZE, 0);
            let mut space = ReadBuf::new(&mut self.buffer[filled..]);
            let result = Pin::new(&mut *stream).poll_read(context, &mut space);
            let read = space.filled().len();
            self.buffer.truncate(filled + read);
            match result {
                Poll::Ready(Ok(())) if read == 0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(())) => {
                    if self.parse()? {
                        return Poll::Ready(Ok(()));
                    }
                }
                other => return other,
            }
        }
    }

    /// Whether every reply was received.
    fn parse(&mut self) -> io::Result<bool> {
        loop {
            match parse(&self.buffer[self.start..])? {
                Parsed::Incomplete => break,
                // An unsolicited message of the server.
                Parsed::Value(Value::Push { .. }, length) => self.start += length,
                Parsed::Value(value, length) => {
                    self.start += length;
                    if self.replies.len() == self.expected {
                        let text = "more replies than commands";
                        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                    }
                    self.replies.push(value);
                }
            }
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        Ok(self.replies.len() == self.expected && self.buffer.is_empty())
    }
}

/// The stream for the client.
impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        if !shared.is_lent
            && let Poll::Ready(result) = Pin::new(&mut shared.stream).poll_read(context, buffer)
        {
            return Poll::Ready(result);
        }
        match &mut shared.reader {
            Some(reader) => reader.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        // The client flushes at every wake-up.
        if shared.is_lent { Poll::Ready(Ok(())) } else { Pin::new(&mut shared.stream).poll_flush(context) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn replies_that_came_before_the_end_count() {
        let (client, mut server) = tokio::io::duplex(64);
        let wire = Wire::new(Box::new(client));
        let serving = tokio::spawn(async move {
            let mut asked = vec![0; 1_000];
            server.read_exact(&mut asked).await.unwrap();
            server.write_all(b"+OK\r\n>2\r\n+push\r\n:1\r\n:7\r\n-ERR x").await.unwrap();
            asked
        });
        let mut replies = Vec::new();
        let error = wire.exchange(&[b'x'; 1_000], 3, &mut replies).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(replies, [Value::Okay, Value::Int(7)]);
        assert_eq!(serving.await.unwrap(), [b'x'; 1_000]);
    }

    /// Its server accepts no bytes, and its earlier replies arrive late.
    struct Broken(tokio::io::DuplexStream);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn replies_count_that_are_read_after_a_write_failed() {
        let (client, mut server) = tokio::io::duplex(64);
        let wire = Wire::new(Box::new(Broken(client)));
        let mut replies = Vec::new();
        let answering = async {
            tokio::task::yield_now().await;
            server.write_all(b"+OK\r\n-ERR x\r\n").await.unwrap();
            drop(server);
        };
        let (result, ()) = tokio::join!(wire.exchange(b"abc", 3, &mut replies), answering);
        assert!(result.is_err());
        assert_eq!(replies.len(), 2);
    }

    #[tokio::test]
    async fn replies_of_a_server_that_resets_during_a_large_row_count() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let wire = Wire::new(Box::new(client));
        let serving = async {
            server.read_exact(&mut [0; 1_000]).await.unwrap();
            server.write_all(b"+OK\r\n:7\r\n").await.unwrap();
            // Most of the row was not read, so the connection ends with a reset.
            drop(server);
        };
        let (large, mut replies) = (vec![b'x'; 64 << 20], Vec::new());
        let (result, ()) = tokio::join!(wire.exchange(&large, 3, &mut replies), serving);
        assert!(result.is_err());
        assert_eq!(replies, [Value::Okay, Value::Int(7)]);
    }

    #[tokio::test]
    async fn the_client_hears_of_the_end_after_a_batch() {
        let (client, mut server) = tokio::io::duplex(1 << 16);
        let wire = Wire::new(Box::new(client));
        let mut reader = wire.clone();
        let listening = tokio::spawn(async move { reader.read(&mut [0; 10]).await });
        tokio::task::yield_now().await;
        let large = vec![b'y'; 100_000];
        let reply = [b"$100000\r\n", &large[..], b"\r\n"].concat();
        let serving = tokio::spawn(async move {
            server.read_exact(&mut [0; 3]).await.unwrap();
            server.write_all(&reply).await.unwrap();
            server
        });
        let mut replies = Vec::new();
        wire.exchange(b"abc", 1, &mut replies).await.unwrap();
        assert_eq!(replies, [Value::BulkString(large)]);
        drop(serving.await.unwrap());
        assert_eq!(listening.await.unwrap().unwrap(), 0);
    }
}
