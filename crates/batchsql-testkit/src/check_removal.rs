//! Owns the check whether a sink removes the positions of an incarnation, and only those.
//! Must not know any database.

use std::time::Duration;

use batchsql_core::{BatchSql, Claim, ClaimFrom, Claimed, PartitionKey, Position, Removed, Step};

/// Checks removals of a source that nothing else uses.
///
/// # Panics
/// When the sink does something else.
pub(crate) async fn check_removal(db: &BatchSql, source: &str) {
    let remove = async |source: &str, incarnation: &str, ended: &[&str]| {
        let ended: Vec<String> = ended.iter().map(|owner| (*owner).to_owned()).collect();
        db.remove_positions(source, incarnation, &ended).await.expect("the database can be asked")
    };
    assert_eq!(remove(source, "old", &[]).await, Removed::Positions(0), "there is none");
    let key = |incarnation: &str, partition| PartitionKey::new(source, incarnation, "t", partition);
    let first = taken(db, &key("old", 0), Claim::of("a").or_begin_at(4)).await;
    let second = taken(db, &key("old", 1), Claim::of("b").or_begin_at(5).lease(Duration::from_millis(1))).await;
    let new = taken(db, &key("new", 0), Claim::of("a").or_begin_at(6)).await;
    let elsewhere = format!("{source}x");
    let other = PartitionKey::new(&*elsewhere, "old", "t", 0);
    let other = taken(db, &other, Claim::of("a").or_begin_at(7)).await;

    // An owner that may live keeps all of them, also without a lease, and if its lease is over.
    for (ended, kept_by) in [(&[][..], &["a", "b"][..]), (&["b"], &["a"]), (&["a"], &["b"])] {
        match remove(source, "old", ended).await {
            Removed::Claimed { owner } => assert!(kept_by.contains(&&*owner), "{owner} {kept_by:?}"),
            removed => panic!("an owner is not known to have ended: {removed:?}"),
        }
    }
    db.advance(&Step::new(first, 8)).await.expect("the position is as it was");
    assert!(db.release(&first).await.expect("the database can be asked"));
    assert_eq!(remove(source, "old", &["b", "c"]).await, Removed::Positions(2));

    // What the owners of before still send changes nothing, and other incarnations and sources have their positions.
    for gone in [Position { sequence: 8, ..first }, second] {
        assert!(db.advance(&Step::new(gone, 99)).await.expect_err("its position is gone").is_fenced());
    }
    assert_eq!(claim(db, &key("old", 0), Claim::of("a").from(ClaimFrom::Anyone)).await, Claimed::Missing);
    for kept in [new, other] {
        db.advance(&Step::new(kept, 99)).await.expect("its position is there");
    }
    assert_eq!(db.positions(source).await.expect("the database can be asked").len(), 1);
}

async fn claim(db: &BatchSql, key: &PartitionKey, claim: Claim) -> Claimed {
    db.claim(key, &claim).await.expect("the database can be asked")
}

async fn taken(db: &BatchSql, key: &PartitionKey, of: Claim) -> Position {
    claim(db, key, of).await.position().expect("it is claimed")
}
