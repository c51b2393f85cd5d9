//! Owns the commands that rows can become: their columns by name, and how keys are built.
//! Must not know schemas, values or the wire.

use std::time::Duration;

/// The command that the rows of a table become. Columns are given by name; a mismatch with the schema is
/// rejected when the table is first used.
///
/// ```
/// use std::time::Duration;
/// use batchsql_redis::{Command, Key, RedisOptions, Ttl};
///
/// let options = "redis://localhost"
///     .parse::<RedisOptions>()?
///     .command("sessions", Command::set("id", "token").ttl(Duration::from_secs(3600)))
///     .command("users", Command::hash().key(Key::prefixed("user", ["id"])))
///     .command("scores", Command::zadd(Key::constant("scores"), "points", "player"))
///     .command("events", Command::xadd(Key::constant("events")).max_len(1_000_000))
///     .command("documents", Command::document().ttl(Ttl::column("seconds")))
///     .command("counters", Command::raw("INCRBY"));
/// # let _ = options;
/// # Ok::<(), batchsql_redis::OpenError>(())
/// ```
///
/// | command | writes | `NULL` | conflict rules |
/// |---|---|---|---|
/// | [`Set`] | `SETEX`, `PSETEX` or `SET` | no; of the time to live: none | none and replace overwrite, ignore is `NX` |
/// | [`Hash`](struct@Hash) | `HSET` | the field is deleted (`HDEL`, in one `MULTI`) | none and replace overwrite the fields of the row; no ignore |
/// | [`Document`] | `SET` of a JSON object | `null` | as `Set` |
/// | [`ZAdd`] | `ZADD` | no | none and replace set the score, ignore is `NX` |
/// | [`SAdd`] | `SADD` | no | none; ignore reports members that already existed |
/// | [`XAdd`] | `XADD` | the field is left out; of the id: `*` | none |
/// | [`Push`] | `LPUSH`, `RPUSH` | no | none |
/// | [`Publish`] | `PUBLISH` | no | none |
/// | [`Raw`] | any command | the argument is left out | none |
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// A string with an optional time to live.
    Set(Set),
    /// A hash with a field for each column.
    Hash(Hash),
    /// A JSON object as a string.
    Document(Document),
    /// A member of a sorted set.
    ZAdd(ZAdd),
    /// A member of a set.
    SAdd(SAdd),
    /// An entry of a stream.
    XAdd(XAdd),
    /// An element of a list.
    Push(Push),
    /// A message to the current subscribers.
    Publish(Publish),
    /// Any command.
    Raw(Raw),
}

impl Command {
    /// `SET key value`; see [`Set`].
    pub fn set(key: impl Into<Key>, value: impl Into<String>) -> Set {
        Set { key: key.into(), value: value.into(), ttl: Ttl::none() }
    }

    /// `HSET key field value …`; see [`Hash`](struct@Hash).
    pub fn hash() -> Hash {
        Hash { key: Key::of_row() }
    }

    /// `SET key {"column": value, …}`; see [`Document`].
    pub fn document() -> Document {
        Document { key: Key::of_row(), ttl: Ttl::none() }
    }

    /// `ZADD key score member`; see [`ZAdd`].
    pub fn zadd(key: impl Into<Key>, score: impl Into<String>, member: impl Into<String>) -> ZAdd {
        ZAdd { key: key.into(), score: score.into(), member: member.into() }
    }

    /// `SADD key member`; see [`SAdd`].
    pub fn sadd(key: impl Into<Key>, member: impl Into<String>) -> SAdd {
        SAdd { key: key.into(), member: member.into() }
    }

    /// `XADD key * field value …`; see [`XAdd`].
    pub fn xadd(key: impl Into<Key>) -> XAdd {
        XAdd { key: key.into(), id: None, max_len: None }
    }

    /// `LPUSH key value`: the new element is the first; see [`Push`].
    pub fn lpush(key: impl Into<Key>, value: impl Into<String>) -> Push {
        Push { word: "LPUSH", key: key.into(), value: value.into() }
    }

