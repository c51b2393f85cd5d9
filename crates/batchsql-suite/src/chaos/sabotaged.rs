//! Owns a sink with a defect on purpose, around a real one: a position moves in a transaction of its own, before that of its rows.
//! Must not know a database.

use batchsql::{Attempt, DynSink, Rows, Sink, SinkError, Written};

use crate::forwarding::{Forwarding, Writing};

/// A step that is written so loses its rows when it fails or when the writer is killed between the two transactions.
#[derive(Debug, Clone, Copy)]
pub(super) struct PositionAlone;

/// The sink with this defect.
pub(super) fn position_alone(sink: DynSink) -> DynSink {
    DynSink::new(Forwarding { sink, writing: PositionAlone })
}

impl Writing<DynSink> for PositionAlone {
    async fn write(
        &self,
        sink: &DynSink,
        conn: &mut <DynSink as Sink>::Conn,
        plan: &<DynSink as Sink>::Plan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        match attempt.step().filter(|step| step.commits) {
            Some(step) => {
                sink.advance(conn, step).await?;
                sink.write(conn, plan, rows, &Attempt::new(true)).await
            }
            None => sink.write(conn, plan, rows, attempt).await,
        }
    }
}
