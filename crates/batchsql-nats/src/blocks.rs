//! Owns how the payload of a message of a publisher is a block: it is checked before it is given away, and its schema once.
//! Must not know the stream.

use std::sync::Arc;

use async_nats::jetstream::Message;
use batchsql_core::{ColumnType, Schema, StopReason, TableName};
use batchsql_feed::Schemas;
use batchsql_feed::block::{Unreadable, check, decode_schema};

use crate::message::{Foreign, Header, body};

/// Reads the blocks of one partition.
#[derive(Debug)]
pub(crate) struct Blocks {
    table: TableName,
    may_write_again: bool,
    /// The schema of the message before, whose table was compared.
    schema: Option<KnownSchema>,
}

/// A schema as it is in messages, with the types of its columns; `true` is nullable.
#[derive(Debug)]
struct KnownSchema {
    bytes: Arc<[u8]>,
    columns: Vec<(ColumnType, bool)>,
}

/// Rows of a message: how many, their schema, their bytes.
pub(crate) type MessageRows = (u32, Arc<[u8]>, Vec<u8>);

impl Blocks {
    pub(crate) fn new(table: TableName, may_write_again: bool) -> Self {
        Self { table, may_write_again, schema: None }
    }

    /// The number, schema and bytes of the rows; `None` if there are none.
    pub(crate) fn rows(
        &mut self,
        schemas: &Schemas,
        message: &Message,
        header: &Header,
    ) -> Result<Option<MessageRows>, Foreign> {
        if header.rows == 0 {
            return Ok(None);
        }
        let headers = message.headers.as_ref().ok_or_else(Foreign::without_headers)?;
        let read = body(headers, &message.payload)?;
        let known = match self.schema.take() {
            Some(known) if *known.bytes == *read.schema => known,
            _ => {
                let schema = decode_schema(&read.schema).map_err(|error| unreadable("schema", &error))?;
                if schema.table != self.table {
                    return Err(Foreign::new(format!("it has rows of table {}", schema.table)));
                }
                if let Some(schema) = schemas.schema_of(&read.schema) {
                    self.refuse_counting(&schema)?;
                }
                let columns = schema.columns.iter().map(|column| (column.ty, column.is_nullable)).collect();
                KnownSchema { bytes: read.schema, columns }
            }
        };
        let bytes = Arc::clone(&known.bytes);
        let checked = check(&known.columns, header.rows, &read.rows);
        self.schema = Some(known);
        // A block that cannot be read would stop the partition: what is damaged in the stream stays so.
        checked.map_err(|error| unreadable("block of rows", &error))?;
        Ok(Some((header.rows, bytes, read.rows)))
    }

    /// At least once, rules that add up would count a row again.
    pub(crate) fn refuse_counting(&self, schema: &Schema) -> Result<(), Foreign> {
        if !self.may_write_again || !schema.counts_repeats() {
            return Ok(());
        }
        let why = format!(
            "table {:?} has a rule with Expr::add or Expr::raw, and a worker may write a row more than once; use \
             WorkerOptions::exactly_once, accept it with Conflict::may_add_twice, or give another rule to \
             WorkerOptions::schema",
            schema.table_display()
        );
        Err(Foreign::stop(StopReason::Schema, why))
    }
}

fn unreadable(part: &str, error: &Unreadable) -> Foreign {
    let stop = matches!(error, Unreadable::NewerVersion(_)).then_some(StopReason::Unreadable);
    Foreign { why: format!("its {part} cannot be read: {error}"), stop }
}
