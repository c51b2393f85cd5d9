//! Owns a sink with a defect on purpose, around a real one: the epoch of a position is not tested.
//! Must not know a database.

use batchsql::{Attempt, DynSink, Rows, Sink, SinkError, Written};

use crate::forwarding::{Forwarding, Writing};

/// A step of a worker that has lost its partition is written nevertheless.
#[derive(Debug, Clone, Copy)]
struct Unfenced;

/// The sink with this defect.
pub(super) fn unfenced(sink: DynSink) -> DynSink {
    DynSink::new(Forwarding { sink, writing: Unfenced })
}

impl Writing<DynSink> for Unfenced {
    async fn write(
        &self,
        sink: &DynSink,
        conn: &mut <DynSink as Sink>::Conn,
        plan: &<DynSink as Sink>::Plan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        let written = sink.write(conn, plan, rows, attempt).await;
        let commits = attempt.step().is_some_and(|step| step.commits);
        match written {
            Err(error) if commits && error.is_fenced() => {
                // What the first one has done is not known to be over.
                let mut other = sink.acquire().await?;
                sink.write(&mut other, plan, rows, &Attempt::new(true)).await
            }
            written => written,
        }
    }
}
