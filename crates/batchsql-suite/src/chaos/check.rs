//! Owns the comparison of ledgers with tables. It is independent of the library: it uses the rows that were read with plain
//! clients, and what a writer noted on disk.
//! Must not know databases, or how a ledger is written.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use batchsql::OutcomeKind;
use serde::Serialize;

use super::ledger::{Fate, Ledger};
use super::load::{RowId, Table};

/// Violations of one kind that are reported in full.
const REPORTED: usize = 5;

/// A row as it is in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FoundRow {
    /// The key; 0 in the table without one.
    pub(super) key: i64,
    /// Which row it is.
    pub(super) row: RowId,
}

/// What the tables of a run have.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// The rows of each table, in each of its incarnations: a table that was taken away is followed by an empty one.
    pub(super) tables: HashMap<Table, Vec<Vec<FoundRow>>>,
    /// Each version of the keyed table in the order in which they were written, where a trigger records it.
    pub(super) history: Option<Vec<FoundRow>>,
}

/// What a run promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promises {
    /// Rows were accepted by the durable intake.
    pub(super) is_durable: bool,
    /// It writes each of them once.
    pub(super) exactly_once: bool,
    /// Rows without a key may be written again.
    pub(super) at_least_once: bool,
    /// The tables refuse bad rows.
    pub(super) refuses_bad_rows: bool,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Wrong {
    /// A row that must be in its table is not.
    Lost,
    /// A row is in its table more often than it may be.
    Doubled,
    /// A row is in its table and must not be.
    Present,
    /// A version of a key came after a newer one.
    Order,
    /// Outcomes do not add up.
    Balance,
    /// The metrics differ from the ledger.
    Metrics,
    /// A row that failed has not one dead letter, or one that did not fail has one.
    Letters,
    /// The writer, or a partition, did not continue after the fault.
    Stuck,
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Violation {
    /// What is wrong.
    pub(super) wrong: Wrong,
    /// Which row or number, without values of rows.
    pub(super) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.wrong, self.detail)
    }
}

/// The result of a comparison.
#[derive(Debug, Clone, Default)]
pub(super) struct Checked {
    /// Rows that were accepted.
    pub(super) rows: u64,
    /// Outcomes of accepted rows; `none` for rows whose writer was killed before it knew, `acknowledged` for those of a
    /// durable intake.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Rows that are in the table without a key more than once, where that is allowed.
    pub(super) doubled: u64,
    /// The violations: the first of each kind, and how many more there are.
    pub(super) violations: Vec<Violation>,
    /// The number of all violations.
    pub(super) count: u64,
    /// The number of violations of each kind.
    pub(super) counts: BTreeMap<Wrong, u64>,
}

impl Checked {
    /// The number of violations of one kind.
    pub(super) fn of(&self, wrong: Wrong) -> u64 {
        self.counts.get(&wrong).copied().unwrap_or(0)
    }
}

/// Collects violations.
#[derive(Debug, Default)]
struct Complaints {
    reported: BTreeMap<Wrong, (u64, Vec<String>)>,
}

impl Complaints {
    fn add(&mut self, wrong: Wrong, detail: impl FnOnce() -> String) {
        let (count, details) = self.reported.entry(wrong).or_default();
        *count += 1;
        if details.len() < REPORTED {
            details.push(detail());
        }
    }

    fn finish(self) -> (u64, Vec<Violation>) {
        let count = self.reported.values().map(|(count, _)| count).sum();
        let each = self.reported.into_iter().flat_map(|(wrong, (count, mut details))| {
            let more = count - details.len() as u64;
            if more > 0 {
                details.push(format!("and {more} more"));
            }
            details.into_iter().map(move |detail| Violation { wrong, detail })
        });
        (count, each.collect())
    }
}

/// Where a row must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the table.
    Inside,
    /// Not in the table.
    Outside,
    /// Either.
    Either,
}

