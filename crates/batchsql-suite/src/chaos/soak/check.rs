//! Owns the comparison of what the writer of a soak knows with what its tables have.
//! Must not know databases.
//!
//! It counts rows and does not look at each: a ledger of every row would grow as long as the run lasts. That each row ends as
//! it was reported is what chaos checks.

use super::job::{Mode, Total, Totals};
use super::table::Table;
use super::tables::Found;

/// What is wrong, if something is.
pub(super) fn check(mode: Mode, totals: &Totals, found: Found) -> Vec<String> {
    let mut wrong = Vec::new();
    let (accepted, ended) = totals.balance;
    if accepted != ended {
        wrong.push(format!("{accepted} rows were accepted, and {ended} have an outcome"));
    }
    if totals.left > 0 {
        wrong.push(format!("{} rows are left in the log", totals.left));
    }
    for (table, there) in [(Table::Plain, found.plain), (Table::Counter, found.counter)] {
        let (least, most) = bounds(mode, &totals.of(table));
        if there < least || most.is_some_and(|most| there > most) {
            let most = most.map_or_else(|| "more".to_owned(), |most| most.to_string());
            wrong.push(format!("the {} table has {there} rows in place of {least} to {most}", table.name()));
        }
    }
    wrong
}

/// How many rows of a table there may be; no upper bound where rows may be written again.
fn bounds(mode: Mode, total: &Total) -> (u64, Option<u64>) {
    let ended = |names: &[&str]| -> u64 { names.iter().filter_map(|name| total.outcomes.get(*name)).sum() };
    match mode {
        Mode::Memory => {
            let written = ended(&["written", "superseded"]);
            (written, Some(written + ended(&["unknown"])))
        }
        Mode::Durable => (total.accepted, None),
        Mode::ExactlyOnce => (total.accepted, Some(total.accepted + total.undetermined)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(balance: (u64, u64), left: u64) -> Totals {
        let outcomes = [("written", 90), ("superseded", 5), ("rejected", 3), ("unknown", 2)];
        let outcomes = outcomes.map(|(name, rows)| (name.to_owned(), rows)).into();
        let total = Total { accepted: 97, undetermined: 1, outcomes };
        let tables = [Table::Plain, Table::Counter].map(|table| (table.name().to_owned(), total.clone())).into();
        Totals { tables, balance, left }
    }

    #[test]
    fn rows_are_there_as_the_mode_promises() {
        // Mode, and the fewest and the most rows of each table.
        let table = [(Mode::Memory, 95, Some(97)), (Mode::Durable, 97, None), (Mode::ExactlyOnce, 97, Some(98))];
        for (mode, least, most) in table {
            let wrong = |rows| check(mode, &totals((100, 100), 0), Found { plain: rows, counter: rows }).len();
            assert_eq!((wrong(least), wrong(least - 1)), (0, 2), "{mode:?}");
            let above = most.unwrap_or(1_000);
            assert_eq!((wrong(above), wrong(above + 1)), (0, if most.is_some() { 2 } else { 0 }), "{mode:?}");
        }
    }

    #[test]
    fn rows_without_an_end_are_wrong() {
        let good = Found { plain: 97, counter: 97 };
        assert_eq!(
            check(Mode::Memory, &totals((100, 99), 0), good),
            ["100 rows were accepted, and 99 have an outcome"]
        );
        assert_eq!(check(Mode::Durable, &totals((0, 0), 4), good), ["4 rows are left in the log"]);
    }
}
