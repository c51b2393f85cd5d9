//! Tests of the schedule without tasks that write: random events, and the invariants after each of them.
//!
//! A lane is listed at most once, and whatever may start is started without waiting for a timer.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::budget::capacity::Budget;
use crate::config::PipelineConfig;
use crate::config_table::TableConfig;
use crate::dispatch::parked::Parked;
use crate::error::{ErrorClass, SinkError};
use crate::guarded_reporter::GuardedReporter;
use crate::intake::groups::Groups;
use crate::intake::headroom::Headroom;
use crate::intake::lane::{Pull, PullLimit};
use crate::intake::message::Message;
use crate::intake::table::Intake;
use crate::model::conflict::Conflict;
use crate::model::schema::Schema;
use crate::model::value::ColumnType;
use crate::outcome::consumers::Consumers;
use crate::outcome::ledger::Ledger;
use crate::outcome::tracking::Tracking;
use crate::pipeline_events::FlushReason;
use crate::write::context::PipelineContext;
use crate::write::sink::Limits;

const SECOND: Duration = Duration::from_secs(1);
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
const PARK_FOR: Duration = Duration::from_secs(60);
const TABLES: usize = 3;

/// Tables with lanes, and a schedule that is driven by hand.
struct Bench {
    intake: Arc<Intake>,
    groups: Groups,
    messages: tokio::sync::mpsc::UnboundedSender<Message>,
    received: tokio::sync::mpsc::UnboundedReceiver<Message>,
    schedule: Schedule,
    concurrency: usize,
    config: PipelineConfig,
    now: Instant,
    running: Vec<(Id, Box<Job>)>,
    next_row: i64,
}

/// The next event. Numbers select among the lanes, batches and groups that exist.
#[derive(Debug, Clone)]
enum Event {
    Submit {
        table: usize,
        wide: bool,
    },
    Seal(usize),
    Done {
        which: usize,
        has_written: bool,
    },
    Rest {
        which: usize,
        seconds: u64,
    },
    Park {
        which: usize,
    },
    Fence {
        which: usize,
    },
    Unfence,
    /// Milliseconds.
    Time(u64),
    TakeOldest,
    /// From the lane itself: the oldest, or all of one group.
    TakeSealed {
        which: usize,
        all: bool,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..TABLES, any::<bool>()).prop_map(|(table, wide)| Event::Submit { table, wide }),
        2 => (0..TABLES).prop_map(Event::Seal),
        6 => (0usize..9, any::<bool>()).prop_map(|(which, has_written)| Event::Done { which, has_written }),
        2 => (0usize..9, 1u64..20).prop_map(|(which, seconds)| Event::Rest { which, seconds }),
        2 => (0usize..9).prop_map(|which| Event::Park { which }),
        1 => (0usize..9).prop_map(|which| Event::Fence { which }),
        1 => Just(Event::Unfence),
        2 => (1u64..40_000).prop_map(Event::Time),
        2 => (1u64..300).prop_map(Event::Time),
        1 => Just(Event::TakeOldest),
        2 => (0usize..9, any::<bool>()).prop_map(|(which, all)| Event::TakeSealed { which, all }),
    ]
}

impl Bench {
    fn new(concurrency: usize) -> Self {
        let config = PipelineConfig::default()
            .flush_size(2)
            .max_batch_rows(4)
            .buffer_size(10_000)
            .flush_interval(FLUSH_INTERVAL)
            .statement_timeout(SECOND)
            .table("t1", TableConfig::default().weight(4));
        let ledger = Ledger::new(Budget::new(10_000, 1 << 20), Consumers::start(Vec::new()).unwrap());
        let pipeline = PipelineContext::new(ledger, GuardedReporter::new(Vec::new()));
        let intake = Intake {
            pipeline: Arc::new(pipeline),
            closed: AtomicBool::new(false),
            flush_bytes: 1 << 20,
            headroom: Headroom::new(0),
        };
        let (messages, received) = tokio::sync::mpsc::unbounded_channel();
        Self {
            intake: Arc::new(intake),
            groups: Groups::new(),
            messages,
            received,
            schedule: Schedule::new(concurrency, PARK_FOR),
            concurrency,
            config,
            now: Instant::now(),
            running: Vec::new(),
            next_row: 0,
        }
    }

    /// The first table has no key, the others do.
    fn schema(table: usize) -> Schema {
        let conflict = if table == 0 { Conflict::none() } else { Conflict::update(["id"]) };
        let schema = Schema::builder(format!("t{table}")).column("id", ColumnType::I64);
        schema.nullable("note", ColumnType::Text).on_conflict(conflict).build().unwrap()
    }

