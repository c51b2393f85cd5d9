//! Owns the choice of the write strategy: which ones a table allows, and which one a batch uses.
//! Must not know how rows are sent.

use std::time::Duration;

use batchsql_core::{Action, Schema};

use crate::catalog::Table;
use crate::field::Field;
use crate::round_trip::RoundTrip;
use crate::settings::{Settings, Strategy};

/// One write strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Values,
    Unnest,
    Copy,
    Staging,
    /// `UNNEST` that returns the numbers of the rows that were inserted.
    Numbered,
}

/// The possible strategies of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    Always(Way),
    /// `UNNEST`, and another strategy for larger batches.
    From(Larger),
}

/// A strategy for larger batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Larger {
    way: Way,
    /// The minimum number of rows.
    rows: usize,
    /// Additional round trips compared with `UNNEST`.
    trips: u32,
    /// The same two for rows with a position.
    step_rows: usize,
    step_trips: u32,
    /// The time it saves per row.
    saved: Duration,
}

impl Larger {
    fn way(self, rows: usize, (least, trips): (usize, u32), round_trip: &RoundTrip) -> Way {
        if rows >= least && rows >= round_trip.rows_worth(trips, self.saved) { self.way } else { Way::Unnest }
    }
}

impl Choice {
    /// The strategy for a batch, by its row count and the round trip to the server.
    pub(crate) fn way(self, rows: usize, round_trip: &RoundTrip) -> Way {
        match self {
            Self::Always(way) => way,
            Self::From(larger) => larger.way(rows, (larger.rows, larger.trips), round_trip),
        }
    }

    /// The same for a batch with a position: `UNNEST` moves it in its statement, other strategies need a transaction.
    pub(crate) fn way_of_step(self, rows: usize, round_trip: &RoundTrip) -> Way {
        match self {
            Self::Always(way) => way,
            Self::From(larger) => larger.way(rows, (larger.step_rows, larger.step_trips), round_trip),
        }
    }
}

/// The strategies of a table, or why the configured one cannot be used.
pub(crate) fn choose(schema: &Schema, table: &Table, fields: &[Field], settings: Settings) -> Result<Choice, String> {
    let strategy = settings.strategy;
    let may_drop = table.may_drop_rows(schema);
    let is_plain = schema.action() == Action::Insert;
    let odd = fields.iter().find(|field| !field.form.copies && field.form.parsed.is_none());
    let no_copy = if !is_plain {
        Some("it supports no conflict rule; use staging or unnest".to_owned())
    } else if table.has_row_security {
        Some("the table has row security; use unnest".to_owned())
    } else if may_drop {
        Some("a trigger may drop rows, and COPY does not report which; use unnest".to_owned())
    } else {
        odd.map(|field| format!("the binary form of column {:?} is not known; use unnest", field.name))
    };
    let no_staging = if !table.may_stage {
        Some("the user may not create temporary tables; GRANT TEMPORARY on the database, or use unnest")
    } else if may_drop {
        Some("a trigger may drop rows, and it does not report which; use unnest")
    } else {
        None
    };
    let refuse = |why: &str| Err(format!("strategy {} cannot write it: {why}", strategy.name()));
    match strategy {
        Strategy::MultiValues => Ok(Choice::Always(Way::Values)),
        Strategy::Unnest => Ok(Choice::Always(Way::Unnest)),
        Strategy::Copy => no_copy.map_or(Ok(Choice::Always(Way::Copy)), |why| refuse(&why)),
        Strategy::Staging => no_staging.map_or(Ok(Choice::Always(Way::Staging)), refuse),
        // Without named statements COPY takes two round trips, and every other strategy four or more.
        Strategy::Auto if is_plain && no_copy.is_none() && !settings.prepared_statements => {
            Ok(Choice::Always(Way::Copy))
        }
        Strategy::Auto if is_plain && no_copy.is_none() => Ok(Choice::From(COPY)),
        Strategy::Auto if !is_plain && no_staging.is_none() => Ok(Choice::From(STAGING)),
        Strategy::Auto => Ok(Choice::Always(Way::Unnest)),
    }
}

