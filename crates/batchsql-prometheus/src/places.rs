//! Owns the places of a server: how many connections there are at once, and which one gives way when all are taken.
//! Must not know sockets, or what is asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How long a connection may get nowhere before it gives way to one that waits for its place. A slow link needs less
/// for a handshake and a request.
const STILL: Duration = Duration::from_secs(1);
/// Between two looks for a connection that gives way: nobody tells when one falls silent.
const LOOK: Duration = Duration::from_millis(50);

/// So many connections at once. When one more comes, the one that was idle longest, or else has its answer next, ends
/// with that answer: it had its turn. Those that had none keep their places as long as they get somewhere, and give
/// way after a second in which they sent no request, or did not take their answer. So nobody can keep others out by
/// keeping connections open, whatever they do with them.
pub(crate) struct Places {
    limit: usize,
    taken: Mutex<Vec<Arc<Pulse>>>,
    freed: Notify,
}

/// The place of a connection, until it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    pulse: Arc<Pulse>,
}

/// What a connection is seen to do.
pub(crate) struct Pulse {
    state: Mutex<State>,
    leave: Notify,
    cut: Notify,
}

#[derive(Clone, Copy)]
struct State {
    /// When it last got somewhere.
    moved: Instant,
    /// Its answer is being made, so that it is not its fault when nothing happens.
    is_answered: bool,
    /// It had its turn.
    was_answered: bool,
    /// It was asked to end.
    leaves: bool,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, taken: Mutex::default(), freed: Notify::new() }
    }

    /// Waits for a place: as long as one of the others needs for its current answer, or gets nowhere.
    ///
    /// # Cancel safety
    /// Cancelling takes no place.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        let mut asked: Option<Instant> = None;
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            // The one that was asked may need long.
            if asked.is_none_or(|asked| asked.elapsed() >= STILL) && self.ask_one_to_leave() {
                asked = Some(Instant::now());
            }
            // Time up means to look again.
            let _ = timeout(LOOK, self.freed.notified()).await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken();
        if taken.len() >= self.limit {
            let still = |pulse: &Pulse| Some(pulse.state()).filter(|state| !state.is_answered).map(|state| state.moved);
            let (moved, position) = (0..taken.len()).filter_map(|at| Some((still(&taken[at])?, at))).min()?;
            if moved.elapsed() < STILL {
                return None;
            }
            taken.swap_remove(position).cut.notify_one();
        }
        let state = State { moved: Instant::now(), is_answered: false, was_answered: false, leaves: false };
        let pulse = Arc::new(Pulse { state: Mutex::new(state), leave: Notify::new(), cut: Notify::new() });
        taken.push(Arc::clone(&pulse));
        Some(Place { places: Arc::clone(self), pulse })
    }

    fn ask_one_to_leave(&self) -> bool {
        let taken = self.taken();
        let staying = taken.iter().filter(|pulse| {
            let state = pulse.state();
            state.was_answered && !state.leaves
        });
        let Some(pulse) = staying.min_by_key(|pulse| pulse.state().moved) else { return false };
        pulse.change(|state| state.leaves = true);
        pulse.leave.notify_one();
        true
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Arc<Pulse>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It is no longer there when it had to give way.
        self.places.taken().retain(|pulse| !Arc::ptr_eq(pulse, &self.pulse));
        self.places.freed.notify_one();
    }
}

impl Pulse {
    /// A part of an answer was taken.
    pub(crate) fn moved(&self) {
        self.change(|state| state.moved = Instant::now());
    }

    /// A request is there.
    pub(crate) fn asked(&self) {
        self.change(|state| state.is_answered = true);
    }

    /// The answer to it is there.
    pub(crate) fn answered(&self) {
        self.change(|state| *state = State { moved: Instant::now(), is_answered: false, was_answered: true, ..*state });
    }

    /// Waits until the connection is to end after its current answer.
    pub(crate) async fn is_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Waits until somebody else has the place.
    pub(crate) async fn is_cut(&self) {
        self.cut.notified().await;
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    fn three() -> Arc<Places> {
        Arc::new(Places::new(3))
    }

    async fn is_cut(place: &Place) -> bool {
        timeout(Duration::from_millis(1), place.pulse.is_cut()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_got_nowhere_for_longest_gives_way() {
        let places = three();
        let [first, second, third] = [places.take().await, places.take().await, places.take().await];
        advance(STILL).await;
        first.pulse.moved();
        third.pulse.asked();
        let begin = Instant::now();
        let fourth = places.take().await;
        assert!(begin.elapsed() < LOOK, "it waited for {:?}", begin.elapsed());
        assert!(is_cut(&second).await && !is_cut(&first).await && !is_cut(&third).await && !is_cut(&fourth).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_does_not_drive_out_those_that_have_just_come() {
        let places = three();
        let crowd = [places.take().await, places.take().await, places.take().await];
        let begin = Instant::now();
        let _fourth = places.take().await;
        assert!(begin.elapsed() >= STILL, "{:?}", begin.elapsed());
        let cut = [is_cut(&crowd[0]).await, is_cut(&crowd[1]).await, is_cut(&crowd[2]).await];
        assert_eq!(cut.iter().filter(|cut| **cut).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_had_its_turn_leaves_at_once_and_no_other() {
        let places = three();
        let busy = [places.take().await, places.take().await, places.take().await];
        for place in &busy {
            place.pulse.asked();
        }
        busy[1].pulse.answered();
        advance(Duration::from_millis(1)).await;
        busy[2].pulse.answered();
        busy[1].pulse.asked();
        let begin = Instant::now();
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        busy[1].pulse.is_to_leave().await;
        assert!(begin.elapsed() < LOOK, "{:?}", begin.elapsed());
        for place in [&busy[0], &busy[2]] {
            assert!(timeout(LOOK, place.pulse.is_to_leave()).await.is_err(), "one is enough");
        }
        busy[2].pulse.asked();
        sleep(STILL).await;
        assert!(!waiting.is_finished(), "all answers are being made");
        busy[2].pulse.is_to_leave().await;
        let [_, second, _] = busy;
        drop(second);
        let _place = waiting.await.unwrap();
        assert_eq!(places.taken().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_the_limit() {
        let places = three();
        let mut kept = Vec::new();
        for _ in 0..10 {
            kept.push(places.take().await);
            assert!(places.taken().len() <= 3);
        }
        drop(kept);
        assert!(places.taken().is_empty());
    }
}