    fn submit(&mut self, table: usize, wide: bool) {
        self.next_row += 1;
        let row = Self::schema(table).row().set("id", self.next_row * 300 % 4_000).unwrap();
        let row = if wide { row.set("note", "n").unwrap() } else { row }.finish().unwrap();
        let schema = crate::row::traits::Row::schema(&row).clone();
        let settings = self.config.of_table(schema.table_display(), 10_000, self.concurrency);
        let make = |number| Table::new(number, &schema, settings, self.concurrency, &self.intake);
        let known = self.groups.get_or_insert(&schema, Limits::default(), settings.is_in_order(), make).known;
        let bytes = schema.fixed_row_len() + crate::row::traits::Row::variable_len(&row);
        let budget = &self.intake.pipeline.ledger.budget;
        let mut reservation = budget.try_reserve(known.table.number(), &known.table.share, 1, bytes).unwrap();
        let pushed =
            known.table.push(&known.group, &self.messages, &row, bytes, &Tracking::Untracked, &mut reservation);
        assert!(pushed.is_ok());
        drop(reservation);
        while let Ok(Message::Lane(lane)) = self.received.try_recv() {
            let table = self.groups.table(lane.table).unwrap();
            self.schedule.note(&table, lane, table.status(lane));
        }
    }

    /// Starts whatever may start, as the dispatcher does with connections for all permits.
    fn start(&mut self) {
        while self.schedule.running() < self.concurrency {
            match self.schedule.next(self.now) {
                None => break,
                Some(Next::Held(job)) => {
                    let table = self.groups.table(job.lane.table).unwrap();
                    self.started(&table, job);
                }
                Some(Next::Pull(table, lane)) => {
                    let (pull, status) = {
                        let schedule = &self.schedule;
                        let limit = PullLimit { rows: 4, bytes: 1 << 20 };
                        table.pull(lane, limit, &|group| schedule.may_write(group))
                    };
                    match pull {
                        Pull::Batch(pulled) => {
                            let mut job = pulled.job;
                            job.absorb(pulled.others);
                            self.started(&table, job);
                            self.schedule.note(&table, lane, status);
                        }
                        Pull::Blocked => {
                            self.schedule.note(&table, lane, status);
                            self.schedule.block(lane);
                        }
                        Pull::Empty => self.schedule.note(&table, lane, status),
                    }
                }
            }
        }
    }

    fn started(&mut self, table: &Arc<Table>, mut job: Box<Job>) {
        let start = self.schedule.start(table, &mut job, (0, 0), self.now);
        let task = tokio::spawn(async {});
        self.schedule.started(task.id(), start);
        self.running.push((task.id(), job));
        // The id of a task is unique while its handle exists.
        std::mem::forget(task);
    }

    fn finish(&mut self, which: usize) -> Option<(Start, Box<Job>)> {
        if self.running.is_empty() {
            return None;
        }
        let (id, job) = self.running.swap_remove(which % self.running.len());
        Some((self.schedule.finished(id).unwrap(), job))
    }

    fn apply(&mut self, event: Event, fenced: &mut Vec<LaneId>) {
        match event {
            Event::Submit { table, wide } => self.submit(table, wide),
            Event::Seal(table) => {
                for table in self.groups.tables().into_iter().filter(|t| t.number() == table) {
                    for lane in table.lanes() {
                        let status = table.seal(lane, None, FlushReason::Explicit);
                        self.schedule.note(&table, lane, status);
                    }
                }
            }
            Event::Done { which, has_written } => {
                if let Some((start, job)) = self.finish(which) {
                    drop(job);
                    self.schedule.done(&start, has_written, self.now);
                    self.schedule.resume_unused();
                }
            }
            Event::Rest { which, seconds } => {
                if let Some((start, job)) = self.finish(which) {
                    self.schedule.back_off(&start, job, self.now + SECOND * u32::try_from(seconds).unwrap(), self.now);
                }
            }
            Event::Park { which } => {
                if let Some((start, job)) = self.finish(which) {
                    let error = SinkError::new(ErrorClass::Schema, "no such column");
                    let parked = Parked { error, is_of_rows: false, has_written: false };
                    self.schedule.park(&start, job, parked, self.now);
                }
            }
            Event::Fence { which } => {
                if let Some((start, job)) = self.finish(which) {
                    if start.table.is_serial() {
                        self.schedule.fence(start.lane, self.now);
                        fenced.push(start.lane);
                    }
                    drop(job);
                    self.schedule.done(&start, false, self.now);
                    self.schedule.resume_unused();
                }
            }
            Event::Unfence => fenced.drain(..).for_each(|lane| self.schedule.unfence(lane)),
            Event::Time(millis) => {
                self.now += Duration::from_millis(millis);
                while let Some((table, lane)) = self.schedule.due(self.now) {
                    // Rows are opened at the real time, which is far behind.
                    let status = table.seal(lane, None, FlushReason::Interval);
                    self.schedule.note(&table, lane, status);
                }
                self.schedule.wake(self.now);
            }
            Event::TakeSealed { which, all } => {
                let mut lanes = self.schedule.lanes_with_batches(None);
                lanes.sort_by_key(|(_, lane)| *lane);
                if let Some((table, lane)) = lanes.get(which % lanes.len().max(1)) {
                    let (taken, status) = if all {
                        let group = std::cell::Cell::new(None);
                        table.take_sealed(*lane, &|job| {
                            group.set(group.get().or(Some(job.group)));
                            group.get() == Some(job.group)
                        })
                    } else {
                        let (job, status) = table.take_oldest(*lane);
                        (job.into_iter().collect(), status)
                    };
                    drop(taken);
                    self.schedule.note_taken(table, *lane, status);
                    self.schedule.resume_unused();
                }
            }
            Event::TakeOldest => {
                if let Some(oldest) = self.schedule.oldest(None) {
                    assert!(self.schedule.take(oldest).is_some());
                    self.schedule.resume_unused();
                }
            }
        }
    }

