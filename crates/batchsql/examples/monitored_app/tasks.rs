//! Owns the common end of the tasks of the service: if one fails, all end.
//! Must not know what they do.

use std::error::Error;

use tokio::sync::watch;
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Waits until all tasks have ended; they end when `stop` is set. The first task that fails sets it, and its error is
/// returned when the others have ended: a service that runs without one of its parts looks healthy.
pub(crate) async fn join(mut tasks: JoinSet<Result<()>>, stop: &watch::Sender<bool>) -> Result<()> {
    let mut first = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|panic| Err(panic.into()));
        if ended.is_err() {
            stop.send_replace(true);
        }
        first = first.and(ended);
    }
    first
}
