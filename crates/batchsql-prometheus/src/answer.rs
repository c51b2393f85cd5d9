//! Owns the body of a scrape's answer, which knows when it was taken.
//! Must not know who scrapes, or what the text says.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::watchers::Scrape;

/// Bytes that are handed to the connection at once. It takes the next when it is rid of some.
const PIECE: usize = 16 << 10;

/// A text in pieces. The scrape it answers counts once the connection has taken the last one; a client that goes away
/// before has seen nothing.
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
