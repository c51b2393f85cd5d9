//! Owns standard input as a source: NDJSON, line by line.
//! Must not know tables or the database.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use batchsql::DynRow;
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::coding::items::{Form, Items, Unsplit};
use crate::exit::Exit;
use crate::intake::{Intake, Refusal};
use crate::sources::refused_lines::RefusedLines;
use crate::table::target::Target;

const LONGEST_LINE: usize = 1 << 20;
const PART: usize = 64 << 10;
/// After the answer that there is no capacity.
const PAUSE: Duration = Duration::from_millis(100);
/// A line waits this long for capacity before it is tried again; it is never given up.
const CAPACITY_TIME: Duration = Duration::from_secs(60);

/// Reads until the end. A line that is no row is left out; the log has the first one for each reason and the number of the others.
/// It has failed when there was such a line, or when input is left that is not read: who has sent it gets no other answer.
///
/// # Cancel safety
/// If it is dropped, rows that were read are lost; `has_refused` says whether there was such a line.
pub(crate) async fn run(id: &str, intake: &Intake, target: &Target, has_refused: &AtomicBool) -> Exit {
    let mut input = tokio::io::stdin();
    let mut items = Items::new(Form::Lines, LONGEST_LINE);
    let (mut part, mut accepted, mut refused) = (vec![0; PART], 0_u64, 0_u64);
    let log = RefusedLines::new(id);
    loop {
        let length = match input.read(&mut part).await {
            Ok(length) => length,
            Err(error) => {
                tracing::error!(source = id, %error, "standard input cannot be read any more");
                return Exit::Failed;
            }
        };
        items.buffer().extend_from_slice(&part[..length]);
        let mut rows = Rows { id, rows: VecDeque::new() };
        let over = loop {
            match items.next(length == 0) {
                Ok(Some((line, text))) => match target.row_of_json(text) {
                    Ok(row) => rows.rows.push_back(row),
                    Err(reason) => {
                        refused += 1;
                        log.add(Some(line), &reason);
                    }
                },
                Ok(None) => break (length == 0).then_some(Exit::Done),
                Err(Unsplit::TooLong(line)) => {
                    tracing::error!(source = id, line, limit = LONGEST_LINE, "a line is too long; no more is read");
                    break Some(Exit::Failed);
                }
                Err(Unsplit::NoArray(_)) => unreachable!("lines are no array"),
            }
        };
        let count = rows.rows.len() as u64;
        has_refused.fetch_or(refused > 0, Ordering::Relaxed);
        let Some(not_accepted) = rows.submit(intake, &log).await else { return Exit::Done };
        accepted += count - not_accepted;
        refused += not_accepted;
        has_refused.fetch_or(refused > 0, Ordering::Relaxed);
        if let Some(exit) = over {
            log.end();
            tracing::info!(source = id, accepted, refused, "standard input has ended");
            return if refused > 0 { Exit::Failed } else { exit };
        }
    }
}

/// Rows that were read and are not accepted yet. If the service ends, it is said how many they are.
struct Rows<'a> {
    id: &'a str,
    rows: VecDeque<DynRow>,
}

impl Rows<'_> {
    /// Submits all rows, and returns how many of them are left out. `None`: the service ends.
    async fn submit(&mut self, intake: &Intake, log: &RefusedLines<'_>) -> Option<u64> {
        let (mut refused, mut said) = (0, String::new());
        loop {
            match intake.submit(&mut self.rows, CAPACITY_TIME).await {
                Ok(()) => return Some(refused),
                Err(Refusal::Row(reason)) => {
                    self.rows.pop_front();
                    refused += 1;
                    log.add(None, &reason);
                }
                Err(Refusal::Full) => sleep(PAUSE).await,
                Err(Refusal::FullBefore(stored)) => {
                    remove(&mut self.rows, &stored);
                    sleep(PAUSE).await;
                }
                Err(Refusal::Closed) => return None,
                // Tried again: it may be written twice, as every row of a durable intake.
                Err(Refusal::Undetermined(error)) => {
                    // Once, and not at each try.
                    if said != error {
                        tracing::error!(source = self.id, error, "the log has failed; trying again");
                        said = error;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Removes the rows with these numbers, which are in their order.
fn remove(rows: &mut VecDeque<DynRow>, numbers: &[usize]) {
    let mut number = 0;
    rows.retain(|_| {
        number += 1;
        numbers.binary_search(&(number - 1)).is_err()
    });
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        if !self.rows.is_empty() {
            let rows = self.rows.len();
            tracing::warn!(source = self.id, rows, "the service ends, and lines that were read may not be accepted");
        }
    }
}
