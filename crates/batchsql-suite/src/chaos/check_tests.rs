//! Ledgers and tables that are right, and each of them changed in one way: the checker must find every change.

use super::*;

const RECEIPTS: Promises =
    Promises { is_durable: false, exactly_once: false, at_least_once: false, refuses_bad_rows: true };
const DURABLE: Promises =
    Promises { is_durable: true, exactly_once: false, at_least_once: false, refuses_bad_rows: true };

fn row(sequence: u64) -> RowId {
    RowId { producer: 1, sequence }
}

fn found(table: Table, sequence: u64) -> FoundRow {
    FoundRow { key: row(sequence).key(table), row: row(sequence) }
}

fn fate(outcome: OutcomeKind) -> Fate {
    Fate { accepted: true, refused: false, outcomes: vec![outcome] }
}

/// Sequences 0 to 8 of each table, with every outcome; 0 and 8 have the same key in the keyed table.
fn right() -> (Ledger, Found) {
    use OutcomeKind::{Expired, Ignored, Purged, Rejected, Superseded, Unknown, Written};
    let outcomes = [Written, Written, Unknown, Rejected, Expired, Purged, Unknown, Written, Written, Written];
    let mut ledger = Ledger { is_complete: true, ..Ledger::default() };
    for table in Table::ALL {
        for (sequence, outcome) in (0..).zip(outcomes) {
            let outcome = match (table, sequence) {
                (Table::Keyed, 0) => Superseded,
                // It has the key of the row before.
                (Table::Once, 9) => Ignored,
                _ => outcome,
            };
            ledger.rows.insert((table, row(sequence)), fate(outcome));
        }
    }
    ledger.rows.insert((Table::Plain, row(20)), Fate { refused: true, ..Fate::default() });
    let failed = ledger.rows.iter().filter(|(_, fate)| fate.outcomes.iter().any(|kind| FAILED.contains(kind)));
    ledger.letters = failed.map(|(row, _)| (*row, 1)).collect();
    let accepted = ledger.rows.values().filter(|fate| fate.accepted).count() as u64;
    for kind in OutcomeKind::ALL {
        let count = ledger.rows.values().filter(|fate| fate.outcomes.contains(&kind)).count() as u64;
        ledger.balance.insert(kind.name().to_owned(), count);
        ledger.metrics.insert(kind.name().to_owned(), count);
    }
    ledger.balance.insert("accepted".to_owned(), accepted);
    let rows = |table, sequences: &[u64]| sequences.iter().map(|sequence| found(table, *sequence)).collect::<Vec<_>>();
    // Of the unknown rows, 2 is there and 6 is not. Key 1 of the keyed table has the rows 1 and 9.
    let tables = HashMap::from([
        (Table::Plain, vec![rows(Table::Plain, &[0, 1, 2, 7, 8, 9])]),
        (Table::Keyed, vec![rows(Table::Keyed, &[2, 7, 8, 9])]),
        (Table::Once, vec![rows(Table::Once, &[0, 1, 2, 7, 8])]),
    ]);
    (ledger, Found { tables, history: Some(rows(Table::Keyed, &[1, 2, 7, 8, 9])) })
}

/// The kinds of violations, each once.
fn wrongs(ledger: &Ledger, found: &Found, promises: Promises) -> Vec<Wrong> {
    let checked = check(std::slice::from_ref(ledger), found, promises);
    let mut wrongs: Vec<Wrong> = checked.violations.iter().map(|violation| violation.wrong).collect();
    assert_eq!(checked.count == 0, wrongs.is_empty());
    wrongs.dedup();
    wrongs
}

/// A change of what is right, and what it must be found as.
#[track_caller]
fn finds(expected: Wrong, change: impl FnOnce(&mut Ledger, &mut Found)) {
    let (mut ledger, mut found) = right();
    change(&mut ledger, &mut found);
    let wrongs = wrongs(&ledger, &found, RECEIPTS);
    assert!(wrongs.contains(&expected), "{wrongs:?}");
}

