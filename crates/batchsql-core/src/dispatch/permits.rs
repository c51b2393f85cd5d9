//! Owns how many batches of a schedule are being written, and how many more each table may write.
//! Must not know which of them is next.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::dispatch::schedule::{ACTIVE_FOR, Schedule};

impl Schedule {
    /// Batches that are being written.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Rows and bytes of the batches that are being written.
    pub(crate) fn running_capacity(&self) -> (usize, usize) {
        self.running.values().fold((0, 0), |(rows, bytes), start| (rows + start.rows, bytes + start.bytes))
    }

    /// Rows of a table that are being written.
    pub(crate) fn running_rows(&self, table: usize) -> usize {
        self.running.values().filter(|start| start.lane.table == table).map(|start| start.rows).sum()
    }

    /// How many batches could start if there were permits for them; it stops counting at `most`. Also whether a lane
    /// was skipped because its table has all the permits it may have.
    pub(crate) fn startable(&self, most: usize, now: Instant) -> (usize, bool) {
        let (mut count, mut is_capped) = (0, false);
        // Permits that the lanes of a table may still take.
        let mut left: HashMap<usize, usize> = HashMap::new();
        for lane in self.ready.lanes() {
            if count >= most {
                break;
            }
            let Some(state) = self.lanes.get(&lane).filter(|state| state.may_start()) else { continue };
            let batches = if state.table.is_serial() { 1 } else { state.held.len() + state.ready };
            let left = left.entry(lane.table).or_insert_with(|| self.permits_left(lane.table, now));
            is_capped |= *left == 0;
            let batches = batches.min(*left);
            *left -= batches;
            count += batches;
        }
        (count.min(most), is_capped)
    }

    /// Whether lanes of other tables may start, too.
    pub(crate) fn others_are_ready(&self, table: usize) -> bool {
        self.ready.lanes().any(|lane| lane.table != table)
    }

    /// Permits that a table may take now: all but one while another table is active.
    pub(super) fn permits_left(&self, table: usize, now: Instant) -> usize {
        let is_other_active = self.active.iter().any(|(other, at)| *other != table && now - *at < ACTIVE_FOR)
            || self.running.values().any(|start| start.lane.table != table);
        let cap = if is_other_active { (self.concurrency - 1).max(1) } else { self.concurrency };
        cap.saturating_sub(self.running.values().filter(|start| start.lane.table == table).count())
    }
}
