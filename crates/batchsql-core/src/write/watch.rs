//! Owns the check of a write that takes long: whether the server still executes it.
//! Must not know batches.
//!
//! A connection can be lost silently: a router drops it, a machine loses power. Then no reply arrives, and only
//! `statement_timeout` would end the wait. So the server is asked on another connection. The write is given up if the
//! server answers twice that the session is idle: at the first answer, the reply to the write may be in flight.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::write::session::Session;
use crate::write::sink::Sink;

/// The server is asked when a write takes this long, at first. A batch that was given up for this reason waits twice as
/// long next time: a large batch on a slow connection reaches the server late.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// It is asked once more after this time.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How long the server may take to answer. Then it is asked again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for a write; `None` if the server reports that its session is idle.
pub(crate) async fn watch<S: Sink, T>(
    sink: &S,
    session: Option<&Session>,
    patience: Duration,
    write: impl Future<Output = T>,
) -> Option<T> {
    let Some(session) = session else { return Some(write.await) };
    let mut write = pin!(write);
    let (mut wait, mut is_idle) = (patience, false);
    loop {
        tokio::select! {
            biased;
            result = &mut write => return Some(result),
            () = sleep(wait) => {}
        }
        let answer = tokio::select! {
            biased;
            result = &mut write => return Some(result),
            answer = timeout(LOOK_TIMEOUT, sink.is_working(session)) => answer,
        };
        match answer {
            Ok(Ok(None)) => return Some(write.await),
            Ok(Ok(Some(false))) if is_idle => return None,
            Ok(Ok(Some(false))) => (wait, is_idle) = (SECOND_LOOK, true),
            Ok(Ok(Some(true))) | Ok(Err(_)) | Err(_) => (wait, is_idle) = (patience, false),
        }
    }
}
