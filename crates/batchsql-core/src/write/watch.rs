//! Owns the watch over a write that takes long: whether the server still works on it.
//! Must not know batches.
//!
//! A link can die without a word: a router forgets it, a machine loses its power. Then the answer never comes, and only
//! `statement_timeout` would end the wait. So the server is asked on another connection. Its answer counts when it says
//! twice that the session works on nothing: the answer to the write may be on its way when it is asked first.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::write::session::Session;
use crate::write::sink::Sink;

/// The server is asked when a write takes this long, at first. A batch that was given up so waits twice as long next
/// time: a large batch on a slow link reaches the server late.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// It is asked once more after this time.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How long the server may take to answer. It is asked again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for a write; `None` when the server works on nothing of its session.
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
