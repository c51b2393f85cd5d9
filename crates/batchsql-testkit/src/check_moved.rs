//! Owns the check whether a sink knows that somebody else has moved a position.
//! Must not know any database.

use batchsql_core::{BatchSql, Claim, ClaimFrom, Claimed, PartitionKey, Position, Step};

/// Checks it with a source that nothing else uses, and a table of positions without any other. `run` runs a statement, as a person
/// would.
///
/// # Panics
/// When the sink does something else.
pub async fn check_moved<F: Future<Output = ()>>(db: &BatchSql, run: impl Fn(String) -> F) {
    let key = PartitionKey::new("moved", "incarnation", "t", 0);
    let claimed = async |owner: &str| {
        let claim = Claim::of(owner).from(ClaimFrom::Anyone).or_begin_at(4);
        db.claim(&key, &claim).await.expect("the database can be asked")
    };
    let taken = async |owner: &str| claimed(owner).await.position().expect("it is where it was moved to");
    let set = async |sequence: i64| run(format!("UPDATE batchsql_positions SET sequence = {sequence}")).await;
    let begun = taken("a").await;
    assert_eq!(begun.sequence, 4);
    // Before the first step, and after one; each claim says so again, whoever makes it.
    for moved_to in [4, 10] {
        let at = taken("a").await;
        if moved_to > at.sequence {
            db.advance(&Step::new(at, moved_to)).await.expect("a step of the owner");
        }
        set(moved_to + 1).await;
        for owner in ["a", "b", "a"] {
            match claimed(owner).await {
                Claimed::Ahead { position, moved_to: left } => {
                    assert_eq!((position.sequence, left), (moved_to + 1, moved_to));
                }
                claimed => panic!("the position was moved ahead: {claimed:?}"),
            }
        }
        set(moved_to).await;
        assert_eq!(taken("b").await.sequence, moved_to, "it was set back");
    }
    // Rows are written again from a position that was moved back, and then it is no end any more.
    set(6).await;
    assert_eq!(taken("a").await.sequence, 6);
    set(8).await;
    assert!(matches!(claimed("a").await, Claimed::Ahead { moved_to: 6, .. }));
    // The owner accepts it with a step to where it is, or a person does.
    let Claimed::Ahead { position, .. } = claimed("a").await else { panic!("it is ahead until then") };
    db.advance(&Step::new(position, 8)).await.expect("a step of the owner");
    assert_eq!(taken("b").await.sequence, 8);
    run("UPDATE batchsql_positions SET sequence = 20, moved_to = 20".to_owned()).await;
    assert_eq!(taken("b").await.sequence, 20);
    // A seat has no rows.
    let hour = std::time::Duration::from_secs(3_600);
    let seat = db.take_seat("moved", "a", hour).await.expect("a seat is free");
    run("UPDATE batchsql_positions SET sequence = sequence + 1 WHERE sequence < 20".to_owned()).await;
    assert_eq!(db.take_seat("moved", "a", hour).await.expect("it has one").id, seat.id);
    // A table of an earlier version does not say where its positions were left.
    db.release(&seat).await.expect("the database can be asked");
    run("ALTER TABLE batchsql_positions DROP COLUMN moved_to".to_owned()).await;
    set(30).await;
    let position: Position = taken("a").await;
    assert_eq!((position.sequence, position.id), (30, begun.id));
    set(31).await;
    assert!(matches!(claimed("a").await, Claimed::Ahead { moved_to: 30, .. }));
}
