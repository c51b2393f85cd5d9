//! Owns the record of what a server has answered since the last batch began, so that replies which came before a
//! connection broke are not lost with it. Must not know what replies mean.
//!
//! Why: `redis` gives the replies of a pipeline only together, and none of them when the connection breaks after the
//! first. Example: rows 1 to 3 of a batch are answered, the server refuses row 4 and closes. The record has the four
//! replies.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use redis::{Parser, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Stream;

/// No record keeps more memory for the next batch.
const MOST_KEPT: usize = 1 << 16;

/// The bytes since the record was begun. Clones are the same record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<u8>>>);

impl Record {
    /// Forgets what was answered before.
    pub(crate) fn begin(&self) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.clear();
        bytes.shrink_to(MOST_KEPT);
    }

    /// The replies that came completely.
    pub(crate) fn replies(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut parser, mut rest, mut replies) = (Parser::new(), &bytes[..], Vec::new());
        while let Ok(value) = parser.parse_value(&mut rest) {
            if !matches!(value, Value::Push { .. }) {
                replies.push(value);
            }
        }
        replies
    }

    fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }
}

/// A stream whose incoming bytes are recorded.
pub(crate) struct Recorded {
    stream: Box<dyn Stream>,
    record: Record,
}

impl Recorded {
    pub(crate) fn new(stream: Box<dyn Stream>, record: Record) -> Self {
        Self { stream, record }
    }

    /// Reads what has come before a write failed: nobody reads it later.
    fn drain(&mut self, context: &mut Context<'_>) {
        let mut space = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.record.add(buffer.filled()),
                _ => return,
            }
        }
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.record.add(&buffer.filled()[before..]);
        result
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(result, Poll::Ready(Err(_))) {
            self.drain(context);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(result, Poll::Ready(Err(_))) {
            self.drain(context);
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_replies_count_and_pushes_do_not() {
        let record = Record::default();
        record.add(b"+OK\r\n>2\r\n$3\r\nfoo\r\n:1\r\n-ERR x\r\n");
        record.add(b":7\r\n*2\r\n:1\r\n");
        let replies = record.replies();
        assert_eq!(replies.len(), 3, "{replies:?}");
        assert_eq!((&replies[0], &replies[2]), (&Value::Okay, &Value::Int(7)));
        record.begin();
        assert_eq!(record.replies(), []);
    }
}