fn table(found: &mut Found, table: Table) -> &mut Vec<FoundRow> {
    &mut found.tables.get_mut(&table).unwrap()[0]
}

#[test]
fn what_is_right_passes() {
    let (ledger, found) = right();
    let checked = check(std::slice::from_ref(&ledger), &found, RECEIPTS);
    assert_eq!((checked.violations, checked.rows), (vec![], 30));
    assert_eq!(checked.outcomes["written"], 5 + 4 + 4);
}

#[test]
fn a_lost_row_is_found() {
    for name in Table::ALL {
        finds(Wrong::Lost, |_, found| table(found, name).retain(|found| found.row != row(7)));
    }
    finds(Wrong::Lost, |_, found| found.history.as_mut().unwrap().retain(|found| found.row != row(7)));
    // The key of an ignored row is not there.
    finds(Wrong::Lost, |_, found| table(found, Table::Once).retain(|found| found.row != row(8)));
}

#[test]
fn a_doubled_row_is_found() {
    for name in Table::ALL {
        finds(Wrong::Doubled, |_, found| table(found, name).push(self::found(name, 7)));
    }
    // Also over a table that was created again.
    finds(Wrong::Doubled, |_, found| {
        found.tables.get_mut(&Table::Plain).unwrap().push(vec![self::found(Table::Plain, 7)]);
    });
}

#[test]
fn rows_that_may_be_written_again_are_counted() {
    let (ledger, mut found) = right();
    table(&mut found, Table::Plain).push(self::found(Table::Plain, 7));
    let promises = Promises { at_least_once: true, ..RECEIPTS };
    let checked = check(std::slice::from_ref(&ledger), &found, promises);
    assert_eq!((checked.violations, checked.doubled), (vec![], 1));
    // Only those without a key.
    table(&mut found, Table::Once).push(self::found(Table::Once, 7));
    assert_eq!(wrongs(&ledger, &found, promises), [Wrong::Doubled]);
}

#[test]
fn a_row_that_must_not_be_there_is_found() {
    for (name, sequence) in [
        (Table::Plain, 3),
        (Table::Plain, 4),
        (Table::Plain, 5),
        (Table::Plain, 20),
        (Table::Keyed, 3),
        (Table::Once, 4),
    ] {
        finds(Wrong::Present, |_, found| table(found, name).push(self::found(name, sequence)));
    }
    // Nobody submitted it; it breaks a constraint; it has the key of another row.
    finds(Wrong::Present, |_, found| table(found, Table::Plain).push(self::found(Table::Plain, 77)));
    finds(Wrong::Present, |ledger, found| {
        ledger.rows.insert((Table::Plain, row(96)), fate(OutcomeKind::Unknown));
        table(found, Table::Plain).push(self::found(Table::Plain, 96));
    });
    finds(Wrong::Present, |_, found| table(found, Table::Once)[1].key += 1);
    finds(Wrong::Present, |_, found| found.history.as_mut().unwrap().insert(0, self::found(Table::Keyed, 3)));
}

#[test]
fn a_wrong_order_is_found() {
    // Row 9 was written, and row 1 is there.
    finds(Wrong::Order, |_, found| *table(found, Table::Keyed).last_mut().unwrap() = self::found(Table::Keyed, 1));
    finds(Wrong::Order, |_, found| found.history.as_mut().unwrap().push(self::found(Table::Keyed, 1)));
    // Only the history shows that an older one was there for a moment.
    finds(Wrong::Order, |_, found| {
        let history = found.history.as_mut().unwrap();
        history.extend([self::found(Table::Keyed, 1), self::found(Table::Keyed, 9)]);
    });
    finds(Wrong::Order, |_, found| {
        found.tables.get_mut(&Table::Keyed).unwrap().push(vec![self::found(Table::Keyed, 1)]);
    });
}