    /// `RPUSH key value`: the new element is the last; see [`Push`].
    pub fn rpush(key: impl Into<Key>, value: impl Into<String>) -> Push {
        Push { word: "RPUSH", key: key.into(), value: value.into() }
    }

    /// `PUBLISH channel message`; see [`Publish`].
    pub fn publish(channel: impl Into<Key>, message: impl Into<String>) -> Publish {
        Publish { channel: channel.into(), message: message.into() }
    }

    /// Any command, with the columns in their order as arguments; see [`Raw`].
    pub fn raw(word: impl Into<String>) -> Raw {
        Raw { word: Some(word.into()) }
    }

    /// Any command: the first column is the command's word, the others are its arguments; see [`Raw`].
    pub fn raw_from_row() -> Raw {
        Raw { word: None }
    }
}

/// How the key of a row is built.
///
/// If a key has several parts, `:` joins them, and inside a part `%` becomes `%25` and `:` becomes `%3A`, so
/// that different values never have the same key. A key of one column is the column's value unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub(crate) KeyParts);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyParts {
    Column(String),
    Constant(String),
    Prefixed(String, Vec<String>),
    OfRow,
}

impl Key {
    /// The value of a column, unchanged.
    pub fn column(name: impl Into<String>) -> Self {
        Self(KeyParts::Column(name.into()))
    }

    /// The same key for every row, for example of a stream.
    pub fn constant(key: impl Into<String>) -> Self {
        Self(KeyParts::Constant(key.into()))
    }

    /// `prefix:value` or `prefix:value:value…`. The prefix is not escaped.
    pub fn prefixed<C: Into<String>>(prefix: impl Into<String>, columns: impl IntoIterator<Item = C>) -> Self {
        Self(KeyParts::Prefixed(prefix.into(), columns.into_iter().map(Into::into).collect()))
    }

    /// `table:value:value…` with the key columns of the schema, those of its conflict rule. In the name of the
    /// table `.` becomes `%2E` too, except for the one between namespace and table.
    pub fn of_row() -> Self {
        Self(KeyParts::OfRow)
    }
}

/// A column's value, as [`Key::column`].
impl<T: Into<String>> From<T> for Key {
    fn from(column: T) -> Self {
        Self::column(column)
    }
}

/// The time to live of the written value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ttl(pub(crate) TtlKind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TtlKind {
    None,
    After(Duration),
    Column(String),
    Keep,
}

impl Ttl {
    /// No expiry, the default. An existing time to live of the key is removed, as `SET` does.
    pub fn none() -> Self {
        Self(TtlKind::None)
    }

    /// The same for every row: at least 1 ms, with a resolution of 1 ms.
    pub fn after(duration: Duration) -> Self {
        Self(TtlKind::After(duration))
    }

    /// The value of an integer column in seconds; `NULL` means no expiry. The server rejects rows with 0 or
    /// less.
    pub fn column(name: impl Into<String>) -> Self {
        Self(TtlKind::Column(name.into()))
    }

    /// The existing time to live of the key (`KEEPTTL`, Redis 6).
    pub fn keep() -> Self {
        Self(TtlKind::Keep)
    }

    pub(crate) fn column_name(&self) -> Option<&str> {
        match &self.0 {
            TtlKind::Column(name) => Some(name),
            TtlKind::None | TtlKind::After(_) | TtlKind::Keep => None,
        }
    }
}

/// [`Ttl::after`].
impl From<Duration> for Ttl {
    fn from(duration: Duration) -> Self {
        Self::after(duration)
    }
}

/// A string. The schema has exactly the columns of key, value and time to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub(crate) key: Key,
    pub(crate) value: String,
    pub(crate) ttl: Ttl,
}

impl Set {
    /// Its time to live; default no expiry.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }
}

/// A hash: the columns that are not in the key are its fields, by their names. Fields that the row does not
/// carry stay unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    pub(crate) key: Key,
}

