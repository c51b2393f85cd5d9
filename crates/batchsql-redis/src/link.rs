//! Owns one connection to one server: sending, receiving, and whether it may still be used.
//! Must not know rows, commands of tables, or how connections are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisResult, ServerError, Value};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::classify::{code_of, is_of_another_role, is_of_lost_server};
use crate::client::{Client, Sending};
use crate::limits::{Closed, CommandSize, ServerLimits, Trial, is_end};
use crate::wire::Wire;

/// One connection to one server, used by one batch at a time.
///
/// It may be reused only after every reply was read: a link that was interrupted during a batch is dropped,
/// which closes it.
pub(crate) struct Link {
    /// Its identity at the server.
    pub(crate) client: Arc<Client>,
    pub(crate) limits: ServerLimits,
    /// For queries. Batches use the wire directly.
    connection: MultiplexedConnection,
    wire: Wire,
    driver: JoinHandle<()>,
    /// The replies to the last batch received so far.
    replies: Vec<Value>,
    is_lost: Arc<AtomicBool>,
    /// Something was sent, and not all replies were read.
    is_busy: bool,
    /// The server no longer accepts writes: its name may now lead to another server.
    is_outdated: bool,
    /// How long the answer to a query may take.
    answer_timeout: Duration,
    /// Whether the client reports a lost connection; with version 2 of the protocol it does not.
    pub(crate) reports_loss: bool,
}

/// What a new connection consists of.
pub(crate) struct Parts {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) wire: Wire,
    /// The task that transfers the bytes.
    pub(crate) driver: JoinHandle<()>,
    pub(crate) is_lost: Arc<AtomicBool>,
    pub(crate) answer_timeout: Duration,
    pub(crate) reports_loss: bool,
}

impl Link {
    pub(crate) fn new(client: Client, parts: Parts) -> Self {
        let Parts { connection, wire, driver, is_lost, answer_timeout, reports_loss } = parts;
        Self {
            client: Arc::new(client),
            limits: ServerLimits::default(),
            connection,
            wire,
            driver,
            replies: Vec::new(),
            is_lost,
            is_busy: false,
            is_outdated: false,
            answer_timeout,
            reports_loss,
        }
    }

    /// Sends commands together; `replies` is their number of replies.
    ///
    /// # Errors
    /// The connection broke, or the server closes it after its last reply; the error has the received replies.
    ///
    /// # Cancel safety
    /// If the future is dropped, the link is marked as unusable.
    pub(crate) async fn send(&mut self, commands: &[u8], replies: usize) -> Result<Vec<Value>, Vec<Value>> {
        self.is_busy = true;
        self.replies = Vec::with_capacity(replies);
        let sending = Sending::on(&self.client);
        let is_answered = self.wire.exchange(commands, replies, &mut self.replies).await.is_ok();
        let values = std::mem::take(&mut self.replies);
        self.note(&values);
        // After its final error the server executes no further command and closes the connection.
        let is_over = matches!(values.last(), Some(Value::ServerError(error)) if is_end(error));
        if is_answered || is_over {
            sending.answered();
        }
        if !is_answered || is_over {
            return Err(values);
        }
        self.is_busy = false;
        Ok(values)
    }

    /// Sends a command of a size that does nothing, and records what the server makes of it. `before`: what it has made of it on
    /// other connections. A server that restarts, or a proxy, closes connections too: so it must answer a short command in between.
    ///
    /// # Cancel safety
    /// If the future is dropped, the link is marked as unusable.
    pub(crate) async fn try_size(&mut self, size: CommandSize, before: Closed) -> Trial {
        if before != Closed::Never && !self.is_alive().await {
            return Trial::Unanswered;
        }
        if before == Closed::Twice {
            return Trial::ClosedEach;
        }
        self.is_busy = true;
        let mut replies = Vec::new();
        let is_answered = self.wire.exchange(&size.trial(), 1, &mut replies).await.is_ok();
        match replies.first() {
            Some(Value::ServerError(error)) if is_end(error) => Trial::Refused,
            Some(_) if is_answered => {
                self.limits.note_taken(size);
                self.is_busy = false;
                Trial::Taken
            }
            _ => Trial::Closed,
        }
    }

    /// The replies received by a `send` that was dropped.
    pub(crate) fn replies_so_far(&mut self) -> Vec<Value> {
        let values = std::mem::take(&mut self.replies);
        self.note(&values);
        values
    }

    /// Records what the replies show about the server and a proxy.
    fn note(&mut self, values: &[Value]) {
        self.is_outdated |= has_error(values, |error| is_of_another_role(code_of(error)));
        if has_error(values, is_of_lost_server) {
            self.client.mark_passed_on();
        }
    }

    /// Sends one command. Its answer may take up to the connect timeout.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub(crate) async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.is_busy = true;
        let asked = timeout(self.answer_timeout, self.connection.req_packed_command(command));
        let result = asked.await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        self.is_busy = result.is_err();
        let answer = result?.extract_error();
        self.is_outdated |= answer.as_ref().is_err_and(|error| error.code().is_some_and(is_of_another_role));
        answer
    }

    /// Sends several queries; errors are among the replies.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub(crate) async fn ask_all(&mut self, questions: &Pipeline) -> RedisResult<Vec<Value>> {
        self.is_busy = true;
        let asked = timeout(self.answer_timeout, self.connection.req_packed_commands(questions, 0, questions.len()));
        let result = asked.await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        self.is_busy = result.is_err();
        result
    }

    /// Queries the server's limits, which may have changed since the connection was opened.
    pub(crate) async fn ask_limits(&mut self) -> RedisResult<()> {
        let mut questions = Pipeline::with_capacity(ServerLimits::QUESTIONS);
        ServerLimits::ask(&mut questions);
        self.limits = ServerLimits::new(&self.ask_all(&questions).await?);
        Ok(())
    }

    /// Whether the server answers. An error for a missing right is an answer too.
    pub(crate) async fn is_alive(&mut self) -> bool {
        match self.ask(&redis::cmd("PING")).await {
            Ok(_) => true,
            Err(error) => error.code() == Some("NOPERM"),
        }
    }

    /// Whether it can be used, as far as the client knows.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_busy && !self.is_outdated && !self.is_lost.load(Ordering::Acquire)
    }

    /// Whether the server reported that it does not accept writes.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Marks that its state must not affect the next batch.
    pub(crate) fn mark_unusable(&mut self) {
        self.is_busy = true;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Closes the connection even if replies are pending.
        self.driver.abort();
    }
}

/// Whether there is such an error, also inside a transaction.
fn has_error(values: &[Value], is_such: impl Fn(&ServerError) -> bool) -> bool {
    let is_error = |value: &Value| matches!(value, Value::ServerError(error) if is_such(error));
    values.iter().any(|value| match value {
        // The replies of a transaction.
        Value::Array(inner) => inner.iter().any(is_error),
        value => is_error(value),
    })
}