#[test]
fn a_wrong_balance_is_found() {
    for name in ["accepted", "written", "unknown"] {
        finds(Wrong::Balance, |ledger, _| *ledger.balance.get_mut(name).unwrap() += 1);
    }
    finds(Wrong::Balance, |ledger, _| {
        let fate = ledger.rows.get_mut(&(Table::Plain, row(0))).unwrap();
        fate.outcomes.push(OutcomeKind::Written);
    });
    finds(Wrong::Balance, |ledger, _| ledger.rows.get_mut(&(Table::Plain, row(0))).unwrap().outcomes.clear());
    finds(Wrong::Balance, |ledger, _| {
        ledger.rows.get_mut(&(Table::Plain, row(20))).unwrap().outcomes.push(OutcomeKind::Purged);
    });
    finds(Wrong::Metrics, |ledger, _| *ledger.metrics.get_mut("rejected").unwrap() -= 1);
}

#[test]
fn wrong_dead_letters_are_found() {
    finds(Wrong::Letters, |ledger, _| {
        ledger.letters.remove(&(Table::Once, row(4)));
    });
    finds(Wrong::Letters, |ledger, _| *ledger.letters.get_mut(&(Table::Once, row(4))).unwrap() += 1);
    finds(Wrong::Letters, |ledger, _| {
        ledger.letters.insert((Table::Plain, row(0)), 1);
    });
}

#[test]
fn a_killed_writer_has_no_balance_and_rows_without_an_outcome() {
    let (mut ledger, found) = right();
    ledger.is_complete = false;
    ledger.balance.clear();
    ledger.rows.get_mut(&(Table::Plain, row(0))).unwrap().outcomes.clear();
    assert_eq!(wrongs(&ledger, &found, RECEIPTS), []);
}

/// What a durable intake leaves: acknowledged rows only.
fn durable() -> (Ledger, Found) {
    let mut ledger = Ledger { is_complete: true, left: Some(0), ..Ledger::default() };
    for table in Table::ALL {
        for sequence in [0, 1, 2, 8, 9, 96] {
            ledger.rows.insert((table, row(sequence)), Fate { accepted: true, ..Fate::default() });
        }
        ledger.letters.insert((table, row(96)), 2);
        // The writer was killed before it noted whether the log has it.
        ledger.rows.insert((table, row(10)), Fate::default());
    }
    ledger.balance.insert("accepted".to_owned(), 21);
    for (kind, rows) in [(OutcomeKind::Written, 18), (OutcomeKind::Rejected, 3)] {
        ledger.balance.insert(kind.name().to_owned(), rows);
        ledger.metrics.insert(kind.name().to_owned(), rows);
    }
    let rows = |table, sequences: &[u64]| sequences.iter().map(|sequence| found(table, *sequence)).collect::<Vec<_>>();
    let tables = HashMap::from([
        (Table::Plain, vec![rows(Table::Plain, &[0, 1, 2, 8, 8, 9])]),
        (Table::Keyed, vec![rows(Table::Keyed, &[8, 9, 10])]),
        (Table::Once, vec![rows(Table::Once, &[0, 1, 2, 8])]),
    ]);
    (ledger, Found { tables, history: Some(rows(Table::Keyed, &[0, 1, 2, 8, 0, 8, 9, 10])) })
}

/// The pipeline of a durable intake has written so many rows, and no more.
fn set_ended(ledger: &mut Ledger, rows: u64) {
    for (name, rows) in [("accepted", rows), ("written", rows), ("rejected", 0)] {
        ledger.balance.insert(name.to_owned(), rows);
        ledger.metrics.insert(name.to_owned(), rows);
    }
}

