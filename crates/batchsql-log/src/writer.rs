//! Owns the writer thread: it takes what waits, has it written, and looks after the files.
//! Must not know the format.

use std::{
    mem,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    completion::Sender,
    engine::Engine,
    error::LogError,
    format::snapshot::Settled,
    group::{self, Limits, Step, Waiting},
    options::{Options, SyncPolicy},
    shared::{Intake, Queued, Shared},
    upkeep::{self, Upkeep},
};

/// What the thread does next.
#[derive(Debug, Default)]
struct Work {
    blocks: Vec<Queued>,
    settled: Settled,
    syncs: Vec<Sender<()>>,
    closers: Vec<Sender<()>>,
    is_urgent: bool,
}

/// Runs until the log is closed.
pub(crate) fn run(mut engine: Engine, shared: Arc<Shared>) {
    let _guard = ClosedAtEnd(Arc::clone(&shared));
    let mut previous = 0;
    let mut upkeep = Upkeep::default();
    loop {
        let due = [upkeep.due(&engine), engine.sync_due()].into_iter().flatten().min();
        let work = next_work(&shared, previous, due);
        let Work { blocks, settled, syncs, closers, is_urgent } = work;
        if !blocks.is_empty() {
            previous = blocks.len();
        }
        if !settled.is_empty() {
            upkeep.settled();
        }
        engine.commit(blocks, settled);
        if !syncs.is_empty() || !closers.is_empty() {
            let outcome = engine.flush(true);
            upkeep.run(&mut engine, true);
            syncs.into_iter().for_each(|sync| sync.send(outcome.clone()));
        } else {
            upkeep.run(&mut engine, is_urgent);
        }
        if !closers.is_empty() {
            let outcome = upkeep::close(&mut engine);
            // The lock of the folder is given back before the caller hears of the end.
            drop(engine);
            let mut intake = shared.intake();
            intake.ended = Some(outcome.clone());
            // Also of those who have asked meanwhile.
            let closers = closers.into_iter().chain(mem::take(&mut intake.closers));
            drop(intake);
            closers.for_each(|closer| closer.send(outcome.clone()));
            return;
        }
    }
}

/// Waits until something is to be done; at most `due`.
fn next_work(shared: &Shared, previous: usize, due: Option<Duration>) -> Work {
    let options = &shared.options;
    let limits = Limits {
        bytes: options.group_bytes.min(options.segment_bytes / 2),
        delay: if options.policy == SyncPolicy::Always { options.group_delay } else { Duration::ZERO },
        settle_delay: options.settle_delay,
    };
    let until = due.and_then(|due| Instant::now().checked_add(due));
    let mut intake = shared.intake();
    loop {
        let waiting = Waiting {
            blocks: intake.blocks.len(),
            bytes: intake.bytes,
            blocks_for: intake.blocks.front().map_or(Duration::ZERO, |first| first.since.elapsed()),
            settled_for: intake.settled_at.map(|at| at.elapsed()),
            is_urgent: intake.wants_space
                || intake.wants_upkeep
                || !intake.syncs.is_empty()
                || !intake.closers.is_empty(),
        };
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = match group::step(&waiting, previous, &limits) {
            Step::Write => return take(&mut intake, limits.bytes),
            Step::Wait(_) if left.is_some_and(|left| left.is_zero()) => return take(&mut intake, limits.bytes),
            Step::Wait(wait) => [wait, left].into_iter().flatten().min(),
        };
        intake = match wait {
            None => shared.work.wait(intake).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => shared.work.wait_timeout(intake, wait).unwrap_or_else(PoisonError::into_inner).0,
        };
    }
}

fn take(intake: &mut Intake, limit: u64) -> Work {
    let mut work = Work { settled: mem::take(&mut intake.settled), ..Work::default() };
    intake.settled_at = None;
    work.is_urgent = mem::take(&mut intake.wants_space) | mem::take(&mut intake.wants_upkeep);
    let mut bytes = 0;
    while let Some(next) = intake.blocks.front() {
        // A group is one write, so that it is never in two segments.
        let group = next.rest as usize + 1;
        let size: u64 = intake.blocks.iter().take(group).map(Queued::bytes).sum();
        if bytes > 0 && bytes + size > limit {
            break;
        }
        bytes += size;
        for queued in intake.blocks.drain(..group) {
            intake.begun.insert(queued.block.stream());
            work.blocks.push(queued);
        }
    }
    if intake.blocks.is_empty() {
        // All that came before a sync, or before the end, is part of this work.
        work.syncs = mem::take(&mut intake.syncs);
        work.closers = mem::take(&mut intake.closers);
    }
    work
}

/// Closes the log when the thread ends, for whatever reason, so that every caller that waits gets a result.
#[derive(Debug)]
struct ClosedAtEnd(Arc<Shared>);

impl Drop for ClosedAtEnd {
    fn drop(&mut self) {
        let mut intake = self.0.intake();
        intake.is_closed = true;
        intake.ended.get_or_insert_with(|| Err(LogError::closed()));
        // Their senders report that they were dropped.
        let rest = (mem::take(&mut intake.blocks), mem::take(&mut intake.syncs), mem::take(&mut intake.closers));
        drop(intake);
        drop(rest);
        self.0.space.notify();
        self.0.readable.notify();
    }
}

/// Starts the thread.
pub(crate) fn spawn(engine: Engine, shared: &Arc<Shared>) -> Result<std::thread::JoinHandle<()>, LogError> {
    let Options { folder, .. } = &shared.options;
    let builder = std::thread::Builder::new().name("batchsql-log".to_owned());
    let theirs = Arc::clone(shared);
    builder
        .spawn(move || run(engine, theirs))
        .map_err(|error| LogError::io("start the writer thread of", folder, error))
}