/// Compares what writers noted with what is in the tables.
pub(super) fn check(ledgers: &[Ledger], found: &Found, promises: Promises) -> Checked {
    let mut complaints = Complaints::default();
    let mut checked = Checked::default();
    let mut fates: HashMap<(Table, RowId), &Fate> = HashMap::new();
    for ledger in ledgers {
        fates.extend(ledger.rows.iter().map(|(row, fate)| (*row, fate)));
        one_ledger(ledger, ledgers.len() == 1, promises, &mut complaints);
    }
    if let Some(last) = ledgers.last().filter(|_| promises.is_durable) {
        durable_letters(last, &fates, promises, &mut complaints);
    }
    for fate in fates.values().filter(|fate| fate.accepted) {
        checked.rows += 1;
        let end = fate.outcomes.first().map_or(if promises.is_durable { "acknowledged" } else { "none" }, |k| k.name());
        *checked.outcomes.entry(end.to_owned()).or_default() += 1;
    }
    for table in Table::ALL {
        let incarnations = found.tables.get(&table).map_or(&[][..], Vec::as_slice);
        known_rows(table, incarnations, &fates, promises, &mut complaints);
        match table {
            Table::Plain => checked.doubled = plain(incarnations, &fates, promises, &mut complaints),
            Table::Keyed => keyed(incarnations, &fates, promises, &mut complaints),
            Table::Once => once(incarnations, &fates, promises, &mut complaints),
        }
    }
    if let Some(history) = &found.history {
        versions(history, &fates, promises, &mut complaints);
    }
    checked.counts = complaints.reported.iter().map(|(wrong, (count, _))| (*wrong, *count)).collect();
    (checked.count, checked.violations) = complaints.finish();
    checked
}

/// One outcome for each row; at the end of the writer the sums, and the metrics.
fn one_ledger(ledger: &Ledger, is_alone: bool, promises: Promises, complaints: &mut Complaints) {
    let mut ended: HashMap<&str, u64> = HashMap::new();
    let mut accepted = 0;
    for ((table, row), fate) in &ledger.rows {
        accepted += u64::from(fate.accepted);
        fate.outcomes.iter().for_each(|kind| *ended.entry(kind.name()).or_default() += 1);
        if fate.outcomes.len() > 1 || (fate.refused && !fate.outcomes.is_empty()) {
            complaints.add(Wrong::Balance, || format!("{} has the outcomes {:?}", name(*table, *row), fate.outcomes));
        }
        if ledger.is_complete && !promises.is_durable && fate.accepted && fate.outcomes.is_empty() {
            complaints.add(Wrong::Balance, || format!("{} was accepted and has no outcome", name(*table, *row)));
        }
    }
    if !ledger.is_complete {
        return;
    }
    if let Some(left @ 1..) = ledger.left {
        complaints.add(Wrong::Stuck, || format!("{left} rows are left in the log"));
    }
    if promises.is_durable {
        return durable_numbers(ledger, is_alone, promises, complaints);
    }
    for ((table, row), fate) in &ledger.rows {
        let failed = fate.outcomes.iter().filter(|kind| FAILED.contains(kind)).count() as u64;
        let letters = ledger.letters.get(&(*table, *row)).copied().unwrap_or(0);
        if letters != failed {
            let name = name(*table, *row);
            complaints.add(Wrong::Letters, || format!("{name} ended as {:?} and has {letters} letters", fate.outcomes));
        }
    }
    let of_balance = says(&ledger.balance, "accepted");
    if of_balance != accepted {
        complaints.add(Wrong::Balance, || format!("{accepted} rows were accepted, the balance has {of_balance}"));
    }
    for kind in OutcomeKind::ALL.map(OutcomeKind::name) {
        let count = ended.get(kind).copied().unwrap_or(0);
        let (balance, metrics) = (says(&ledger.balance, kind), says(&ledger.metrics, kind));
        if balance != count {
            complaints.add(Wrong::Balance, || format!("{count} receipts say {kind}, the balance has {balance}"));
        }
        if metrics != count {
            complaints.add(Wrong::Metrics, || format!("{count} receipts say {kind}, the metrics have {metrics}"));
        }
    }
}

