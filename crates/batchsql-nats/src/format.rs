//! Owns what a worker asks of a format of other publishers: the items of a message, each of which may be a row.
//! Must not know any format, or where rows go.

use std::fmt;

use async_nats::HeaderMap;
use batchsql_core::{DynRow, TableName};
use bytes::Bytes;

/// The most items of a message: as many as its positions have numbers.
pub(crate) const MOST_ITEMS: u32 = 1 << 20;

/// How messages of other publishers become rows, for [`WorkerOptions::format`](crate::WorkerOptions::format). Messages with the
/// headers of this crate are not asked about.
///
/// The position of a row is the number of its item. So the bytes and headers of a message alone decide which items it has and
/// which numbers they have: after a restart, with other settings too, a number must name the same item. Whether an item is a row
/// may change with settings: what the position has passed stays as it was, and what is behind it is read with the new ones.
///
/// Items that are no rows are set aside. After [`isolation_budget`](batchsql_core::BatchSql::isolation_budget) of them that are JSON
/// objects (default 256), without an item that is a row, the partition stops, and the rest stays in the stream: the fields or
/// columns of this program are the likely cause.
pub trait MessageFormat: fmt::Debug + Send + Sync + 'static {
    /// Opens a message. Items below `from` are known, and are left out. It may block for as long as the message needs.
    ///
    /// # Errors
    /// Why it is no message of this format, without values. All of it goes to the file of foreign messages, and its partition
    /// goes on.
    fn open(&self, message: &OtherMessage, from: u32) -> Result<Box<dyn MessageItems>, String>;
}

/// The items of a message, from the first to the last.
pub trait MessageItems: Send + Sync {
    /// The number of the last item, below 2^20. `None`: there is none, and nothing to write.
    fn last(&self) -> Option<u32>;

    /// Gives the next item to `take`: its number, its bytes, and its row, or why it is none, without values. Numbers begin with 0,
    /// rise, and may leave some out. `false`: there was none.
    fn next(&mut self, take: &mut TakeItem<'_>) -> bool;
}

/// Takes an item, see [`MessageItems::next`].
pub type TakeItem<'a> = dyn FnMut(u32, &[u8], Result<DynRow, String>) + 'a;

/// A message that no publisher of this crate has published.
#[derive(Clone)]
#[non_exhaustive]
pub struct OtherMessage {
    /// The table of its subject.
    pub table: TableName,
    /// Its headers, if it has some.
    pub headers: Option<HeaderMap>,
    /// Its payload.
    pub payload: Bytes,
}

impl OtherMessage {
    /// A message of this table.
    pub fn new(table: TableName, headers: Option<HeaderMap>, payload: Bytes) -> Self {
        Self { table, headers, payload }
    }
}

/// Without the payload, which has values of rows.
impl fmt::Debug for OtherMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtherMessage")
            .field("table", &self.table)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish_non_exhaustive()
    }
}
