//! Owns positions: how far a partition of a source is, stored in the target database in the transaction of its rows.
//! Must not know sources or databases.
//!
//! A partition is read in order, and each transaction moves its position from the last row of the transaction before to its
//! own last row. So a row is written once, whatever happens between the commit and the moment when the source hears of it.
//!
//! ```text
//! claim                      epoch 4, sequence 100      whoever held the partition before can commit nothing any more
//! write rows 101 to 150      UPDATE ... SET sequence = 150, moved_to = 150 WHERE id = 7 AND epoch = 4 AND sequence = 100; INSERT ...; COMMIT
//! the reply is lost
//! claim, if it is still ours  epoch 5, sequence 150: it was committed (100: it was not, and never will be)
//! ```

use std::fmt;
use std::time::Duration;

/// Names one partition of one source in the table of positions. The names are stored as they are; a row belongs to one
/// incarnation of the source, so that a source that was made anew under the same name begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PartitionKey {
    /// The source, for people; at most 100 characters, without a space at its end: databases compare such names as equal.
    pub source: String,
    /// The incarnation of the source, for example the random id of a log; at most 64 characters.
    pub incarnation: String,
    /// The table that the rows of the partition go to; at most 400 characters.
    pub table: String,
    /// The number of the partition.
    pub partition: u32,
}

impl PartitionKey {
    /// A partition of a table.
    pub fn new(
        source: impl Into<String>,
        incarnation: impl Into<String>,
        table: impl Into<String>,
        partition: u32,
    ) -> Self {
        Self { source: source.into(), incarnation: incarnation.into(), table: table.into(), partition }
    }

    /// The condition of an SQL statement for the row of the partition, for messages that say how to repair it.
    #[doc(hidden)]
    pub fn row_of_position(&self) -> String {
        let [source, incarnation, table] =
            [&self.source, &self.incarnation, &self.table].map(|text| format!("'{}'", text.replace('\'', "''")));
        let partition = self.partition;
        format!(
            "source = {source} AND incarnation = {incarnation} AND table_name = {table} AND partition_number = {partition}"
        )
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of table {} (source {}, {})", self.partition, self.table, self.source, self.incarnation)
    }
}

/// Who claims a partition, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// Whoever claims: a name that no other process has, at most 100 characters. It is stored.
    pub owner: String,
    /// From whom.
    pub from: ClaimFrom,
    /// A partition without a position gets this one. `None`: it is not claimed.
    pub begin_at: Option<i64>,
    /// How long nobody else may claim it, from now on by the clock of the database. `None`: the claim makes no lease; the
    /// one that the owner has stays.
    pub lease: Option<Duration>,
}

/// The owners that a claim takes a partition from. The owner itself is always one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimFrom {
    /// Whoever has it, once the lease is over.
    Anyone,
    /// These, for example the processes before on the same log; nobody, after a lost reply. They are known to have ended, so
    /// their leases do not count.
    Owners(Vec<String>),
}

impl Claim {
    /// A claim of what the owner has: after a lost reply.
    pub fn of(owner: impl Into<String>) -> Self {
        Self { owner: owner.into(), from: ClaimFrom::Owners(Vec::new()), begin_at: None, lease: None }
    }

    /// A claim from these owners too.
    #[must_use]
    pub fn from(mut self, from: ClaimFrom) -> Self {
        self.from = from;
        self
    }

    /// A partition without a position gets this one.
    #[must_use]
    pub fn or_begin_at(mut self, sequence: i64) -> Self {
        self.begin_at = Some(sequence);
        self
    }

    /// Nobody else may claim the partition for this time, at most a year. Renew it with
    /// [`BatchSql::renew`](crate::BatchSql::renew) when a third of it has passed.
    ///
    /// A lease shares partitions out among workers; it does not keep rows from being written twice. That is what the epoch
    /// does, also when a lease has ended too early.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The answer to a claim of a partition that it does not take: this one has claimed it last, and has a lease for this
    /// time. `None`: it takes the partition.
    pub fn refused_by(&self, owner: Option<&str>, lease: Option<Duration>) -> Option<Claimed> {
        let owner = owner.filter(|owner| *owner != self.owner)?;
        match &self.from {
            ClaimFrom::Anyone => lease.map(|left| Claimed::Leased { owner: owner.to_owned(), left }),
            ClaimFrom::Owners(owners) => (!owners.iter().any(|known| known == owner)).then_some(Claimed::Other),
        }
    }
}

/// What a claim has found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claimed {
    /// The partition is claimed.
    Position(Position),
    /// The partition is claimed, but its position is further than `moved_to`, the row up to which steps have moved it: somebody else
    /// has changed it, and rows between may not be in the database. A claim says so until a step moves the position; one from
    /// `position` to itself accepts it.
    Ahead {
        /// As the table has it.
        position: Position,
        /// Rows up to this one have ended.
        moved_to: i64,
    },
    /// It has no position.
    Missing,
    /// Another owner has claimed it; nothing has changed.
    Other,
    /// Another owner has a lease; nothing has changed.
    Leased {
        /// Who has it.
        owner: String,
        /// The lease is over after this time, unless it is renewed.
        left: Duration,
    },
}

impl Claimed {
    /// A claimed partition with this position. `moved_to`: where the last step or the first claim has left it; `None` if that is not
    /// known.
    pub fn at(position: Position, moved_to: Option<i64>) -> Self {
        match moved_to {
            Some(moved_to) if moved_to < position.sequence => Self::Ahead { position, moved_to },
            _ => Self::Position(position),
        }
    }

