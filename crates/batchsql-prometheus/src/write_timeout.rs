//! Owns the timeout for a client to receive a response.
//! Must not know responses or protocols.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// When the time for a peer begins again. It runs from the first byte that has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "only for the workspace")]
pub enum Restart {
    /// When everything is sent, so a peer that reads single bytes slowly also times out.
    AfterFlush,
    /// When the peer takes anything.
    AfterProgress,
}

/// A stream whose writes fail when the peer does not receive the bytes in time.
pub struct WriteTimeout<S, P> {
    stream: S,
    limit: Duration,
    restart: Restart,
    waiting: Option<Pin<Box<Sleep>>>,
    progressed: P,
}

impl<S, P: FnMut()> WriteTimeout<S, P> {
    /// Calls `progressed` whenever the peer has taken something.
    pub fn new(stream: S, limit: Duration, restart: Restart, progressed: P) -> Self {
        Self { stream, limit, restart, waiting: None, progressed }
    }

    fn written(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(1..))) {
            (self.progressed)();
        }
        self.within_time(context, polled)
    }

    fn within_time<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if self.restart == Restart::AfterProgress {
                self.waiting = None;
            }
            return polled;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        waiting.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S, P> fmt::Debug for WriteTimeout<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteTimeout")
            .field("limit", &self.limit)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin, P: FnMut() + Unpin> AsyncRead for WriteTimeout<S, P> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin, P: FnMut() + Unpin> AsyncWrite for WriteTimeout<S, P> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, buf);
        self.written(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.written(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        if polled.is_ready() {
            // Hyper flushes after it has written everything.
            self.waiting = None;
        }
        self.within_time(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within_time(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn with_limit<S>(stream: S) -> WriteTimeout<S, impl FnMut()> {
        WriteTimeout::new(stream, LIMIT, Restart::AfterFlush, || ())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_cut_off() {
        let (near, mut far) = duplex(16);
        let begin = Instant::now();
        let reader = tokio::spawn(async move {
            let mut taken = 0;
            while let Ok(1) = far.read(&mut [0]).await {
                taken += 1;
                sleep(Duration::from_secs(1)).await;
            }
            taken
        });
        let error = with_limit(near).write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed(), LIMIT);
        assert!(reader.await.unwrap() > 10, "it did read");
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_has_the_whole_time() {
        let (near, mut far) = duplex(16);
        tokio::spawn(async move {
            while let Ok(1..) = far.read(&mut [0; 16]).await {
                sleep(Duration::from_secs(2)).await;
            }
        });
        let mut near = with_limit(near);
        for answer in 0..10 {
            // Six seconds each.
            near.write_all(&[0; 64]).await.unwrap_or_else(|error| panic!("response {answer}: {error}"));
            near.flush().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_something_has_its_time_again() {
        let (near, mut far) = duplex(16);
        let begin = Instant::now();
        let reader = tokio::spawn(async move {
            for _ in 0..100 {
                sleep(Duration::from_secs(1)).await;
                far.read_exact(&mut [0]).await.unwrap();
            }
            // It takes no more, and stays open.
            far
        });
        let mut taken = 0;
        let mut near = WriteTimeout::new(near, LIMIT, Restart::AfterProgress, || taken += 1);
        let error = near.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(near);
        assert_eq!(begin.elapsed(), Duration::from_secs(100) + LIMIT);
        // The first write fills the buffer, and each byte that is read makes room for one more.
        assert_eq!(taken, 101);
        drop(reader.await.unwrap());
    }
}
