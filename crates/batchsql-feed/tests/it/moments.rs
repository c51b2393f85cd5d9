//! A process that ends at a chosen moment between the writing of rows, the commit with their position, the reply, settling, and the
//! dead letter; and what the next process makes of it. The table has no key, so a row that is written twice is there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use batchsql_core::{ColumnType, DynRow, Schema};
use batchsql_feed::FeedOptions;
use batchsql_testkit::Step;

use crate::source::{Fed, Memory, written};

/// When the first process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Rows and position are in a transaction that is not committed.
    BeforeCommit,
    /// They are committed, and the process does not hear of it.
    BeforeReply,
    /// The process has heard of it, and the source has not.
    BeforeSettle,
    /// A row is refused, and its letter is not on disk.
    BeforeLetter,
    /// The letter is on disk, and the row is not passed.
    AfterLetter,
}

impl Moment {
    const ALL: [Self; 5] =
        [Self::BeforeCommit, Self::BeforeReply, Self::BeforeSettle, Self::BeforeLetter, Self::AfterLetter];

    fn has_letter(self) -> bool {
        matches!(self, Self::BeforeLetter | Self::AfterLetter)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guarantee {
    AtLeastOnce,
    ExactlyOnce,
}

const ROWS: i64 = 4;
const BAD: i64 = 1;

impl Guarantee {
    fn options(self, options: FeedOptions) -> FeedOptions {
        if self == Self::ExactlyOnce { options.exactly_once("test") } else { options }
    }
}

fn rows() -> Vec<DynRow> {
    let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
    (0..ROWS).map(|id| schema.row().set("id", id).unwrap().finish().unwrap()).collect()
}

/// What is done in a process. When this returns, all tasks of it are gone, wherever they were.
fn process<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let result = runtime.block_on(run);
    runtime.shutdown_background();
    result
}

fn start(guarantee: Guarantee, moment: Moment) -> (Fed, Memory) {
    let (fed, source) = (Fed::new(|options| guarantee.options(options)), Memory::default());
    if moment.has_letter() {
        let bad = rows().remove(BAD as usize);
        fed.sink.poison(move |row| *row == bad);
    }
    source.block_of(1, &rows());
    (fed, source)
}

/// How often the database is asked to write, if the process does not end.
fn writes(guarantee: Guarantee, moment: Moment) -> usize {
    process(async {
        let (fed, source) = start(guarantee, moment);
        let state = fed.start(0, 0, &source);
        fed.until("all is settled", || state.settled() == ROWS as u64).await;
        fed.sink.writes()
    })
}

/// The first process, which ends at the moment.
fn first(guarantee: Guarantee, moment: Moment) -> (Fed, Memory) {
    let writes = writes(guarantee, moment);
    process(async {
        let (fed, source) = start(guarantee, moment);
        let is_exact = guarantee == Guarantee::ExactlyOnce;
        match moment {
            Moment::BeforeCommit => fed.sink.script([Step::Hang]),
            Moment::BeforeReply => fed.sink.script([Step::HangAfter]),
            Moment::BeforeSettle => source.state().is_stuck = true,
            // Exactly once, the last step passes the row.
            Moment::AfterLetter if is_exact => {
                fed.sink.script(vec![Step::Apply; writes - 1]);
                fed.sink.script([Step::Hang]);
            }
            Moment::AfterLetter => source.state().is_stuck = true,
            Moment::BeforeLetter => std::fs::remove_dir_all(fed.folder()).unwrap(),
        }
        fed.start(0, 0, &source);
        match moment {
            Moment::BeforeCommit => fed.until("it is sent", || fed.sink.writes() == 1).await,
            Moment::BeforeReply => fed.until("it is committed", || written(&fed.sink).len() == ROWS as usize).await,
            Moment::AfterLetter if is_exact => {
                fed.until("the row is to be passed", || fed.sink.writes() == writes).await;
            }
            Moment::BeforeSettle | Moment::AfterLetter => {
                fed.until("it is to be settled", || source.state().stuck > 0).await;
            }
            Moment::BeforeLetter => {
                let before = if is_exact { writes - 1 } else { writes };
                fed.until("the row is refused", || fed.sink.writes() == before).await;
                // It tries again and again to keep the letter.
                tokio::time::sleep(Duration::from_secs(60)).await;
                assert_eq!(fed.sink.writes(), before, "{guarantee:?}");
                std::fs::create_dir(fed.folder()).unwrap();
            }
        }
        if moment == Moment::AfterLetter {
            assert_eq!(fed.letters().lines().count(), 1, "{guarantee:?}");
        }
        (fed, source)
    })
}

/// How often each row is in the table, and how many letters there are, when the next process has written all.
fn found(guarantee: Guarantee, moment: Moment) -> (BTreeMap<i64, usize>, usize) {
    let (fed, source) = first(guarantee, moment);
    // Exactly once, the row before the bad one has a step of its own.
    let settled = source.state().settled.last().map_or(0, |rows| *rows.end());
    let is_before_bad = guarantee == Guarantee::ExactlyOnce && moment.has_letter();
    assert_eq!(settled, if is_before_bad { BAD as u64 } else { 0 }, "{guarantee:?} {moment:?}");
    let again = process(async {
        let (again, source) = (fed.again(|options| guarantee.options(options)), Memory::default());
        source.block_of(1, &rows());
        let state = again.start(0, 0, &source);
        again.until("all is settled", || state.settled() == ROWS as u64).await;
        let settled = source.state().settled.clone();
        assert_eq!(settled.last().map(|rows| *rows.end()), Some(ROWS as u64), "{guarantee:?} {moment:?}");
        again
    });
    if guarantee == Guarantee::ExactlyOnce {
        assert_eq!(again.sink.position("t", 0), Some(ROWS), "{moment:?}");
    }
    let mut counts = BTreeMap::new();
    written(&again.sink).into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
    let letters = again.letters();
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    let ids: BTreeSet<String> = letters.lines().map(id).collect();
    assert_eq!(ids.len(), usize::from(moment.has_letter()), "letters of a row have one id: {letters}");
    (counts, letters.lines().count())
}

/// Each row is in the table so many times, and the bad one is in the letters.
fn expected(guarantee: Guarantee, moment: Moment) -> (BTreeMap<i64, usize>, usize) {
    // At least once, what was written and not settled is written again.
    let times = match (guarantee, moment) {
        (Guarantee::ExactlyOnce, _) | (_, Moment::BeforeCommit) => 1,
        (Guarantee::AtLeastOnce, _) => 2,
    };
    let good = (0..ROWS).filter(|id| !(moment.has_letter() && *id == BAD));
    let letters = match moment {
        Moment::AfterLetter => 2,
        _ => usize::from(moment.has_letter()),
    };
    (good.map(|id| (id, times)).collect(), letters)
}

#[test]
fn a_process_that_ends_at_any_moment_doubles_nothing_exactly_once() {
    for moment in Moment::ALL {
        let guarantee = Guarantee::ExactlyOnce;
        assert_eq!(found(guarantee, moment), expected(guarantee, moment), "{moment:?}");
    }
}

#[test]
fn a_process_that_ends_at_any_moment_loses_nothing_at_least_once() {
    for moment in Moment::ALL {
        let guarantee = Guarantee::AtLeastOnce;
        assert_eq!(found(guarantee, moment), expected(guarantee, moment), "{moment:?}");
    }
}
