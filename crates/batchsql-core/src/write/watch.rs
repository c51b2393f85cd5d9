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

use crate::error::{ErrorClass, SinkError};
use crate::model::batch::Rows;
use crate::write::attempt::Attempt;
use crate::write::session::Session;
use crate::write::sink::Sink;

/// The server is asked when a write takes this long, at first. A batch that was given up for this reason waits twice as
/// long next time: a large batch on a slow connection reaches the server late.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// It is asked once more after this time.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How long the server may take to answer. Then it is asked again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of rows above which a write without an order is not checked: while a large message is in transit, the server shows the
/// session as idle. A write that is given up for this reason is repeated if its rows keep an order; a plain insert is not.
const IN_TRANSIT: usize = 256 * 1024;

/// The session of a write whose session is not asked for, if it can be checked.
pub(crate) fn known_session<S: Sink>(sink: &S, conn: &S::Conn, rows: Rows<'_>) -> Option<Session> {
    if rows.bytes() <= IN_TRANSIT { sink.known_session(conn) } else { None }
}

/// The error of a write whose connection is dead.
pub(crate) fn dead(attempt: &Attempt) -> SinkError {
    let text = "the server is not executing this write and has not replied: the connection is dead";
    SinkError::new(if attempt.abandon() { ErrorClass::Transient } else { ErrorClass::Unknown }, text)
}

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
