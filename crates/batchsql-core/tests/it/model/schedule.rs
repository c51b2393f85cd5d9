//! Random schedules: what happens to a pipeline, its settings, and how its sink behaves.

use std::time::Duration;

use batchsql_core::{
    BeyondBudget, Coalesce, Delivery, ErrorClass, Isolation, Ordering, PipelineConfig, TableConfig, WhenFull,
};
use batchsql_testkit::Step;
use proptest::prelude::*;

use super::tables::{TABLES, name};

#[derive(Debug, Clone)]
pub(super) enum Action {
    /// Submits rows one after the other; every row has a serial number of its own.
    Submit { rows: usize, table: usize },
    /// Submits to all tables in turn.
    SubmitAround { rows: usize },
    /// Submits rows in one call.
    SubmitAll { rows: usize, tables: usize },
    /// Submits plain rows without waiting.
    TrySubmit { rows: usize },
    /// Gives a submit up after some milliseconds.
    Cancelled { millis: u64, table: usize },
    /// Lets time pass.
    Wait(u64),
    /// Flushes without waiting for it.
    Flush,
    /// Flushes, and cancels the call before its end.
    CancelledFlush,
    /// What the sink does with its next writes.
    Script(Vec<Step>),
    /// What the sink does with its next connections and checks of tables.
    ScriptBefore(Vec<Step>),
    /// Breaks a table for a while.
    Break { table: usize, permission: bool, millis: u64 },
    /// Several tasks submit at once, each with a key of its own.
    Together { tasks: usize, rows: usize },
    /// Lets late writes reach the database.
    Deliver,
    /// Makes a table slow for good.
    Slow { table: usize, millis: u64 },
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Apply),
        2 => (1u64..300).prop_map(|ms| Step::Delay(Duration::from_millis(ms))),
        1 => Just(Step::Delay(Duration::from_secs(4))),
        3 => Just(Step::Fail(ErrorClass::Transient)),
        1 => Just(Step::Fail(ErrorClass::Resource)),
        1 => Just(Step::Fail(ErrorClass::Row)),
        1 => Just(Step::Fail(ErrorClass::Size)),
        1 => Just(Step::Fail(ErrorClass::Duplicate)),
        1 => Just(Step::Fail(ErrorClass::Schema)),
        1 => Just(Step::Fail(ErrorClass::Internal)),
        1 => Just(Step::Fail(ErrorClass::Unknown)),
        2 => Just(Step::LoseReply),
        1 => (0usize..12).prop_map(Step::RejectRow),
        1 => (0usize..12).prop_map(|row| Step::LeaveRow(row, ErrorClass::Transient)),
        1 => (0usize..12).prop_map(|row| Step::LeaveRow(row, ErrorClass::Unknown)),
        1 => (0usize..12).prop_map(Step::LoseRow),
        2 => Just(Step::Late),
        1 => Just(Step::LateAndSilent),
        1 => Just(Step::Panic),
        1 => Just(Step::Hang),
        1 => Just(Step::HangInQueue),
    ]
}

pub(super) fn step_before() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Apply),
        1 => (1u64..300).prop_map(|ms| Step::Delay(Duration::from_millis(ms))),
        2 => Just(Step::Fail(ErrorClass::Transient)),
        1 => Just(Step::Fail(ErrorClass::Schema)),
        1 => Just(Step::Panic),
        1 => Just(Step::Hang),
    ]
}

pub(super) fn action() -> impl Strategy<Value = Action> {
    let table = 0..TABLES;
    prop_oneof![
        5 => (1usize..40, table.clone()).prop_map(|(rows, table)| Action::Submit { rows, table }),
        2 => (1usize..40).prop_map(|rows| Action::SubmitAround { rows }),
        1 => (1usize..90, 1usize..3).prop_map(|(rows, tables)| Action::SubmitAll { rows, tables }),
        2 => (1usize..40).prop_map(|rows| Action::TrySubmit { rows }),
        1 => (0u64..3, table.clone()).prop_map(|(millis, table)| Action::Cancelled { millis, table }),
        2 => (0u64..500).prop_map(Action::Wait),
        1 => Just(Action::Flush),
        1 => Just(Action::CancelledFlush),
        3 => proptest::collection::vec(step(), 1..6).prop_map(Action::Script),
        1 => proptest::collection::vec(step_before(), 1..4).prop_map(Action::ScriptBefore),
        1 => (table.clone(), any::<bool>(), 1u64..8000)
            .prop_map(|(table, permission, millis)| Action::Break { table, permission, millis }),
        2 => (1usize..5, 1usize..20).prop_map(|(tasks, rows)| Action::Together { tasks, rows }),
        1 => Just(Action::Deliver),
        1 => (table, 50u64..400).prop_map(|(table, millis)| Action::Slow { table, millis }),
    ]
}

