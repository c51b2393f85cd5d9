//! Owns the question, asked once by each start, whether the database keeps what it has confirmed.
//! Must not know what is written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::BatchSql;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The waits between questions while the database does not answer: doubled up to a limit.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Asks until the database has answered, and warns once.
#[derive(Debug)]
pub(crate) struct LossyCheck {
    found: Arc<Mutex<Option<String>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl LossyCheck {
    pub(crate) fn start(pipeline: BatchSql, runtime: &Handle) -> Self {
        let found = Arc::new(Mutex::default());
        let task = runtime.spawn(ask(pipeline, Arc::clone(&found)));
        Self { found, task: Mutex::new(Some(task)) }
    }

    /// The setting that may lose what the database has confirmed.
    pub(crate) fn found(&self) -> Option<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self) -> Option<JoinHandle<()>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) async fn end(&self) {
        if let Some(task) = self.take() {
            task.abort();
            // It was aborted, or has ended.
            let _ = task.await;
        }
    }
}

impl Drop for LossyCheck {
    fn drop(&mut self) {
        if let Some(task) = self.take() {
            task.abort();
        }
    }
}

async fn ask(pipeline: BatchSql, found: Arc<Mutex<Option<String>>>) {
    let mut wait = FIRST_WAIT;
    let setting = loop {
        match pipeline.make_durable().await {
            Ok(setting) => break setting,
            Err(error) => tracing::debug!(%error, "the settings of the database are not known; asking again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    };
    if let Some(setting) = &setting {
        tracing::warn!(setting, "written rows may be lost by a crash of the database");
    }
    *found.lock().unwrap_or_else(PoisonError::into_inner) = setting;
}
