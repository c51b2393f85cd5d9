//! Owns the key of a request: what is stored with its rows, and how it is compared.
//! Must not know rows or the log.

use std::fmt;

use crate::error::DurableSubmitError;

/// The longest key, and the longest content of a key, in bytes.
const LONGEST_KEY: usize = 255;
const LONGEST_CONTENT: usize = 64;

/// The version of values.
const VERSION: u8 = 1;

/// Names a request, so that it is stored once; for
/// [`DurableBatchSql::submit_group_once`](crate::DurableBatchSql::submit_group_once).
///
/// ```
/// # use batchsql_core::{BatchSql, ColumnType, Schema};
/// # use batchsql_durable::{DurableExt, DurableOptions};
/// use batchsql_durable::{Once, RequestKey};
/// # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let options = DurableOptions::new(folder.path()).min_free_bytes(0);
/// # let db = BatchSql::builder(batchsql_testkit::ScriptedSink::new()).durable(options).start().await?;
/// # let orders = Schema::builder("orders").column("id", ColumnType::I64).build()?;
/// let mut group = db.group();
/// group.push(&orders.row().set("id", 7_i64)?.finish()?)?;
/// // A key of the client, and a hash of what it has sent.
/// let key = RequestKey::new("client 3, request 12", [0x5e; 32]);
/// assert_eq!(db.submit_group_once(&group, &key).await?, Once::Stored(1));
/// // The client got no answer, and sends it again.
/// assert_eq!(db.submit_group_once(&group, &key).await?, Once::Repeated(1));
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestKey {
    key: Vec<u8>,
    content: Vec<u8>,
}

/// Without the bytes: they are values of the caller.
impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestKey")
            .field("key", &format_args!("{} bytes", self.key.len()))
            .field("content", &format_args!("{} bytes", self.content.len()))
            .finish()
    }
}

impl RequestKey {
    /// A key of 1 to 255 bytes, and what distinguishes its content from others: at most 64 bytes, such as a hash of its body. A request with
    /// the same key and another content is refused.
    pub fn new(key: impl Into<Vec<u8>>, content: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), content: content.into() }
    }

    pub(crate) fn check(&self) -> Result<(), DurableSubmitError> {
        let (key, content) = (self.key.len(), self.content.len());
        if key == 0 || key > LONGEST_KEY || content > LONGEST_CONTENT {
            return Err(DurableSubmitError::refused(format!(
                "the key of a request has {key} bytes and its content {content}; use 1 to {LONGEST_KEY}, and at most \
                 {LONGEST_CONTENT}, for example a hash"
            )));
        }
        Ok(())
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    /// What is stored with the key: version, number of rows, content.
    pub(crate) fn value(&self, rows: usize) -> Vec<u8> {
        let mut value = vec![VERSION];
        value.extend((rows as u64).to_le_bytes());
        value.extend(&self.content);
        value
    }
}

/// What became of a request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Once {
    /// So many rows are stored now.
    Stored(usize),
    /// So many rows were stored before, by a request with the same key and content. Nothing was stored now.
    Repeated(usize),
}

/// The value of a key that was stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StoredRequest<'a> {
    pub(crate) rows: u64,
    pub(crate) content: &'a [u8],
}

impl<'a> StoredRequest<'a> {
    /// `None`: a newer version wrote it.
    pub(crate) fn read(value: &'a [u8]) -> Option<Self> {
        let (version, rest) = value.split_first()?;
        let (rows, content) = rest.split_first_chunk()?;
        (*version == VERSION).then_some(Self { rows: u64::from_le_bytes(*rows), content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes never change: values of older programs must stay readable.
    #[test]
    fn the_value_of_a_key_is_pinned() {
        let value = RequestKey::new("k", [7, 8]).value(300);
        assert_eq!(value, [1, 44, 1, 0, 0, 0, 0, 0, 0, 7, 8]);
        assert_eq!(StoredRequest::read(&value), Some(StoredRequest { rows: 300, content: &[7, 8] }));
        assert_eq!(StoredRequest::read(&[2, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(StoredRequest::read(&[1, 0]), None);
    }

    #[test]
    fn a_key_is_shown_without_its_bytes() {
        assert_eq!(
            format!("{:?}", RequestKey::new("secret", [7; 32])),
            "RequestKey { key: 6 bytes, content: 32 bytes }"
        );
    }

    #[test]
    fn keys_and_contents_are_bounded() {
        assert!(RequestKey::new([1; 255], [1; 64]).check().is_ok());
        for key in [RequestKey::new("", ""), RequestKey::new([1; 256], ""), RequestKey::new("k", [1; 65])] {
            assert!(key.check().is_err(), "{key:?}");
        }
    }
}
