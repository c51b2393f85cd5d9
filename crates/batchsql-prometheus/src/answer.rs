//! Owns the body of a response to a scrape, which records when the client received it.
//! Must not know who scrapes, or the content of the text.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::watchers::Scrape;

/// Bytes passed to the connection at a time. It takes the next piece when it has sent some of them.
const PIECE: usize = 16 << 10;

/// A text in pieces. The scrape counts when the connection has taken the last piece. If the client disconnects
/// earlier, the scrape does not count.
pub(crate) struct Answer {
    rest: Bytes,
    scrape: Option<Scrape>,
}

impl Answer {
    pub(crate) fn new(text: Bytes, scrape: Option<Scrape>) -> Self {
        Self { rest: text, scrape }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        if self.rest.is_empty()
            && let Some(scrape) = self.scrape.take()
        {
            scrape.taken();
        }
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
