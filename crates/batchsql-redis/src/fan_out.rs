//! Owns running a few futures concurrently and collecting their results.
//! Must not know what they do.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

pub(crate) type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Delay between the starts of two attempts: a server that answers within it is the only one that is queried.
const STAGGER_INTERVAL: Duration = Duration::from_millis(100);

/// Delay of the attempt number `turn`; at most a quarter of the limit, so that the last attempt has most of the time.
pub(crate) fn stagger_delay(turn: usize, limit: Duration) -> Duration {
    let turns = u32::try_from(turn).unwrap_or(u32::MAX);
    STAGGER_INTERVAL.saturating_mul(turns).min(limit / 4)
}

/// The results in the order in which they complete.
pub(crate) async fn join_all<T>(tasks: Vec<Task<'_, T>>) -> Vec<T> {
    let mut results = Vec::with_capacity(tasks.len());
    drive(tasks, |result| {
        results.push(result);
        None::<()>
    })
    .await;
    results
}

/// Returns the first success and drops the other tasks, or returns every error, in the order of completion.
pub(crate) async fn first_ok<T, E>(tasks: Vec<Task<'_, Result<T, E>>>) -> Result<T, Vec<E>> {
    let mut errors = Vec::new();
    let found = drive(tasks, |result| match result {
        Ok(found) => Some(found),
        Err(error) => {
            errors.push(error);
            None
        }
    });
    found.await.ok_or(errors)
}

/// Runs the tasks until `take` returns a value for a result, or none is left.
async fn drive<T, F>(mut tasks: Vec<Task<'_, T>>, mut take: impl FnMut(T) -> Option<F>) -> Option<F> {
    poll_fn(|context| {
        let mut found = None;
        tasks.retain_mut(|task| {
            if found.is_some() {
                return true;
            }
            match task.as_mut().poll(context) {
                Poll::Ready(result) => {
                    found = take(result);
                    false
                }
                Poll::Pending => true,
            }
        });
        if found.is_some() || tasks.is_empty() { Poll::Ready(found) } else { Poll::Pending }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after<T: Send + 'static>(millis: u64, result: T) -> Task<'static, T> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            result
        })
    }

    #[tokio::test(start_paused = true)]
    async fn all_run_at_the_same_time() {
        let begin = tokio::time::Instant::now();
        assert_eq!(join_all(vec![after(300, 'c'), after(100, 'a'), after(200, 'b')]).await, ['a', 'b', 'c']);
        assert_eq!(begin.elapsed(), Duration::from_millis(300));
        assert_eq!(join_all(Vec::<Task<'_, ()>>::new()).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_success_counts_and_every_failure_is_returned() {
        let tasks = vec![after(100, Err("a")), after(300, Ok(1)), after(200, Ok(2))];
        assert_eq!(first_ok(tasks).await, Ok(2));
        assert_eq!(first_ok(vec![after(200, Err::<(), _>("b")), after(100, Err("a"))]).await, Err(vec!["a", "b"]));
        assert_eq!(first_ok(Vec::<Task<'_, Result<(), ()>>>::new()).await, Err(vec![]));
    }

    #[test]
    fn the_last_server_has_most_of_the_time() {
        assert_eq!(stagger_delay(0, Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(stagger_delay(2, Duration::from_secs(1)), Duration::from_millis(200));
        assert_eq!(stagger_delay(usize::MAX, Duration::from_secs(1)), Duration::from_millis(250));
    }
}
