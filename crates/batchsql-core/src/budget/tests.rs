//! Tests of the budget on one thread.

use std::sync::Arc;

use crate::budget::capacity::{Budget, Wanted};
use crate::budget::reserve::Refusal;
use crate::budget::share::Share;

fn share() -> Arc<Share> {
    Arc::default()
}

async fn until_waiting(budget: &Budget, waiting: usize) {
    while budget.waiting() != waiting {
        tokio::task::yield_now().await;
    }
}

/// A submitter of table `table` that waits for `rows` rows and keeps them.
fn waiter(budget: &Arc<Budget>, table: usize, share: &Arc<Share>, rows: usize) -> tokio::task::JoinHandle<bool> {
    let (budget, share) = (Arc::clone(budget), Arc::clone(share));
    tokio::spawn(async move {
        let Ok(mut slot) = budget.reserve(table, &share, rows, rows, || ()).await else { return false };
        (0..rows).for_each(|_| slot.keep_rows(1, 1));
        true
    })
}

#[test]
fn what_is_not_kept_goes_back() {
    let budget = Budget::new(10, 1000);
    let mut reservation = budget.try_reserve(0, &share(), 3, 300).unwrap();
    reservation.keep_rows(1, 100);
    drop(reservation);
    assert_eq!(budget.used(), (1, 100));
    budget.release(1, 100);
    assert_eq!(budget.used(), (0, 0));
}

#[test]
fn bytes_alone_can_be_full_and_then_no_row_is_held() {
    let budget = Budget::new(10, 100);
    let first = budget.try_reserve(0, &share(), 1, 90).unwrap();
    assert_eq!(budget.try_reserve(0, &share(), 1, 20).unwrap_err(), Refusal::Full);
    assert_eq!(budget.used(), (1, 90));
    drop(first);
}

#[tokio::test]
async fn a_cancelled_wait_leaks_nothing_and_lets_the_next_one_go() {
    let budget = Budget::new(4, 100);
    let held = budget.try_reserve(0, &share(), 2, 2).unwrap();
    let large = waiter(&budget, 0, &share(), 3);
    until_waiting(&budget, 1).await;
    let small = waiter(&budget, 1, &share(), 1);
    until_waiting(&budget, 2).await;
    assert_eq!(budget.try_reserve(2, &share(), 1, 1).unwrap_err(), Refusal::Full, "no submitter overtakes");
    large.abort();
    assert!(large.await.unwrap_err().is_cancelled());
    assert!(small.await.unwrap());
    drop(held);
    assert_eq!((budget.used(), budget.waiting()), ((1, 1), 0));
    assert!(!budget.is_waking());
}

#[tokio::test]
async fn those_who_go_away_leave_their_line() {
    let budget = Budget::new(1, 10);
    let held = budget.try_reserve(0, &share(), 1, 1).unwrap();
    let waiters: Vec<_> = (0..100).map(|_| waiter(&budget, 7, &share(), 1)).collect();
    until_waiting(&budget, 100).await;
    for waiter in waiters {
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
    }
    assert!(budget.lines().is_empty());
    assert_eq!(budget.waiting(), 0);
    drop(held);
}

#[tokio::test]
async fn capacity_granted_to_someone_who_is_gone_goes_back() {
    let budget = Budget::new(1, 10);
    let held = budget.try_reserve(0, &share(), 1, 1).unwrap();
    let shares = share();
    let mut gone = Box::pin(budget.reserve(0, &shares, 1, 1, || ()));
    assert!(futures_now(&mut gone).await.is_none());
    drop(held);
    // Granted, but not awake yet.
    assert!(budget.is_waking());
    assert_eq!(budget.used(), (1, 1));
    drop(gone);
    assert_eq!((budget.used(), budget.is_waking()), ((0, 0), false));
}

/// Polls once.
async fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn tables_take_turns() {
    let budget = Budget::new(2, 100);
    let held = budget.try_reserve(0, &share(), 2, 2).unwrap();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for (position, table) in [0, 0, 0, 1].into_iter().enumerate() {
        let (budget_of_task, order) = (Arc::clone(&budget), Arc::clone(&order));
        waiters.push(tokio::spawn(async move {
            let _slot = budget_of_task.reserve(table, &share(), 2, 2, || ()).await.unwrap();
            order.lock().unwrap().push((position, table));
        }));
        until_waiting(&budget, position + 1).await;
    }
    drop(held);
    for waiter in waiters {
        waiter.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [(0, 0), (3, 1), (1, 0), (2, 0)]);
}

#[tokio::test]
async fn a_table_over_its_share_leaves_capacity_to_others() {
    let budget = Budget::new(90, 9000);
    let (stuck, other) = (share(), share());
    budget.share_fairly();
    let mut held = Vec::new();
    while let Ok(mut slot) = budget.try_reserve(0, &stuck, 1, 1) {
        slot.keep_rows(1, 1);
        held.push(stuck.hold(1, 1));
    }
    assert_eq!(held.len(), 81, "a row more than eight times the ten that are left");
    let waits = waiter(&budget, 0, &stuck, 1);
    until_waiting(&budget, 1).await;
    assert_eq!(budget.wanted(), Some(Wanted::Share { table: 0 }), "the table waits for its own rows");
    // Its waiting submitter does not block other tables.
    let mut slot = budget.try_reserve(1, &other, 1, 1).unwrap();
    slot.keep_rows(1, 1);
    drop(slot);
    held.truncate(70);
    budget.release(11, 11);
    assert!(waits.await.unwrap());
}

#[tokio::test]
async fn closing_refuses_those_who_wait() {
    let budget = Budget::new(1, 100);
    let held = budget.try_reserve(0, &share(), 1, 1).unwrap();
    let waits = waiter(&budget, 0, &share(), 1);
    until_waiting(&budget, 1).await;
    budget.close();
    assert!(!waits.await.unwrap());
    assert_eq!(budget.try_reserve(0, &share(), 1, 1).unwrap_err(), Refusal::Closed);
    assert_eq!(budget.reserve(0, &share(), 1, 1, || ()).await.unwrap_err(), Refusal::Closed);
    drop(held);
    assert_eq!(budget.used(), (0, 0));
}
