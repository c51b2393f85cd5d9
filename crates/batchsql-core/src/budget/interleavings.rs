//! Tests of every interleaving of two threads that use the budget. A step of `cargo xtask test` runs them.

use std::sync::Arc;

use crate::budget::capacity::Budget;
use crate::budget::guards::HeldCapacity;
use crate::budget::reserve::Refusal;
use crate::budget::share::Share;
use crate::budget::sync::{AtomicBool, Ordering, fence};
use loom::future::block_on;
use loom::thread;

/// A budget whose only row is taken.
fn full() -> (Arc<Budget>, Arc<Share>) {
    let (budget, share) = (Budget::new(1, 10), Arc::new(Share::default()));
    budget.try_reserve(0, &share, 1, 1).unwrap().keep_rows(1, 1);
    (budget, share)
}

#[test]
fn capacity_given_back_reaches_the_one_who_waits() {
    loom::model(|| {
        let (budget, share) = full();
        let waits = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || drop(block_on(budget.reserve(0, &share, 1, 1, || ())).unwrap())
        });
        budget.release(1, 1);
        waits.join().unwrap();
        assert_eq!((budget.used(), budget.is_waking()), ((0, 0), false));
    });
}

#[test]
fn a_submitter_that_goes_away_leaks_no_capacity() {
    loom::model(|| {
        let (budget, share) = full();
        let goes = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let mut wait = Box::pin(budget.reserve(0, &share, 1, 1, || ()));
                // Polled once, then dropped, with or without capacity.
                drop(wait.as_mut().poll(&mut context));
            }
        });
        budget.release(1, 1);
        goes.join().unwrap();
        assert_eq!((budget.used(), budget.is_waking()), ((0, 0), false));
        assert!(budget.waiting() == 0 && budget.lines().is_empty());
    });
}

#[test]
fn closing_wakes_a_submitter_that_comes_to_wait() {
    loom::model(|| {
        let (budget, share) = full();
        let waits = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || block_on(budget.reserve(0, &share, 1, 1, || ())).map(drop)
        });
        budget.close();
        assert_eq!(waits.join().unwrap(), Err(Refusal::Closed));
    });
}

#[test]
fn the_bound_holds_when_two_take_at_once() {
    loom::model(|| {
        let budget = Budget::new(1, 10);
        let share = Arc::new(Share::default());
        let takes = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || budget.try_reserve(0, &share, 1, 1).map(|mut slot| slot.keep_rows(1, 1)).is_ok()
        });
        let here = budget.try_reserve(1, &share, 1, 1).map(|mut slot| slot.keep_rows(1, 1)).is_ok();
        assert!(takes.join().unwrap() != here, "exactly one finds capacity");
        assert_eq!(budget.used(), (1, 1));
    });
}

#[test]
fn a_table_that_leaves_its_share_is_served() {
    loom::model(|| {
        let (budget, share) = (Budget::new(9, 90), Arc::new(Share::default()));
        budget.share_fairly();
        let mut reservation = budget.try_reserve(0, &share, 9, 9).unwrap();
        (0..9).for_each(|_| reservation.keep_rows(1, 1));
        drop(reservation);
        // Nine rows are above eight times the one that will be free, eight are not.
        let (mut batch, _other) = (share.hold(1, 1), share.hold(8, 8));
        let waits = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || drop(block_on(budget.reserve(0, &share, 1, 1, || ())).unwrap())
        });
        // In the same order as the end of a batch.
        batch.release();
        budget.release(1, 1);
        waits.join().unwrap();
        assert_eq!((budget.used(), budget.waiting(), budget.is_waking()), ((8, 8), 0, false));
    });
}

/// A budget of two rows and ten bytes, and the capacity of a failed row of five bytes.
fn failed_row() -> (Arc<Budget>, Arc<Share>, HeldCapacity) {
    let (budget, share) = (Budget::new(2, 10), Arc::new(Share::default()));
    budget.try_reserve(0, &share, 1, 3).unwrap().keep_rows(1, 3);
    let held = HeldCapacity::of_row(&budget, 3, 5);
    assert_eq!((budget.used(), budget.held()), ((1, 5), (1, 5)));
    (budget, share, held)
}

#[test]
fn capacity_of_a_failed_row_is_used_again_within_the_bound() {
    loom::model(|| {
        let (budget, share, held) = failed_row();
        let takes = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || budget.try_reserve(1, &share, 1, 5).map(|mut slot| slot.keep_rows(1, 5)).is_ok()
        });
        // Two bytes more than the failed row holds: they are not free if the other thread was first.
        let again = held.reuse(&budget, 7).map(|mut reservation| reservation.keep_rows(1, 7));
        let is_reused = again.is_ok();
        assert!(takes.join().unwrap() != is_reused, "exactly one finds capacity");
        drop(again);
        assert_eq!((budget.used(), budget.held()), (if is_reused { (1, 7) } else { (1, 5) }, (0, 0)));
    });
}

#[test]
fn a_failed_row_that_is_mended_wakes_the_one_who_waits_for_its_capacity() {
    loom::model(|| {
        let (budget, share, held) = failed_row();
        let waits = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || drop(block_on(budget.reserve(1, &share, 2, 2, || ())).unwrap())
        });
        // The corrected row is refused: its reservation is not kept.
        drop(held.reuse(&budget, 4));
        waits.join().unwrap();
        assert_eq!((budget.used(), budget.held(), budget.waiting()), ((0, 0), (0, 0), 0));
    });
}

/// The protocol of `pipeline/submit.rs` and `dispatch/pressure.rs`: a waiter counts itself, then checks whether the
/// pipeline is busy; the dispatcher marks the pipeline idle, then checks for waiters.
#[test]
fn a_waiter_sees_the_idle_pipeline_or_the_dispatcher_sees_the_waiter() {
    loom::model(|| {
        let (budget, share) = full();
        let busy = Arc::new(AtomicBool::new(true));
        let waits = thread::spawn({
            let (budget, busy) = (Arc::clone(&budget), Arc::clone(&busy));
            move || {
                let asks = Arc::new(AtomicBool::new(false));
                let asked = Arc::clone(&asks);
                let mut wait = Box::pin(async move {
                    let ask = || asked.store(!busy.load(Ordering::SeqCst), Ordering::SeqCst);
                    budget.reserve(0, &share, 1, 1, ask).await.map(drop)
                });
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(wait.as_mut().poll(&mut context).is_pending());
                // It keeps waiting until both have checked.
                (wait, asks.load(Ordering::SeqCst))
            }
        });
        busy.store(false, Ordering::SeqCst);
        // Loom treats a sequentially consistent access as acquire or release: the fence adds the missing order.
        fence(Ordering::SeqCst);
        let sees = budget.wanted().is_some();
        let (wait, asks) = waits.join().unwrap();
        assert!(sees || asks, "the open batches would never be sealed");
        drop(wait);
        assert_eq!(budget.waiting(), 0);
    });
}