    /// The invariants when everything that may start has been started.
    fn check(&self) {
        let schedule = &self.schedule;
        let listed: Vec<LaneId> =
            schedule.ready.lanes().chain(schedule.capped.clone()).chain(schedule.blocked.clone()).collect();
        let known: HashSet<LaneId> = listed.iter().copied().collect();
        assert_eq!(listed.len(), known.len(), "a lane is listed twice: {listed:?}");
        for (lane, state) in &schedule.lanes {
            assert_eq!(state.is_listed, known.contains(lane), "{lane:?}: is_listed is wrong");
            assert!(!state.may_start() || state.is_listed, "{lane:?} may start and is not listed");
            assert!(!state.table.is_serial() || state.busy <= 1, "{lane:?} has {} batches in flight", state.busy);
            let status = state.table.status(*lane);
            assert_eq!(state.ready, status.ready, "{lane:?}: ready is wrong");
            assert_eq!(state.deadline.is_some(), status.opened_at.is_some(), "{lane:?} has the deadline of its rows");
        }
        if schedule.running() < self.concurrency {
            assert!(
                schedule.ready.lanes().next().is_none(),
                "a permit is free and lanes may start: {:?}",
                schedule.ready
            );
        }
        for lane in &schedule.blocked {
            let state = &schedule.lanes[lane];
            let front = state.held.front().map(|job| job.group);
            let may = front.is_some_and(|group| schedule.may_write(group));
            assert!(!may, "{lane:?} is blocked although its front may be written");
            let limit = PullLimit { rows: 1, bytes: 1 };
            let is_free = front.is_none() || !state.table.is_serial();
            let (pull, _) = state.table.pull(*lane, limit, &|group| is_free && schedule.may_write(group));
            assert!(!matches!(pull, Pull::Batch(_)), "{lane:?} is blocked although what it has may be written");
        }
        for lane in &schedule.capped {
            assert_eq!(schedule.permits_left(lane.table, self.now), 0, "{lane:?} is capped");
        }
        let waits = schedule.lanes.values().any(|state| state.may_start());
        let is_full = schedule.running() == self.concurrency;
        let will_be_woken = schedule.next_time(true, self.now).is_some() || !self.running.is_empty();
        assert!(!waits || is_full || will_be_woken, "work waits and nothing wakes it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_may_start_is_started_without_a_timer(
        concurrency in 1usize..5,
        events in proptest::collection::vec(event(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new(concurrency);
            let mut fenced = Vec::new();
            for event in events {
                bench.apply(event, &mut fenced);
                bench.start();
                bench.check();
            }
            // Whatever happened: once all batches end well and time passes, nothing is left.
            bench.apply(Event::Unfence, &mut fenced);
            for round in 0..1000 {
                bench.start();
                bench.check();
                if bench.running.is_empty() && bench.intake.pipeline.outstanding.is_empty() && round > 0 {
                    break;
                }
                if bench.running.is_empty() {
                    bench.apply(Event::Time(100_000), &mut fenced);
                }
                bench.apply(Event::Done { which: 0, has_written: true }, &mut fenced);
                for table in 0..TABLES {
                    bench.apply(Event::Seal(table), &mut fenced);
                }
            }
            assert!(bench.running.is_empty() && bench.intake.pipeline.outstanding.is_empty(), "rows are left");
            assert!(bench.schedule.parks.is_empty(), "a group without rows is still parked");
        });
    }
}
