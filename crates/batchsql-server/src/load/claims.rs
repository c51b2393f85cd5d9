//! Owns how a load claims the positions of its file, and what they say of earlier runs.
//! Must not know files or rows.
//!
//! A file whose records need an order has one position, number 0 of its key. Otherwise each partition has one, numbers 1 and
//! up, which begin where position 0 is; position 0 moves when all of the file is loaded. An earlier version knows only
//! position 0, so a load that it began goes on from there.
//!
//! Two loads of a file at once write nothing twice. Position 0 is claimed first and once more at the end of the claims: whoever
//! finds that another one has it stops before its first row. Whoever has it at the end has claimed all others too.

use batchsql::{BatchSql, PartitionKey};

use crate::exit::Failure;
use crate::load::exactly::Exactly;
use crate::load::layout::{Done, PARTITIONS};

/// Whether records may be written in another order than that of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Kept,
    Free,
}

/// The positions of a file.
pub(crate) struct Claims {
    /// One for each partition of `done`.
    pub(crate) writers: Vec<Exactly>,
    /// The position of the whole file, if it is not that of the only partition.
    pub(crate) whole: Option<Exactly>,
    pub(crate) done: Done,
}

/// Claims the positions of a file, whose key is that of position 0. Whoever loaded it before can write nothing any more.
///
/// # Errors
/// The table of positions cannot be used, another process has claimed the file meanwhile, or an earlier run has written records
/// without an order that have to keep it now.
pub(crate) async fn claim(db: &BatchSql, key: &PartitionKey, order: Order) -> Result<Claims, Failure> {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let owner = format!("load-{}-{nanos}", std::process::id());
    let numbered = |partition: u32| PartitionKey::new(&*key.source, &*key.incarnation, &*key.table, partition);
    let mut first = Exactly::claim(db, key.clone(), &owner, 0).await?;
    let base = first.reached();
    if order == Order::Kept {
        let stored = db.positions(&key.source).await;
        let stored = stored.map_err(|error| Failure::unavailable(format!("the positions cannot be read: {error}")))?;
        let of_file = stored.into_iter().map(|stored| stored.key);
        for part in of_file.filter(|part| part.partition > 0 && *part == numbered(part.partition)) {
            // Claimed, so that a process that still writes to it can do so no more.
            if Exactly::claim(db, part, &owner, base).await?.reached() > base {
                return Err(Failure::failed(
                    "an earlier run has written records of this file without an order, and now the table has a key or a rule that \
                     needs it; run it as it was begun, or remove its rows from the table and from batchsql_positions, and load it anew",
                ));
            }
        }
        return Ok(Claims { writers: vec![first], whole: None, done: Done::new(vec![base]) });
    }
    let mut writers = Vec::new();
    for partition in (1..).take(PARTITIONS) {
        writers.push(Exactly::claim(db, numbered(partition), &owner, base).await?);
    }
    first.claim_again().await?;
    let done = Done::new(writers.iter().map(|writer| writer.reached().max(base)).collect());
    Ok(Claims { writers, whole: Some(first), done })
}