    /// The position of a partition that is claimed, unless it was changed by somebody else.
    pub fn position(self) -> Option<Position> {
        match self {
            Self::Position(position) => Some(position),
            Self::Ahead { .. } | Self::Missing | Self::Other | Self::Leased { .. } => None,
        }
    }
}

/// The position of a claimed partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "drivers make it, and these three are all that a step needs")]
pub struct Position {
    /// The row of the partition in the table of positions.
    pub id: i64,
    /// Raised by each claim. Steps of an earlier epoch change nothing.
    pub epoch: i64,
    /// The last row that has ended.
    pub sequence: i64,
}

/// A partition as the table of positions has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPosition {
    /// Which partition.
    pub key: PartitionKey,
    /// How far it is, in the epoch of the last claim.
    pub position: Position,
    /// Who has claimed it last. `None`: nobody, or it was released.
    pub owner: Option<String>,
    /// How long nobody else may claim it. `None`: there is no lease, or it is over.
    pub lease: Option<Duration>,
}

impl StoredPosition {
    /// A partition that nobody has.
    pub fn new(key: PartitionKey, position: Position) -> Self {
        Self { key, position, owner: None, lease: None }
    }

    /// The same, claimed last by this one, with a lease for this time.
    #[must_use]
    pub fn owned(mut self, owner: Option<String>, lease: Option<Duration>) -> Self {
        self.owner = owner;
        self.lease = lease;
        self
    }

    /// Who has a lease.
    pub fn holder(&self) -> Option<&str> {
        self.owner.as_deref().filter(|_| self.lease.is_some())
    }
}

/// What became of the positions of an incarnation, see [`BatchSql::remove_positions`](crate::BatchSql::remove_positions).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removed {
    /// So many were removed.
    Positions(u64),
    /// One has an owner that is not known to have ended; none was removed.
    Claimed {
        /// Who has claimed it last.
        owner: String,
    },
}

impl Removed {
    /// The answer if one of these owners keeps the positions from being removed: they may have them, and `ended_owners` have
    /// ended. `None`: they are removed.
    pub fn refused_by<'a>(owners: impl IntoIterator<Item = Option<&'a str>>, ended_owners: &[String]) -> Option<Self> {
        let may_live = |owner: &&str| !ended_owners.iter().any(|ended| ended == owner);
        let owner = owners.into_iter().flatten().find(may_live)?;
        Some(Self::Claimed { owner: owner.to_owned() })
    }
}

/// One step of a partition: the rows behind `from` up to `to`, in one transaction with the position.
///
/// A driver that gets a step with a write ([`Attempt::step`](crate::Attempt::step)) moves the position first, in the same
/// transaction: `UPDATE batchsql_positions SET sequence = to, moved_to = to WHERE id = id AND epoch = epoch AND sequence = from`. If
/// no row has changed, it writes nothing and returns [`SinkError::fenced`](crate::SinkError::fenced).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Step {
    /// As of the claim.
    pub id: i64,
    /// As of the claim.
    pub epoch: i64,
    /// The position before.
    pub from: i64,
    /// The position after.
    pub to: i64,
    /// Whether the transaction is committed; otherwise it is rolled back when all rows were accepted, to find out whether
    /// the table accepts rows at all.
    pub commits: bool,
}

impl Step {
    /// The step from a position to a later one.
    pub fn new(position: Position, to: i64) -> Self {
        Self { id: position.id, epoch: position.epoch, from: position.sequence, to, commits: true }
    }

    /// The same step, rolled back at its end.
    #[must_use]
    pub fn rolled_back(mut self) -> Self {
        self.commits = false;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_with_an_owner_that_may_live_are_kept() {
        let check = |owners: &[Option<&str>], ended: &[&str], kept_by: Option<&str>| {
            let ended: Vec<String> = ended.iter().map(|owner| (*owner).to_owned()).collect();
            let expected = kept_by.map(|owner| Removed::Claimed { owner: owner.to_owned() });
            assert_eq!(Removed::refused_by(owners.iter().copied(), &ended), expected, "{owners:?} {ended:?}");
        };
        check(&[], &[], None);
        check(&[None, None], &[], None);
        check(&[None, Some("a")], &[], Some("a"));
        check(&[Some("a"), Some("b")], &["a"], Some("b"));
        check(&[Some("a"), None, Some("b")], &["b", "a", "c"], None);
    }

    #[test]
    fn a_claim_takes_from_its_owners_and_from_leases_that_are_over() {
        let left = Duration::from_secs(5);
        let leased = Some(Claimed::Leased { owner: "b".into(), left });
        let anyone = Claim::of("a").from(ClaimFrom::Anyone);
        let from_b = Claim::of("a").from(ClaimFrom::Owners(vec!["c".into(), "b".into()]));
        let cases = [
            (anyone.clone(), None, None, None),
            (anyone.clone(), Some("a"), Some(left), None),
            (anyone.clone(), Some("b"), None, None),
            (anyone, Some("b"), Some(left), leased),
            (Claim::of("a"), None, None, None),
            (Claim::of("a"), Some("a"), Some(left), None),
            (Claim::of("a"), Some("b"), None, Some(Claimed::Other)),
            (Claim::of("a"), Some("b"), Some(left), Some(Claimed::Other)),
            (from_b.clone(), Some("b"), Some(left), None),
            (from_b, Some("d"), None, Some(Claimed::Other)),
        ];
        for (claim, owner, lease, expected) in cases {
            assert_eq!(claim.refused_by(owner, lease), expected, "{claim:?} {owner:?} {lease:?}");
        }
    }
}
