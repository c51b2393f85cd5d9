//! Owns one connection to one server: what is sent on it, what comes back, and whether it may still be used.
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
use crate::limits::{ServerLimits, is_end};
use crate::wire::Wire;

/// One connection to one server, used by one batch at a time.
///
/// It may be used again only when every reply was read: a link that was left in the middle is dropped, which
/// closes it.
pub(crate) struct Link {
    /// How the server names it.
    pub(crate) client: Arc<Client>,
    pub(crate) limits: ServerLimits,
    /// For questions. Batches have the wire to themselves.
    connection: MultiplexedConnection,
    wire: Wire,
    driver: JoinHandle<()>,
    /// The replies to the last batch, as far as they have come.
    replies: Vec<Value>,
    is_lost: Arc<AtomicBool>,
    /// Something was sent, and not all replies were read.
    is_busy: bool,
    /// The server takes no writes any more: behind its name there may be another one by now.
    is_outdated: bool,
    /// How long the answer to a question may take.
    answer_timeout: Duration,
    /// With version 2 of the protocol the client does not say when a connection is lost.
    pub(crate) reports_loss: bool,
}

/// What a new connection consists of.
pub(crate) struct Parts {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) wire: Wire,
    /// Carries the bytes.
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

    /// Sends commands together; `replies` is how many replies they have.
    ///
    /// # Errors
    /// The connection broke, or the server closes it after its last reply; the error has the replies that came.
    ///
    /// # Cancel safety
    /// When it is dropped, the link is of no more use and says so.
    pub(crate) async fn send(&mut self, commands: &[u8], replies: usize) -> Result<Vec<Value>, Vec<Value>> {
        self.is_busy = true;
        self.replies = Vec::with_capacity(replies);
        let sending = Sending::on(&self.client);
        let is_answered = self.wire.exchange(commands, replies, &mut self.replies).await.is_ok();
        let values = std::mem::take(&mut self.replies);
        self.note(&values);
        // After its last word the server executes nothing more of what was sent, and closes.
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

    /// The replies that have come to a `send` that was dropped.
    pub(crate) fn replies_so_far(&mut self) -> Vec<Value> {
        let values = std::mem::take(&mut self.replies);
        self.note(&values);
        values
    }

    /// What the replies say of the server and of what is before it.
    fn note(&mut self, values: &[Value]) {
        self.is_outdated |= has_error(values, |error| is_of_another_role(code_of(error)));
        if has_error(values, is_of_lost_server) {
            self.client.mark_passed_on();
        }
    }

    /// Sends one command, whose answer may take as long as a connection.
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

    /// Sends several questions; refusals are among the replies.
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

    /// Asks the server for its limits: they may have been changed since the connection was made.
    pub(crate) async fn ask_limits(&mut self) -> RedisResult<()> {
        let mut questions = Pipeline::with_capacity(ServerLimits::QUESTIONS);
        ServerLimits::ask(&mut questions);
        self.limits = ServerLimits::new(&self.ask_all(&questions).await?);
        Ok(())
    }

    /// Whether the server is there. Who may not ask is answered too.
    pub(crate) async fn is_alive(&mut self) -> bool {
        match self.ask(&redis::cmd("PING")).await {
            Ok(_) => true,
            Err(error) => error.code() == Some("NOPERM"),
        }
    }

    /// Whether it can be used, as far as this side knows.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_busy && !self.is_outdated && !self.is_lost.load(Ordering::Acquire)
    }

    /// Whether the server says that it is not the one that takes writes.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Says that it was left in a state that the next batch must not meet.
    pub(crate) fn mark_unusable(&mut self) {
        self.is_busy = true;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Closes the connection also when replies are outstanding.
        self.driver.abort();
    }
}

/// Whether there is such an error.
fn has_error(values: &[Value], is_such: impl Fn(&ServerError) -> bool) -> bool {
    let is_error = |value: &Value| matches!(value, Value::ServerError(error) if is_such(error));
    values.iter().any(|value| match value {
        // The replies of a transaction.
        Value::Array(inner) => inner.iter().any(is_error),
        value => is_error(value),
    })
}
