//! Owns the calls of a driver: each takes the next step of its script.
//! Must not know the internals of the pipeline: it sees only what a driver sees.

use std::time::Duration;

use batchsql_core::{
    Attempt, Claim, Claimed, EFFICIENT_BATCH_ROWS, ErrorClass, PartitionKey, PoolState, Position, Removed, Rows,
    Schema, Session, SessionEnd, Sink, SinkError, Step as PositionStep, StoredPosition, Written,
};

use super::sink::ScriptedSink;
use super::step::{Step, scripted};

impl ScriptedSink {
    async fn released(&self) -> Result<(), SinkError> {
        let released = self.0.released.acquire().await;
        released.map_err(|_| SinkError::new(ErrorClass::Internal, "never released"))?.forget();
        Ok(())
    }

    /// Does a step that has nothing to do with rows.
    async fn go(&self, step: Option<Step>) -> Result<(), SinkError> {
        match step.unwrap_or(Step::Apply) {
            Step::Apply
            | Step::RejectRow(_)
            | Step::LeaveRow(..)
            | Step::LoseRow(_)
            | Step::LoseReply
            | Step::Late
            | Step::LateAndSilent => Ok(()),
            Step::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Step::Fail(class) => Err(scripted(class)),
            Step::Panic => panic!("the script says so"),
            Step::Hang | Step::HangAfter | Step::HangInQueue => self.released().await,
        }
    }
}

impl Sink for ScriptedSink {
    type Conn = u64;
    type Plan = ();

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn max_concurrency(&self) -> Option<usize> {
        self.lock().max_concurrency
    }

    fn sorts_by_key(&self) -> bool {
        self.lock().sorts_by_key
    }

    fn is_atomic(&self) -> bool {
        !self.lock().is_not_atomic
    }

    fn pool(&self) -> Option<PoolState> {
        self.lock().pool
    }

    fn efficient_batch_rows(&self) -> usize {
        if self.lock().grows_batches { EFFICIENT_BATCH_ROWS } else { 0 }
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.lock().late_write_limit
    }

    async fn session(&self, conn: &mut u64) -> Result<Option<Session>, SinkError> {
        let has_none = self.lock().has_no_sessions;
        Ok((!has_none).then(|| Session::new(*conn)))
    }

    fn known_session(&self, conn: &u64) -> Option<Session> {
        self.lock().knows_sessions.then(|| Session::new(*conn))
    }

    async fn is_working(&self, _: &Session) -> Result<Option<bool>, SinkError> {
        let mut state = self.lock();
        state.looks += 1;
        Ok(state.is_working)
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        let mut state = self.lock();
        let end = state.end_script.pop_front().unwrap_or(Ok(SessionEnd::Ended)).map_err(scripted)?;
        if end == SessionEnd::Ended {
            state.ended.extend(session.name::<u64>());
        }
        Ok(end)
    }

    async fn acquire(&self) -> Result<u64, SinkError> {
        let step = self.lock().acquire_script.pop_front();
        self.go(step).await?;
        let mut state = self.lock();
        state.sessions += 1;
        Ok(state.sessions)
    }

    fn keeps_positions(&self) -> bool {
        self.lock().keeps_positions
    }

    async fn claim(&self, _: &mut u64, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        let step = self.lock().claim_script.pop_front();
        self.go(step).await?;
        let claimed = self.lock().positions.claim(key, claim);
        match step {
            Some(Step::LoseReply) => Err(scripted(ErrorClass::Unknown)),
            _ => Ok(claimed),
        }
    }

    async fn advance(&self, _: &mut u64, step: &PositionStep) -> Result<(), SinkError> {
        self.lock().positions.advance(step)
    }

    async fn positions(&self, _: &mut u64, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        Ok(self.lock().positions.read(source))
    }

    async fn renew(
        &self,
        _: &mut u64,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        Ok(self.lock().positions.renew(source, owner, lease))
    }

    async fn release(&self, _: &mut u64, position: &Position) -> Result<bool, SinkError> {
        Ok(self.lock().positions.release(position))
    }

    async fn remove_positions(
        &self,
        _: &mut u64,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        Ok(self.lock().positions.remove(source, incarnation, ended_owners))
    }

    async fn prepare(&self, _: &mut u64, schema: &Schema) -> Result<(), SinkError> {
        let (step, broken) = {
            let mut state = self.lock();
            state.prepares += 1;
            (state.prepare_script.pop_front(), state.broken.get(schema.table_display()).copied())
        };
        match broken {
            Some(class) => Err(broken_table(class)),
            None => self.go(step).await,
        }
    }

    async fn write(&self, conn: &mut u64, (): &(), rows: Rows<'_>, attempt: &Attempt) -> Result<Written, SinkError> {
        let (step, broken, slow) = {
            let mut state = self.lock();
            state.writes += 1;
            let table = rows.schema().table_display();
            let broken = state.broken.get(table).or(state.broken_writes.get(table)).copied();
            let slow = state.slow.get(table).copied();
            (state.script.pop_front().unwrap_or(Step::Apply), broken, slow)
        };
        if let Some(time) = slow {
            tokio::time::sleep(time).await;
        }
        if let Some(class) = broken {
            return Err(broken_table(class));
        }
        match step {
            Step::RejectRow(row) => self.apply(rows, attempt, Some(row)),
            Step::LeaveRow(row, class) => self.leave(rows, attempt, row, class),
            Step::LoseRow(row) => self.lose(rows, attempt, row),
            Step::LoseReply => {
                self.apply(rows, attempt, None)?;
                Err(SinkError::new(ErrorClass::Unknown, "the reply was lost"))
            }
            Step::Late | Step::LateAndSilent => {
                let owned = (0..rows.len()).map(|row| rows.to_row(row)).collect();
                self.lock().late.push((*conn, attempt.step().copied(), owned));
                if step == Step::LateAndSilent {
                    std::future::pending::<()>().await;
                }
                Err(SinkError::new(ErrorClass::Unknown, "the connection was lost; the write may arrive late"))
            }
            Step::HangAfter => {
                let written = self.apply(rows, attempt, None);
                self.released().await?;
                written
            }
            Step::HangInQueue => {
                attempt.defer();
                self.released().await?;
                if !attempt.begin() {
                    return Err(SinkError::new(ErrorClass::Internal, "given up while it waited"));
                }
                self.apply(rows, attempt, None)
            }
            step => {
                self.go(Some(step)).await?;
                self.apply(rows, attempt, None)
            }
        }
    }

    async fn find_written(&self, _: &mut u64, (): &(), rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
        let state = self.lock();
        let is_there = |row: &u32| state.model.has(&rows.to_row(*row as usize));
        Ok((0..u32::try_from(rows.len()).expect("a batch has fewer rows")).filter(is_there).collect())
    }
}

fn broken_table(class: ErrorClass) -> SinkError {
    SinkError::with_code(class, "broken", "the table is broken")
}