impl Hash {
    /// The key of the hash; default [`Key::of_row`].
    #[must_use]
    pub fn key(mut self, key: impl Into<Key>) -> Self {
        self.key = key.into();
        self
    }
}

/// A JSON object as a string: the columns that are in neither key nor time to live are its members, by their
/// names.
///
/// Integers, floats and booleans become JSON values; `NaN` and infinity, which JSON does not have, are
/// rejected at admission. JSON columns are embedded. Decimals are strings, so that no digit is lost; bytes are
/// strings of hexadecimal digits; everything else is a string in its text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub(crate) key: Key,
    pub(crate) ttl: Ttl,
}

impl Document {
    /// The key of the string; default [`Key::of_row`].
    #[must_use]
    pub fn key(mut self, key: impl Into<Key>) -> Self {
        self.key = key.into();
        self
    }

    /// Its time to live; default no expiry.
    #[must_use]
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }
}

/// A member of a sorted set. The score is an integer, decimal or float column; the server stores it as a double.
/// `NaN`, which is no valid score, is rejected at admission. Integers that a double cannot hold (beyond 2^53, unless
/// they end in enough binary zeros) are rejected, because the server would round them, and so are decimals other than
/// the shortest spelling of a double (`0.1` is one). To round scores, use a float column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZAdd {
    pub(crate) key: Key,
    pub(crate) score: String,
    pub(crate) member: String,
}

/// A member of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SAdd {
    pub(crate) key: Key,
    pub(crate) member: String,
}

/// An entry of a stream: the columns that are in neither key nor id are its fields, by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XAdd {
    pub(crate) key: Key,
    pub(crate) id: Option<String>,
    pub(crate) max_len: Option<u64>,
}

impl XAdd {
    /// The column with the entry's id, for example `1526919030474-55`; `NULL` and the default let the server
    /// choose (`*`).
    ///
    /// The server accepts only ids above the last one, so rows must come in this order: `Ordering::PerTable`, one
    /// process. An entry that failed with a transient error (no memory) and is retried after later entries is
    /// rejected.
    #[must_use]
    pub fn id(mut self, column: impl Into<String>) -> Self {
        self.id = Some(column.into());
        self
    }

    /// Keeps about this many entries (`MAXLEN ~`); default all.
    #[must_use]
    pub fn max_len(mut self, entries: u64) -> Self {
        self.max_len = Some(entries);
        self
    }
}

/// An element of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    pub(crate) word: &'static str,
    pub(crate) key: Key,
    pub(crate) value: String,
}

/// A message. Redis does not store it: only clients that are subscribed at that moment receive it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub(crate) channel: Key,
    pub(crate) message: String,
}

/// Any command whose arguments are the columns in their order. The reply of the server is not evaluated, unless it is
/// an error.
///
/// Commands that change the state of their connection (`MULTI`, `SUBSCRIBE`, `SELECT`, …) or that may block (`BLPOP`,
/// `WAITAOF`, `XREAD`, …) are rejected; for a fixed word also those that the server reports as such.
/// [`raw_from_row`](Command::raw_from_row) cannot detect blocking commands of modules; a batch that blocks ends as
/// unknown with the pipeline's `statement_timeout`.
///
/// For retries after a transient error, and in a cluster, the first argument counts as the key, or the one that the
/// server reports (`COMMAND INFO`). For `EVAL`, `FCALL` and others whose key depends on their arguments, the key is
/// not known: as fixed words they are rejected in a cluster, and their rows are retried even after later ones. In
/// rows of `raw_from_row` the script counts as their key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub(crate) word: Option<String>,
}

macro_rules! into_command {
    ($($name:ident),*) => {$(
        impl From<$name> for Command {
            fn from(command: $name) -> Self {
                Self::$name(command)
            }
        }
    )*};
}
into_command!(Set, Hash, Document, ZAdd, SAdd, XAdd, Push, Publish, Raw);
