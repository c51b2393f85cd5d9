//! Owns the form of a command: its words, where each argument comes from, and which reply means "ignored".
//! Must not know schemas, rows or connections.

/// The form of a command. Columns are given by number.
#[derive(Debug)]
pub(crate) enum Shape {
    /// `SET`, `SETEX` or `PSETEX`.
    Set { key: KeyPlan, body: Body, ttl: TtlPlan, nx: bool },
    /// `HSET`, with `HDEL` for `NULL`.
    Hash { key: KeyPlan, fields: Box<[Field]> },
    /// `word key [flag] columns…`. A score is the first of the columns.
    Simple { word: &'static str, key: KeyPlan, flag: Option<&'static str>, columns: Box<[usize]>, has_score: bool },
    /// `XADD key [MAXLEN ~ n] id fields…`.
    Stream { key: KeyPlan, max_len: Option<String>, id: Option<usize>, fields: Box<[Field]> },
    /// `words… columns…`; without words the first column is the word.
    Raw { words: Box<[String]>, columns: usize },
}

/// A column with its name in the encoded form.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Box<[u8]>,
    pub(crate) column: usize,
}

/// The value of a string.
#[derive(Debug)]
pub(crate) enum Body {
    Column(usize),
    /// A JSON object. The names are quoted and escaped, with a colon.
    Document(Box<[Field]>),
}

#[derive(Debug)]
pub(crate) enum TtlPlan {
    None,
    Seconds(String),
    Millis(String),
    /// A column with seconds.
    Column(usize),
    Keep,
}

/// How a key is built.
#[derive(Debug)]
pub(crate) struct KeyPlan {
    /// The text before the columns, with the colon.
    pub(crate) prefix: Box<[u8]>,
    pub(crate) columns: Box<[usize]>,
    /// Whether values are parts of a key, not the whole key.
    pub(crate) escapes: bool,
}

/// The reply that means "it already existed".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IgnoredReply {
    Nil,
    Zero,
}