pub(super) fn config() -> impl Strategy<Value = PipelineConfig> {
    let sizes = (1usize..12, 0usize..60, 1usize..5, 0u64..200, any::<bool>());
    let policies = (
        prop_oneof![
            6 => Just(WhenFull::Wait),
            1 => Just(WhenFull::WaitAtMost(Duration::from_millis(200))),
            1 => Just(WhenFull::Reject),
            2 => Just(WhenFull::DropOldest),
        ],
        prop_oneof![3 => Just(Coalesce::LastPerKey), 1 => Just(Coalesce::Off)],
        prop_oneof![
            4 => prop_oneof![1usize..4, 1usize..40].prop_map(|most| bisect((most, BeyondBudget::Reject))),
            1 => (1usize..10).prop_map(|max_statements| (max_statements, BeyondBudget::Park)).prop_map(bisect),
            1 => Just(Isolation::AtomicBatch),
        ],
        prop_oneof![
            4 => Just(Ordering::Auto),
            1 => Just(Ordering::PerKey),
            1 => Just(Ordering::PerTable),
            1 => Just(Ordering::None),
        ],
        prop_oneof![1 => Just(0u64), 3 => 1u64..5000],
        prop_oneof![
            3 => Just(Delivery::AtMostOnce),
            1 => Just(Delivery::AtLeastOnce),
            1 => Just(Delivery::NeverRepeat),
        ],
    );
    let tables = proptest::collection::vec(proptest::option::weighted(0.3, table_config()), TABLES);
    // Without an age limit, rows that are retried for long would take long to end.
    let ages = prop_oneof![
        3 => Just((None, 2u64)),
        1 => (250u64..4000).prop_map(|max_age| (Some(max_age), 2)),
        1 => (250u64..4000).prop_map(|max_age| (Some(max_age), 3000)),
    ];
    (sizes, policies, tables, ages).prop_map(|(sizes, policies, tables, (max_age, retry_for))| {
        let (flush_size, more, max_concurrency, interval, tight) = sizes;
        let (when_full, coalesce, isolation, ordering, park_for, delivery) = policies;
        let mut config = PipelineConfig::default()
            .flush_size(flush_size)
            .buffer_size(flush_size + more)
            // Sometimes bytes are the limit.
            .buffer_bytes(if tight { 800 } else { 1 << 20 })
            .flush_bytes(if tight { 200 } else { 1 << 20 })
            .max_concurrency(max_concurrency)
            .flush_interval(Duration::from_millis(interval))
            .when_full(when_full)
            .coalesce(coalesce)
            .isolation(isolation)
            .ordering(ordering)
            .park_for(Duration::from_millis(park_for))
            .delivery(delivery)
            .retry_for(Duration::from_secs(retry_for))
            .statement_timeout(Duration::from_secs(3));
        config.max_age = max_age.map(Duration::from_millis);
        for (number, mut table) in tables.into_iter().enumerate().filter_map(|(number, table)| Some((number, table?))) {
            table.flush_size = table.flush_size.map(|rows| rows.min(config.buffer_size));
            config.tables.insert(name(number).to_owned(), table);
        }
        config
    })
}

/// Settings of one table.
fn table_config() -> impl Strategy<Value = TableConfig> {
    let ordering = prop_oneof![
        1 => Just(Ordering::Auto),
        1 => Just(Ordering::PerKey),
        1 => Just(Ordering::PerTable),
        1 => Just(Ordering::None),
    ];
    let of = proptest::option::of::<std::ops::Range<u64>>;
    let settings = (of(1..20), of(0..240), proptest::option::of(ordering), of(1..6), of(250..3000), of(1..9));
    settings.prop_map(|(flush_size, flush_interval, ordering, retry_for, max_age, weight)| {
        let mut table = TableConfig::default();
        table.flush_size = flush_size.map(|rows| rows as usize);
        table.flush_interval = flush_interval.map(Duration::from_millis);
        table.ordering = ordering;
        table.retry_for = retry_for.map(Duration::from_secs);
        table.max_age = max_age.map(Duration::from_millis);
        table.weight = weight.map(|weight| weight as u32);
        table
    })
}

pub(super) fn bisect((max_statements, beyond): (usize, BeyondBudget)) -> Isolation {
    Isolation::Bisect { max_statements, beyond }
}

pub(super) fn nature() -> impl Strategy<Value = Nature> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let loses = proptest::option::weighted(0.2, 1usize..6);
    let class = prop_oneof![
        3 => Just(ErrorClass::Row),
        1 => Just(ErrorClass::Schema),
        1 => Just(ErrorClass::Internal),
        1 => Just(ErrorClass::Transient),
    ];
    ((3i64..60, class), flags, loses, proptest::option::weighted(0.3, 0u64..20)).prop_map(
        |(
            (poison, class),
            (tells_rows, sorts_by_key, refuses_equal, resubmits, races),
            loses_replies,
            takes_letters,
        )| Nature {
            poison,
            class,
            resubmits,
            races,
            tells_rows,
            sorts_by_key,
            refuses_equal,
            loses_replies,
            takes_letters,
        },
    )
}

/// How the sink of a schedule behaves in general.
#[derive(Debug, Clone)]
pub(super) struct Nature {
    pub(super) poison: i64,
    /// What the error of such a row says.
    pub(super) class: ErrorClass,
    pub(super) tells_rows: bool,
    pub(super) sorts_by_key: bool,
    /// Two rows of a key in one statement are an error, as on PostgreSQL.
    pub(super) refuses_equal: bool,
    /// At first, each of so many writes loses the reply of a row, as on Redis: also while bad rows are searched.
    pub(super) loses_replies: Option<usize>,
    /// Failed rows are taken from a channel, each after so many milliseconds.
    pub(super) takes_letters: Option<u64>,
    /// Some of them are corrected and submitted again.
    pub(super) resubmits: bool,
    /// A task keeps submitting while the pipeline closes.
    pub(super) races: bool,
}
