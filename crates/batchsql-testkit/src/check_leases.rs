//! Owns the check whether a sink keeps leases of partitions, so that workers can share them out.
//! Must not know any database.

use std::time::Duration;

use batchsql_core::{BatchSql, Claim, ClaimFrom, Claimed, PartitionKey, Position, Step, StoredPosition, share_out};

const HOUR: Duration = Duration::from_secs(3600);

/// Checks leases of a source that nothing else uses.
///
/// # Panics
/// When the sink does something else.
pub(crate) async fn check_leases(db: &BatchSql, source: &str) {
    assert_eq!(db.positions(source).await.expect("the database can be asked"), []);
    assert_eq!(db.renew(source, "a", HOUR).await.expect("the database can be asked"), []);
    a_lease_keeps_others_out(db, source).await;
    leases_are_renewed_and_given_away(db, source).await;
    workers_share_out(db, &format!("{source} out")).await;
}

async fn a_lease_keeps_others_out(db: &BatchSql, source: &str) {
    let key = PartitionKey::new(source, "incarnation", "t", 0);
    let anyone = |owner: &str| Claim::of(owner).from(ClaimFrom::Anyone);
    let first = taken(db, &key, anyone("a").or_begin_at(5).lease(HOUR)).await;
    match claim(db, &key, anyone("b").lease(HOUR)).await {
        Claimed::Leased { owner, left } => assert!(owner == "a" && is_about_an_hour(left), "{owner} {left:?}"),
        other => panic!("the lease of another owner is not over: {other:?}"),
    }
    assert_eq!(claim(db, &key, Claim::of("b").lease(HOUR)).await, Claimed::Other);
    db.advance(&Step::new(first, 6)).await.expect("the refused claims have not raised the epoch");
    let again = taken(db, &key, Claim::of("a")).await;
    assert!(again.epoch > first.epoch && again.sequence == 6, "{again:?}");
    let kept = claim(db, &key, anyone("b")).await;
    assert!(matches!(kept, Claimed::Leased { .. }), "a claim of its owner leaves the lease: {kept:?}");
    let named = Claim::of("b").from(ClaimFrom::Owners(vec!["a".into()]));
    assert_eq!(taken(db, &key, named).await.sequence, 6, "an owner that has ended is named");
    // That claim made no lease.
    taken(db, &key, anyone("c").lease(Duration::ZERO)).await;
    let short = taken(db, &key, anyone("d").lease(Duration::from_millis(20))).await;
    loop {
        match claim(db, &key, anyone("e").lease(HOUR)).await {
            Claimed::Leased { owner, left } => {
                assert!(owner == "d" && left <= Duration::from_millis(20), "{owner} {left:?}");
                tokio::time::sleep(left).await;
            }
            Claimed::Position(position) => {
                assert_eq!(position, Position { epoch: short.epoch + 1, ..short });
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(db.advance(&Step::new(short, 7)).await.expect_err("its epoch is over").is_fenced());
}

async fn leases_are_renewed_and_given_away(db: &BatchSql, source: &str) {
    let key = |partition| PartitionKey::new(source, "incarnation", "t", partition);
    let over = Claim::of("a").or_begin_at(1).lease(Duration::ZERO);
    let second = taken(db, &key(1), over.clone()).await;
    let third = taken(db, &key(2), over).await;
    taken(db, &key(3), Claim::of("a").or_begin_at(1)).await;
    let other = format!("{source}x");
    let elsewhere = PartitionKey::new(&*other, "incarnation", "t", 1);
    taken(db, &elsewhere, Claim::of("a").or_begin_at(1).lease(Duration::ZERO)).await;

    let before = db.positions(source).await.expect("the database can be asked");
    assert_eq!(before.len(), 4);
    assert_eq!(before.iter().filter_map(StoredPosition::holder).collect::<Vec<_>>(), ["e"]);
    let renewed = db.renew(source, "a", HOUR).await.expect("the database can be asked");
    let leases: Vec<_> = renewed.iter().map(|own| (own.key.clone(), own.position, own.lease.is_some())).collect();
    let unleased = renewed.last().expect("three partitions").position;
    assert_eq!(leases, [(key(1), second, true), (key(2), third, true), (key(3), unleased, false)]);
    assert!(renewed.iter().filter_map(|own| own.lease).all(is_about_an_hour), "{renewed:?}");
    let after = db.positions(source).await.expect("the database can be asked");
    assert_eq!(after.iter().filter_map(StoredPosition::holder).collect::<Vec<_>>(), ["e", "a", "a"]);
    let stays = db.positions(&other).await.expect("the database can be asked");
    assert_eq!(stays.iter().map(|stored| (&stored.key, stored.lease)).collect::<Vec<_>>(), [(&elsewhere, None)]);

    let stale = Position { epoch: second.epoch - 1, ..second };
    assert!(!db.release(&stale).await.expect("the database can be asked"), "another epoch");
    assert!(db.release(&second).await.expect("the database can be asked"));
    let left = db.renew(source, "a", HOUR).await.expect("the database can be asked");
    let left: Vec<_> = left.into_iter().map(|own| own.key).collect();
    assert_eq!(left, [key(2), key(3)], "what was given away is not renewed");
    let taken_over = taken(db, &key(1), Claim::of("b").lease(HOUR)).await;
    assert_eq!((taken_over.sequence, taken_over.epoch), (1, second.epoch + 1));
    assert!(!db.release(&second).await.expect("the database can be asked"), "it has another owner");
}

async fn workers_share_out(db: &BatchSql, source: &str) {
    let partitions: Vec<_> = (0..5).map(|number| PartitionKey::new(source, "incarnation", "t", number)).collect();
    let seat = db.take_seat(source, "a", HOUR).await.expect("the database can be asked");
    let again = db.take_seat(source, "a", HOUR).await.expect("the database can be asked");
    assert_eq!(again, Position { epoch: seat.epoch + 1, ..seat }, "it has its seat");
    turn(db, source, "a", &partitions).await;
    assert_ne!(db.take_seat(source, "b", HOUR).await.expect("the database can be asked").id, seat.id);
    for worker in ["a", "b"] {
        turn(db, source, worker, &partitions).await;
    }
    let stored = db.positions(source).await.expect("the database can be asked");
    let held = stored.iter().filter(|stored| !stored.key.is_seat()).filter_map(StoredPosition::holder);
    assert_eq!(held.collect::<Vec<_>>(), ["a", "a", "a", "b", "b"]);
    assert!(db.release(&again).await.expect("the database can be asked"));
    assert_eq!(db.take_seat(source, "c", HOUR).await.expect("the database can be asked").id, seat.id, "it is free");
}

async fn turn(db: &BatchSql, source: &str, worker: &str, partitions: &[PartitionKey]) {
    let stored = db.positions(source).await.expect("the database can be asked");
    let share = share_out(worker, partitions, &stored);
    for stored in stored.iter().filter(|stored| share.release.contains(&stored.key)) {
        assert!(db.release(&stored.position).await.expect("the database can be asked"));
    }
    for key in &share.claim {
        taken(db, key, Claim::of(worker).from(ClaimFrom::Anyone).or_begin_at(0).lease(HOUR)).await;
    }
}

fn is_about_an_hour(left: Duration) -> bool {
    left <= HOUR && left > HOUR / 2
}

async fn claim(db: &BatchSql, key: &PartitionKey, claim: Claim) -> Claimed {
    db.claim(key, &claim).await.expect("the database can be asked")
}

async fn taken(db: &BatchSql, key: &PartitionKey, of: Claim) -> Position {
    claim(db, key, of).await.position().expect("it is claimed")
}
