//! Every interleaving of two threads at the budget, by a step of `cargo xtask test`.

use super::*;
use loom::future::block_on;
use loom::thread;

/// A budget whose only room is taken.
fn full() -> (Arc<Budget>, Arc<Share>) {
    let (budget, share) = (Budget::new(1, 10), Arc::new(Share::default()));
    budget.try_reserve(0, &share, 1, 1).unwrap().keep_row(1);
    (budget, share)
}

#[test]
fn room_given_back_reaches_the_one_who_waits() {
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
fn who_goes_away_while_room_comes_leaks_none() {
    loom::model(|| {
        let (budget, share) = full();
        let goes = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let mut wait = Box::pin(budget.reserve(0, &share, 1, 1, || ()));
                // Polled once, then dropped, with or without room.
                drop(wait.as_mut().poll(&mut context));
            }
        });
        budget.release(1, 1);
        goes.join().unwrap();
        assert_eq!((budget.used(), budget.is_waking()), ((0, 0), false));
        assert_eq!(budget.waiting.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn closing_wakes_the_one_who_comes_to_wait() {
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
fn the_bound_holds_against_two_who_take_at_once() {
    loom::model(|| {
        let budget = Budget::new(1, 10);
        let share = Arc::new(Share::default());
        let takes = thread::spawn({
            let (budget, share) = (Arc::clone(&budget), Arc::clone(&share));
            move || budget.try_reserve(0, &share, 1, 1).map(|mut room| room.keep_row(1)).is_ok()
        });
        let here = budget.try_reserve(1, &share, 1, 1).map(|mut room| room.keep_row(1)).is_ok();
        assert!(takes.join().unwrap() != here, "exactly one finds room");
        assert_eq!(budget.used(), (1, 1));
    });
}
