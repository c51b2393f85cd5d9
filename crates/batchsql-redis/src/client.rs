//! Owns the names of clients at their servers, and which of them were dropped during a batch.
//! Must not know links, rows or commands of tables.
//!
//! Redis identifies each connection by a client id, which is never reused while the server runs, and each run of
//! the server by its `run_id`. Together they identify one connection permanently.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{ConnectionInfo, Pipeline, Value};

/// No client has this id: it is used to check the rights to kill and list clients.
const NO_CLIENT: i64 = i64::MAX;

/// The identity of a connection at its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientName {
    pub(crate) id: i64,
    pub(crate) run_id: String,
}

impl ClientName {
    pub(crate) const QUESTIONS: usize = 4;

    /// The queries whose replies [`new`](Self::new) reads. They also show whether the user may kill clients.
    pub(crate) fn questions() -> Pipeline {
        let mut questions = Pipeline::with_capacity(Self::QUESTIONS);
        questions.cmd("CLIENT").arg("ID").cmd("INFO").arg("server");
        questions.cmd("CLIENT").arg("KILL").arg("ID").arg(NO_CLIENT);
        questions.cmd("CLIENT").arg("LIST").arg("ID").arg(NO_CLIENT);
        questions
    }

    /// `None` if the user lacks the right, or the server does not support it.
    pub(crate) fn new(replies: &[Value]) -> Option<Self> {
        let [Value::Int(id), info, killed, listed] = replies else { return None };
        let run_id = text(info).lines().find_map(|line| line.trim().strip_prefix("run_id:").map(str::to_owned))?;
        let is_run = run_id.len() >= 8 && run_id.bytes().any(|byte| byte != b'0');
        (is_run && !is_refused(killed) && !is_refused(listed)).then_some(Self { id: *id, run_id })
    }
}

fn is_refused(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "NOPERM")
}

/// A connection of the sink, and the state that it leaves at its server.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) server: ConnectionInfo,
    pub(crate) name: Option<ClientName>,
    /// Commands were sent on it, and the replies will never be read.
    is_left: AtomicBool,
    /// Commands were sent on it, and the replies are pending.
    is_sending: AtomicBool,
    /// A proxy lost the server after it may have forwarded commands. They use another connection there, which has no
    /// known id.
    is_passed_on: AtomicBool,
}

impl Client {
    pub(crate) fn new(server: ConnectionInfo, name: Option<ClientName>) -> Self {
        let (is_left, is_sending, is_passed_on) = Default::default();
        Self { server, name, is_left, is_sending, is_passed_on }
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.is_sending.load(Ordering::Acquire)
    }

    pub(crate) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// Marks that nothing sent on it can still take effect.
    pub(crate) fn mark_ended(&self) {
        self.is_left.store(false, Ordering::Release);
    }

    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire) || self.is_passed_on()
    }

    /// Marks that a proxy has forwarded commands of it and does not know their outcome.
    pub(crate) fn mark_passed_on(&self) {
        self.is_passed_on.store(true, Ordering::Release);
    }

    pub(crate) fn is_passed_on(&self) -> bool {
        self.is_passed_on.load(Ordering::Acquire)
    }
}

/// Records that a client was dropped during a batch, unless all replies were received.
pub(crate) struct Sending {
    client: Arc<Client>,
    is_answered: bool,
}

impl Sending {
    pub(crate) fn on(client: &Arc<Client>) -> Self {
        client.is_sending.store(true, Ordering::Release);
        Self { client: Arc::clone(client), is_answered: false }
    }

    pub(crate) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.client.is_sending.store(false, Ordering::Release);
        if !self.is_answered {
            self.client.is_left.store(true, Ordering::Release);
        }
    }
}

/// The clients that the batches of one lease use: more are added while the batch is written.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<Vec<Arc<Client>>>);

impl Clients {
    pub(crate) fn add(&self, client: &Arc<Client>) {
        let mut clients = self.lock();
        // Removes those whose connection is gone and that have nothing pending.
        clients.retain(|client| client.is_left() || Arc::strong_count(client) > 1);
        clients.push(Arc::clone(client));
    }

    /// Those that were dropped during a batch.
    pub(crate) fn left(&self) -> Vec<Arc<Client>> {
        self.lock().iter().filter(|client| client.is_left()).cloned().collect()
    }

    /// Those whose replies are pending.
    pub(crate) fn sending(&self) -> Vec<Arc<Client>> {
        self.lock().iter().filter(|client| client.is_sending()).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text in any of its forms; empty for anything else.
pub(crate) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.into(),
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_a_name_where_the_server_gives_one() {
        let info = |run: &str| Value::BulkString(format!("# Server\r\nredis_version:7\r\nrun_id:{run}\r\n").into());
        let check = |replies: &[Value], id: Option<i64>| {
            assert_eq!(ClientName::new(replies).map(|name| name.id), id, "{replies:?}");
        };
        let (no, none) = (Value::Int(0), Value::BulkString(Vec::new()));
        let run = info("0f5c2a9b7d");
        check(&[Value::Int(7), run.clone(), no.clone(), none.clone()], Some(7));
        check(&[Value::Int(7), info("0000000000"), no.clone(), none.clone()], None);
        check(&[Value::Int(7), Value::BulkString(b"# Server\r\n".to_vec()), no.clone(), none.clone()], None);
        check(&[Value::SimpleString("OK".into()), run.clone(), no, none.clone()], None);
        check(&[Value::Int(7), run], None);
        check(&[], None);
    }
}