/// The outcomes that the pipeline of a durable intake counted are those of the metrics, and none of its rows is without one.
fn durable_numbers(ledger: &Ledger, is_alone: bool, promises: Promises, complaints: &mut Complaints) {
    let mut ended = 0;
    for kind in OutcomeKind::ALL.map(OutcomeKind::name) {
        let (balance, metrics) = (says(&ledger.balance, kind), says(&ledger.metrics, kind));
        if balance != metrics {
            complaints.add(Wrong::Metrics, || format!("the balance has {balance} {kind}, the metrics have {metrics}"));
        }
        ended += balance;
    }
    let accepted = says(&ledger.balance, "accepted");
    if ended != accepted {
        complaints.add(Wrong::Balance, || format!("the pipeline has accepted {accepted} rows, and {ended} have ended"));
    }
    // Rows of a writer before, or of one after, count there.
    if !is_alone || ledger.left != Some(0) {
        return;
    }
    let acknowledged = ledger.rows.values().filter(|fate| fate.accepted).count() as u64;
    let undetermined = ledger.rows.values().filter(|fate| !fate.accepted && !fate.refused).count() as u64;
    let most = if promises.exactly_once { acknowledged + undetermined } else { u64::MAX };
    if !(acknowledged..=most).contains(&ended) {
        let detail = || format!("{acknowledged} rows were acknowledged, {undetermined} may be, and {ended} have ended");
        complaints.add(Wrong::Balance, detail);
    }
}

fn says(numbers: &HashMap<String, u64>, name: &str) -> u64 {
    numbers.get(name).copied().unwrap_or(0)
}

/// The outcomes of which the row comes back.
const FAILED: [OutcomeKind; 4] =
    [OutcomeKind::Rejected, OutcomeKind::Expired, OutcomeKind::Purged, OutcomeKind::Unknown];

/// A durable row that the database refuses is in the file of dead letters, perhaps more than once, and no other row is.
fn durable_letters(
    last: &Ledger,
    fates: &HashMap<(Table, RowId), &Fate>,
    promises: Promises,
    complaints: &mut Complaints,
) {
    for ((table, row), fate) in fates {
        let is_refused = promises.refuses_bad_rows && row.is_bad();
        let has_letter = last.letters.contains_key(&(*table, *row));
        let may_end_otherwise = match table {
            Table::Plain => false,
            // A later row of its batch may have taken its place.
            Table::Keyed => true,
            // The driver of MySQL leaves out rows whose key is there, and does not send them: that of the row before, or that of the
            // row behind it, which a writer had written that was killed before it wrote the letter.
            Table::Once => row.repeats_key() || row.next().repeats_key(),
        };
        if is_refused && fate.accepted && !has_letter && !may_end_otherwise {
            complaints.add(Wrong::Lost, || format!("{} was refused, and has no letter", name(*table, *row)));
        }
        if !is_refused && has_letter {
            complaints.add(Wrong::Letters, || format!("{} has a letter and breaks no constraint", name(*table, *row)));
        }
    }
}

fn name(table: Table, row: RowId) -> String {
    format!("row {} of producer {} in the {} table", row.sequence, row.producer, table.name())
}

/// Every row that is there was submitted, and has the key that it must have.
fn known_rows(
    table: Table,
    incarnations: &[Vec<FoundRow>],
    fates: &HashMap<(Table, RowId), &Fate>,
    promises: Promises,
    complaints: &mut Complaints,
) {
    for FoundRow { key, row } in incarnations.iter().flatten() {
        if !fates.contains_key(&(table, *row)) {
            complaints.add(Wrong::Present, || format!("{} was never submitted", name(table, *row)));
        }
        if *key != row.key(table) {
            complaints.add(Wrong::Present, || format!("{} has the key of another row", name(table, *row)));
        }
        if promises.refuses_bad_rows && row.is_bad() {
            complaints.add(Wrong::Present, || format!("{} breaks a constraint", name(table, *row)));
        }
    }
}

