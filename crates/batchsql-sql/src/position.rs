//! Owns the statements on the table of positions that are the same on every database. They have numbers only.
//! Must not know clocks: how a database adds to its time is given.

use std::time::Duration;

use batchsql_core::{Claim, Position, Step};

/// Leases that are longer end after this time: databases cannot add any time to their own.
const LONGEST_LEASE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The condition for one partition. `mark`: the placeholder of a value, counted from 1: source, incarnation, table, partition.
pub fn position_of(mark: impl Fn(usize) -> String) -> String {
    let columns = ["source", "incarnation", "table_name", "partition_number"];
    let equal: Vec<String> =
        columns.iter().zip(1..).map(|(name, number)| format!("{name} = {}", mark(number))).collect();
    equal.join(" AND ")
}

/// What a claim sets the column `moved_to` to: where steps have left the position, but not behind it. It is `NULL` in rows of
/// earlier versions.
pub const MOVED_TO: &str = "CASE WHEN moved_to < sequence THEN moved_to ELSE sequence END";

/// The statement that moves a position. If it changes no row, the step is fenced. `also`: more columns to set, with a comma
/// before each.
pub fn move_position(step: &Step, also: &str) -> String {
    let Step { id, epoch, from, to, .. } = step;
    format!(
        "UPDATE batchsql_positions SET sequence = {to}, moved_to = {to}{also} WHERE id = {id} AND epoch = {epoch} AND sequence = {from}"
    )
}

/// The statement that gives a partition away.
pub fn release_position(position: &Position) -> String {
    let Position { id, epoch, .. } = position;
    format!("UPDATE batchsql_positions SET session = NULL, lease = NULL WHERE id = {id} AND epoch = {epoch}")
}

/// What a claim sets the column `lease` to. `owner` has claimed the partition before; `ends_after` is the expression for now
/// and so many microseconds.
pub fn lease_after(claim: &Claim, owner: Option<&str>, ends_after: impl Fn(i64) -> String) -> String {
    match claim.lease {
        Some(lease) => ends_after(lease_micros(lease)),
        None if owner == Some(&*claim.owner) => "lease".to_owned(),
        None => "NULL".to_owned(),
    }
}

/// A lease in microseconds, at most a year.
pub fn lease_micros(lease: Duration) -> i64 {
    i64::try_from(lease.min(LONGEST_LEASE).as_micros()).expect("a year has fewer microseconds")
}

/// What is left of a lease, from the difference to the time of the database in microseconds. `None`: there is none, or it is
/// over.
pub fn lease_left(micros: Option<i64>) -> Option<Duration> {
    let micros = u64::try_from(micros?).ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_the_numbers_of_the_step() {
        let position = Position { id: 7, epoch: 4, sequence: 100 };
        assert_eq!(
            position_of(|number| format!("${number}")),
            "source = $1 AND incarnation = $2 AND table_name = $3 AND partition_number = $4"
        );
        assert_eq!(
            move_position(&Step::new(position, 150), ", holder = 'h'"),
            "UPDATE batchsql_positions SET sequence = 150, moved_to = 150, holder = 'h' WHERE id = 7 AND epoch = 4 AND sequence = 100"
        );
        assert_eq!(
            release_position(&position),
            "UPDATE batchsql_positions SET session = NULL, lease = NULL WHERE id = 7 AND epoch = 4"
        );
    }

    #[test]
    fn a_claim_without_a_lease_leaves_that_of_its_owner() {
        let with = Claim::of("a").lease(Duration::from_millis(3));
        let cases = [
            (with.clone(), Some("a"), "now+3000"),
            (with, Some("b"), "now+3000"),
            (Claim::of("a"), Some("a"), "lease"),
            (Claim::of("a"), Some("b"), "NULL"),
            (Claim::of("a"), None, "NULL"),
            (Claim::of("a").lease(Duration::MAX), None, "now+31536000000000"),
        ];
        for (claim, owner, expected) in cases {
            assert_eq!(lease_after(&claim, owner, |micros| format!("now+{micros}")), expected, "{claim:?} {owner:?}");
        }
    }

    #[test]
    fn a_lease_that_is_over_is_none() {
        for (micros, left) in
            [(None, None), (Some(-1), None), (Some(0), None), (Some(5), Some(Duration::from_micros(5)))]
        {
            assert_eq!(lease_left(micros), left);
        }
    }
}
