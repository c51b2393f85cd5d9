//! Owns the sink that accepts every row and keeps none.
//! Must not know what it is measured against.

use batchsql_core::{Attempt, Rows, Schema, Sink, SinkError, Written};

/// Accepts every batch at once and keeps nothing, so that only the cost of the pipeline remains.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

impl Sink for NullSink {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "null"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), _: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        Ok(Written::default())
    }
}