/// Where a row must be, as far as its own outcome shows.
fn place(fate: &Fate, row: RowId, promises: Promises) -> Place {
    if promises.is_durable {
        return match (fate.accepted, promises.refuses_bad_rows && row.is_bad()) {
            (_, true) => Place::Outside,
            (true, false) => Place::Inside,
            // The log may have it.
            (false, false) => Place::Either,
        };
    }
    match fate.outcomes.first() {
        Some(OutcomeKind::Written) => Place::Inside,
        Some(OutcomeKind::Rejected | OutcomeKind::Expired | OutcomeKind::Purged) => Place::Outside,
        // Of an ignored row a row with its key is there, of a superseded one a later row.
        Some(_) => Place::Either,
        None if fate.refused => Place::Outside,
        None => Place::Either,
    }
}

/// How often each row is in a table, over its incarnations.
fn counts(incarnations: &[Vec<FoundRow>]) -> HashMap<RowId, u64> {
    let mut counts = HashMap::new();
    incarnations.iter().flatten().for_each(|found| *counts.entry(found.row).or_default() += 1);
    counts
}

/// A row without a key is there exactly once if it was written. Where it may be written again: how many were.
fn plain(
    incarnations: &[Vec<FoundRow>],
    fates: &HashMap<(Table, RowId), &Fate>,
    promises: Promises,
    complaints: &mut Complaints,
) -> u64 {
    let counts = counts(incarnations);
    let mut doubled = 0;
    for ((table, row), fate) in fates.iter().filter(|((table, _), _)| *table == Table::Plain) {
        let count = counts.get(row).copied().unwrap_or(0);
        let place = place(fate, *row, promises);
        if place == Place::Inside && count == 0 {
            complaints.add(Wrong::Lost, || format!("{} is not there", name(*table, *row)));
        }
        if place == Place::Outside && count > 0 {
            complaints.add(Wrong::Present, || format!("{} ended as {:?}", name(*table, *row), fate.outcomes));
        }
        if count > 1 && !promises.exactly_once && (promises.is_durable || promises.at_least_once) {
            doubled += 1;
        } else if count > 1 {
            complaints.add(Wrong::Doubled, || format!("{} is there {count} times", name(*table, *row)));
        }
    }
    doubled
}

/// The row of a key that is there is the newest one that was written.
fn keyed(
    incarnations: &[Vec<FoundRow>],
    fates: &HashMap<(Table, RowId), &Fate>,
    promises: Promises,
    complaints: &mut Complaints,
) {
    let mut last: HashMap<i64, RowId> = HashMap::new();
    for incarnation in incarnations {
        let mut here = HashMap::new();
        for FoundRow { key, row } in incarnation {
            if here.insert(*key, *row).is_some() {
                complaints.add(Wrong::Doubled, || format!("key {key} of the keyed table is there twice"));
            }
        }
        for (key, row) in here {
            let before = last.insert(key, row);
            // In a table that was created again, each key begins anew, with a later row.
            if before.is_some_and(|before| before.sequence > row.sequence) {
                complaints.add(Wrong::Order, || format!("{} came after a newer one", name(Table::Keyed, row)));
            }
        }
    }
    for ((table, row), fate) in fates.iter().filter(|((table, _), _)| *table == Table::Keyed) {
        let there = last.get(&row.key(Table::Keyed));
        match place(fate, *row, promises) {
            Place::Inside if there.is_none() => {
                complaints.add(Wrong::Lost, || format!("the key of {} is not there", name(*table, *row)));
            }
            Place::Inside if there.is_some_and(|there| there.sequence < row.sequence) => {
                complaints.add(Wrong::Order, || format!("{} was overwritten by an older one", name(*table, *row)));
            }
            Place::Outside if there == Some(row) => {
                complaints.add(Wrong::Present, || format!("{} ended as {:?}", name(*table, *row), fate.outcomes));
            }
            _ => {}
        }
    }
}

