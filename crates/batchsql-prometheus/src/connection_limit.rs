//! Owns the limit of connections: how many there are at once, and which one is closed when all slots are taken.
//! Must not know sockets or requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// A connection without progress for this long may be evicted for a waiting one. A slow link needs less for a
/// handshake and a request.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Interval between two checks for a stalled connection: no event reports one.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Limits the number of connections. When all slots are taken and another client connects, the connection that was
/// idle longest among those that have had a response is asked to close after its current response. Connections that
/// have had no response keep their slots while they make progress. They are evicted after one second in which they
/// sent no request and took no part of a response. So a client cannot keep others out by holding connections open.
///
/// Example with `max` = 2: A has had a response and is idle, B is sending its first request, and C connects. A is
/// asked to close, ends, and C takes its slot. If A and B had both sent nothing for one second, the one with the older
/// progress would be evicted at once.
pub(crate) struct ConnectionLimit {
    max: usize,
    active: Mutex<Vec<Arc<Activity>>>,
    freed: Notify,
}

/// The slot of a connection, until it is dropped.
pub(crate) struct ConnectionSlot {
    limit: Arc<ConnectionLimit>,
    activity: Arc<Activity>,
}

/// The activity of one connection, and the requests to end it.
pub(crate) struct Activity {
    state: Mutex<State>,
    close: Notify,
    evict: Notify,
}

#[derive(Clone, Copy)]
struct State {
    /// When it last made progress.
    last_progress: Instant,
    /// Its response is being made, so it is not stalled.
    is_responding: bool,
    /// It has had a response.
    has_responded: bool,
    /// It was asked to close.
    is_closing: bool,
}

impl ConnectionLimit {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, active: Mutex::default(), freed: Notify::new() }
    }

    /// Waits for a slot: until another connection has ended, or is stalled and can be evicted.
    ///
    /// # Cancel safety
    /// Cancelling takes no slot.
    pub(crate) async fn take(self: &Arc<Self>) -> ConnectionSlot {
        let mut asked: Option<Instant> = None;
        loop {
            if let Some(slot) = self.try_take() {
                return slot;
            }
            // The connection that was asked to close may take long.
            if asked.is_none_or(|asked| asked.elapsed() >= STALLED_AFTER) && self.request_close() {
                asked = Some(Instant::now());
            }
            // After a timeout, check again.
            let _ = timeout(POLL_INTERVAL, self.freed.notified()).await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let mut active = self.active();
        if active.len() >= self.max {
            let idle_since = |activity: &Activity| {
                Some(activity.state()).filter(|state| !state.is_responding).map(|state| state.last_progress)
            };
            let (last_progress, position) =
                (0..active.len()).filter_map(|at| Some((idle_since(&active[at])?, at))).min()?;
            if last_progress.elapsed() < STALLED_AFTER {
                return None;
            }
            active.swap_remove(position).evict.notify_one();
        }
        let state =
            State { last_progress: Instant::now(), is_responding: false, has_responded: false, is_closing: false };
        let activity = Arc::new(Activity { state: Mutex::new(state), close: Notify::new(), evict: Notify::new() });
        active.push(Arc::clone(&activity));
        Some(ConnectionSlot { limit: Arc::clone(self), activity })
    }

    fn request_close(&self) -> bool {
        let active = self.active();
        let candidates = active.iter().filter(|activity| {
            let state = activity.state();
            state.has_responded && !state.is_closing
        });
        let Some(activity) = candidates.min_by_key(|activity| activity.state().last_progress) else { return false };
        activity.change(|state| state.is_closing = true);
        activity.close.notify_one();
        true
    }

    fn active(&self) -> MutexGuard<'_, Vec<Arc<Activity>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        // An evicted connection is no longer in the list.
        self.limit.active().retain(|activity| !Arc::ptr_eq(activity, &self.activity));
        self.limit.freed.notify_one();
    }
}

impl Activity {
    /// The client received a part of a response.
    pub(crate) fn progressed(&self) {
        self.change(|state| state.last_progress = Instant::now());
    }

    /// A request has arrived.
    pub(crate) fn request_started(&self) {
        self.change(|state| state.is_responding = true);
    }

    /// The response to it is ready.
    pub(crate) fn response_ready(&self) {
        self.change(|state| {
            *state = State { last_progress: Instant::now(), is_responding: false, has_responded: true, ..*state }
        });
    }

    /// Waits until the connection must close after its current response.
    pub(crate) async fn close_requested(&self) {
        self.close.notified().await;
    }

    /// Waits until another connection has taken the slot.
    pub(crate) async fn evicted(&self) {
        self.evict.notified().await;
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

    fn three() -> Arc<ConnectionLimit> {
        Arc::new(ConnectionLimit::new(3))
    }

    async fn evicted(slot: &ConnectionSlot) -> bool {
        timeout(Duration::from_millis(1), slot.activity.evicted()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_stalled_longest_is_evicted() {
        let limit = three();
        let [first, second, third] = [limit.take().await, limit.take().await, limit.take().await];
        advance(STALLED_AFTER).await;
        first.activity.progressed();
        third.activity.request_started();
        let begin = Instant::now();
        let fourth = limit.take().await;
        assert!(begin.elapsed() < POLL_INTERVAL, "it waited for {:?}", begin.elapsed());
        assert!(evicted(&second).await && !evicted(&first).await && !evicted(&third).await && !evicted(&fourth).await);
    }

    #[tokio::test(start_paused = true)]
    async fn new_connections_are_not_evicted_at_once() {
        let limit = three();
        let crowd = [limit.take().await, limit.take().await, limit.take().await];
        let begin = Instant::now();
        let _fourth = limit.take().await;
        assert!(begin.elapsed() >= STALLED_AFTER, "{:?}", begin.elapsed());
        let cut = [evicted(&crowd[0]).await, evicted(&crowd[1]).await, evicted(&crowd[2]).await];
        assert_eq!(cut.iter().filter(|cut| **cut).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_that_had_a_response_is_asked_to_close() {
        let limit = three();
        let busy = [limit.take().await, limit.take().await, limit.take().await];
        for slot in &busy {
            slot.activity.request_started();
        }
        busy[1].activity.response_ready();
        advance(Duration::from_millis(1)).await;
        busy[2].activity.response_ready();
        busy[1].activity.request_started();
        let begin = Instant::now();
        let waiting = tokio::spawn({
            let limit = Arc::clone(&limit);
            async move { limit.take().await }
        });
        busy[1].activity.close_requested().await;
        assert!(begin.elapsed() < POLL_INTERVAL, "{:?}", begin.elapsed());
        for slot in [&busy[0], &busy[2]] {
            assert!(timeout(POLL_INTERVAL, slot.activity.close_requested()).await.is_err(), "one is enough");
        }
        busy[2].activity.request_started();
        sleep(STALLED_AFTER).await;
        assert!(!waiting.is_finished(), "all responses are in progress");
        busy[2].activity.close_requested().await;
        let [_, second, _] = busy;
        drop(second);
        let _place = waiting.await.unwrap();
        assert_eq!(limit.active().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_the_limit() {
        let limit = three();
        let mut kept = Vec::new();
        for _ in 0..10 {
            kept.push(limit.take().await);
            assert!(limit.active().len() <= 3);
        }
        drop(kept);
        assert!(limit.active().is_empty());
    }
}