#[test]
fn a_durable_intake_may_write_again_and_never_loses() {
    let (ledger, found) = durable();
    let checked = check(std::slice::from_ref(&ledger), &found, DURABLE);
    assert_eq!((checked.violations, checked.doubled), (vec![], 1));
    let finds = |expected: Wrong, change: &dyn Fn(&mut Ledger, &mut Found)| {
        let (mut ledger, mut found) = durable();
        change(&mut ledger, &mut found);
        let wrongs = wrongs(&ledger, &found, DURABLE);
        assert!(wrongs.contains(&expected), "{wrongs:?}");
    };
    for (name, sequence) in [(Table::Plain, 1), (Table::Keyed, 9), (Table::Once, 8)] {
        finds(Wrong::Lost, &move |_, found| table(found, name).retain(|found| found.row != row(sequence)));
    }
    finds(Wrong::Order, &|_, found| table(found, Table::Keyed)[1] = self::found(Table::Keyed, 1));
    finds(Wrong::Order, &|_, found| found.history.as_mut().unwrap().push(self::found(Table::Keyed, 2)));
    finds(Wrong::Doubled, &|_, found| table(found, Table::Once).push(self::found(Table::Once, 8)));
    finds(Wrong::Present, &|_, found| table(found, Table::Plain).push(self::found(Table::Plain, 96)));
    finds(Wrong::Lost, &|ledger, _| {
        ledger.letters.remove(&(Table::Plain, row(96)));
    });
    finds(Wrong::Lost, &|ledger, _| {
        ledger.letters.remove(&(Table::Once, row(96)));
    });
    finds(Wrong::Letters, &|ledger, _| {
        ledger.letters.insert((Table::Keyed, row(1)), 1);
    });
    // The key of row 678 is that of row 679, which may have been written by the writer before.
    let wrongs_of_678 = |has_letter: bool, sequence: u64| {
        let (mut ledger, found) = durable();
        let fate = ledger.rows[&(Table::Once, row(96))].clone();
        ledger.rows.insert((Table::Once, row(sequence)), fate);
        if has_letter {
            ledger.letters.insert((Table::Once, row(sequence)), 1);
        }
        wrongs(&ledger, &found, DURABLE).contains(&Wrong::Lost)
    };
    assert!(row(678).is_bad() && row(193).is_bad());
    assert_eq!(
        [(true, 678), (false, 678), (false, 193)].map(|(has, row)| wrongs_of_678(has, row)),
        [false, false, true]
    );
    finds(Wrong::Stuck, &|ledger, _| ledger.left = Some(3));
    finds(Wrong::Metrics, &|ledger, _| *ledger.metrics.get_mut("written").unwrap() -= 1);
    finds(Wrong::Balance, &|ledger, _| *ledger.balance.get_mut("accepted").unwrap() += 1);
    finds(Wrong::Balance, &|ledger, _| set_ended(ledger, 17));
}

#[test]
fn exactly_once_writes_nothing_again() {
    let exactly = Promises { exactly_once: true, ..DURABLE };
    let once = |numbers: &[u64], table: Table| numbers.iter().map(|number| found(table, *number)).collect::<Vec<_>>();
    let fitting = || {
        let (ledger, mut found) = durable();
        *table(&mut found, Table::Plain) = once(&[0, 1, 2, 8, 9], Table::Plain);
        found.history = Some(once(&[0, 1, 2, 8, 9, 10], Table::Keyed));
        (ledger, found)
    };
    let (ledger, good) = fitting();
    assert_eq!(check(std::slice::from_ref(&ledger), &good, exactly).violations, vec![]);
    for (ended, is_right) in [(17, false), (18, true), (21, true), (22, false)] {
        let (mut ledger, good) = fitting();
        set_ended(&mut ledger, ended);
        assert_eq!(!wrongs(&ledger, &good, exactly).contains(&Wrong::Balance), is_right, "{ended}");
    }
    let (_, mut doubled) = fitting();
    table(&mut doubled, Table::Plain).push(found(Table::Plain, 8));
    assert!(wrongs(&ledger, &doubled, exactly).contains(&Wrong::Doubled));
    let (_, mut again) = fitting();
    again.history = Some(once(&[0, 1, 1, 2, 8, 9, 10], Table::Keyed));
    assert!(wrongs(&ledger, &again, exactly).contains(&Wrong::Doubled));
    let (_, mut back) = fitting();
    // Rows 1 and 9 have one key.
    back.history = Some(once(&[0, 9, 1, 2, 8, 10], Table::Keyed));
    assert!(wrongs(&ledger, &back, exactly).contains(&Wrong::Order));
}