/// The first row of a key stays: a written row is there, and the key of an ignored one is.
fn once(
    incarnations: &[Vec<FoundRow>],
    fates: &HashMap<(Table, RowId), &Fate>,
    promises: Promises,
    complaints: &mut Complaints,
) {
    let rows = counts(incarnations);
    let mut keys: HashMap<i64, u64> = HashMap::new();
    incarnations.iter().flatten().for_each(|found| *keys.entry(found.key).or_default() += 1);
    for incarnation in incarnations {
        let mut here = HashMap::new();
        for FoundRow { key, row } in incarnation {
            if here.insert(*key, *row).is_some() {
                complaints.add(Wrong::Doubled, || format!("the key of {} is there twice", name(Table::Once, *row)));
            }
        }
    }
    for ((table, row), fate) in fates.iter().filter(|((table, _), _)| *table == Table::Once) {
        let (is_there, key_is_there) = (rows.contains_key(row), keys.contains_key(&row.key(Table::Once)));
        match place(fate, *row, promises) {
            // The durable intake gives no receipt: the row may have been ignored.
            Place::Inside if promises.is_durable && !key_is_there => {
                complaints.add(Wrong::Lost, || format!("the key of {} is not there", name(*table, *row)));
            }
            Place::Inside if !promises.is_durable && !is_there => {
                complaints.add(Wrong::Lost, || format!("{} is not there", name(*table, *row)));
            }
            Place::Outside if is_there => {
                complaints.add(Wrong::Present, || format!("{} ended as {:?}", name(*table, *row), fate.outcomes));
            }
            Place::Either if fate.outcomes.first() == Some(&OutcomeKind::Ignored) && !key_is_there => {
                complaints.add(Wrong::Lost, || format!("{} was ignored, and its key is not there", name(*table, *row)));
            }
            _ => {}
        }
    }
}

/// The versions of a key only rise. At least once, the durable intake may go back after a kill, and then comes to the last one
/// again.
fn versions(
    history: &[FoundRow],
    fates: &HashMap<(Table, RowId), &Fate>,
    promises: Promises,
    complaints: &mut Complaints,
) {
    let mut of_key: HashMap<i64, (u64, u64)> = HashMap::new();
    let mut seen: HashMap<RowId, ()> = HashMap::new();
    for FoundRow { key, row } in history {
        let is_again = seen.insert(*row, ()).is_some();
        let (last, newest) = of_key.entry(*key).or_insert((row.sequence, row.sequence));
        if row.sequence < *last && (!promises.is_durable || promises.exactly_once) {
            complaints.add(Wrong::Order, || format!("{} was written after a newer one", name(Table::Keyed, *row)));
        }
        if promises.exactly_once && is_again {
            complaints.add(Wrong::Doubled, || format!("{} was written twice", name(Table::Keyed, *row)));
        }
        (*last, *newest) = (row.sequence, (*newest).max(row.sequence));
    }
    for (key, (last, newest)) in of_key {
        if last < newest {
            complaints.add(Wrong::Order, || format!("key {key} ends with row {last}, and had row {newest} before"));
        }
    }
    if promises.is_durable {
        return;
    }
    for ((table, row), fate) in fates.iter().filter(|((table, _), _)| *table == Table::Keyed) {
        match place(fate, *row, promises) {
            Place::Inside if !seen.contains_key(row) => {
                complaints.add(Wrong::Lost, || format!("{} is not in the history", name(*table, *row)));
            }
            Place::Outside if seen.contains_key(row) => {
                complaints.add(Wrong::Present, || format!("{} is in the history", name(*table, *row)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