// The row counts at which `Strategy::Auto` changes the strategy. Measured with `examples/strategies.rs`: PostgreSQL
// 15 over TCP on the same machine, two cores, four connections, rows of about 110 bytes in seven columns with three
// indexes, medians of seven or nine rounds. Most of the time is work of the server, so the strategies are close, and
// 5 % is noise.
//
// | rows per batch            | 1    | 5    | 10   | 20   | 50   | 100  | 500  | 1000 | 5000 | 10000 | 20000 |
// |---------------------------|------|------|------|------|------|------|------|------|------|-------|-------|
// | COPY to UNNEST            | 0.86 | 0.94 | 1.09 | 1.10 | 1.16 | 1.12 | 1.04 | 1.02 | 1.14 |       |       |
// | staging to UNNEST, ignore |      |      |      |      |      |      |      | 0.79 | 1.01 | 1.05  | 1.11  |
// | staging to UNNEST, update |      |      |      |      |      |      |      | 0.87 | 1.02 | 1.11  | 1.06  |
//
// Multi-row VALUES were at 1.07 for one row, where the commit takes most of the time and both send one statement; the
// difference is below 0.2 ms per batch. For more rows they were below 1.

/// COPY takes one more round trip than UNNEST, and less server time per row: 2.5 µs to 4.5 µs on one connection
/// (docs/databases.md, "How PostgreSQL is written").
///
/// With a position (`POSITIONS=1`, fsync on) UNNEST stays one statement and COPY needs a transaction, three round trips more:
///
/// ```text
/// rows per batch       100   500   1000  2000  5000  10000
/// COPY to UNNEST       0.89  0.98  1.01  1.18  1.30  1.21
/// ```
const COPY: Larger =
    Larger { way: Way::Copy, rows: 20, trips: 1, step_rows: 2_000, step_trips: 3, saved: Duration::from_nanos(2_500) };

/// A staging table takes four more round trips, with a position five, and a new catalogue entry.
const STAGING: Larger = Larger {
    way: Way::Staging,
    rows: 10_000,
    trips: 4,
    step_rows: 10_000,
    step_trips: 5,
    saved: Duration::from_nanos(1_000),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_another_way_for_larger_batches() {
        let (near, plain) = (RoundTrip::default(), Choice::From(COPY));
        near.observe(Duration::from_micros(50));
        let ways = |trip: &RoundTrip, rows: [usize; 4]| rows.map(|rows| plain.way(rows, trip));
        assert_eq!(ways(&near, [1, 19, 20, 500]), [Way::Unnest, Way::Unnest, Way::Copy, Way::Copy]);
        assert_eq!([1, 500].map(|rows| Choice::Always(Way::Staging).way(rows, &near)), [Way::Staging; 2]);
    }

    #[test]
    fn a_position_makes_a_transaction_worth_it_later() {
        let (near, far, plain) = (RoundTrip::default(), RoundTrip::default(), Choice::From(COPY));
        near.observe(Duration::from_micros(50));
        far.observe(Duration::from_millis(10));
        let ways = |trip: &RoundTrip, rows: [usize; 2]| rows.map(|rows| plain.way_of_step(rows, trip));
        assert_eq!(ways(&near, [COPY.step_rows - 1, COPY.step_rows]), [Way::Unnest, Way::Copy]);
        assert_eq!(ways(&far, [11_999, 12_000]), [Way::Unnest, Way::Copy]);
        assert_eq!(Choice::Always(Way::Copy).way_of_step(1, &near), Way::Copy);
    }

    #[test]
    fn a_round_trip_more_is_worth_it_only_for_batches_that_take_as_long() {
        let (far, plain, merged) = (RoundTrip::default(), Choice::From(COPY), Choice::From(STAGING));
        // Before the round trip was measured, the minimum row count decides.
        assert_eq!(plain.way(20, &far), Way::Copy);
        far.observe(Duration::from_millis(10));
        assert_eq!(
            [20, 500, 3_999, 4_000].map(|rows| plain.way(rows, &far)),
            [Way::Unnest, Way::Unnest, Way::Unnest, Way::Copy]
        );
        assert_eq!(
            [10_000, 39_999, 40_000].map(|rows| merged.way(rows, &far)),
            [Way::Unnest, Way::Unnest, Way::Staging]
        );
    }
}
