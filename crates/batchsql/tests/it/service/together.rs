//! Owns the checks of how the tasks of the example service end together, which no test from outside can cause.
//! Must not know the service.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::tasks::join;

/// Ends some time after `stop` is set.
async fn waits(mut stop: watch::Receiver<bool>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stop.wait_for(|stop| *stop).await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(())
}

#[tokio::test]
async fn they_run_until_they_are_told_to_stop() {
    let stop = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(waits(stop.subscribe()));
    // A task that has nothing to do ends no other task.
    tasks.spawn(async { Ok(()) });
    let early = tokio::time::timeout(Duration::from_millis(100), join(tasks, &stop)).await;
    assert!(early.is_err(), "they were not told to stop");

    let mut tasks = JoinSet::new();
    tasks.spawn(waits(stop.subscribe()));
    stop.send_replace(true);
    join(tasks, &stop).await.unwrap();
}

#[tokio::test]
async fn the_first_that_fails_ends_the_others_and_is_told() {
    let stop = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    let mut told = stop.subscribe();
    tasks.spawn(waits(stop.subscribe()));
    tasks.spawn(async { Err("the first".into()) });
    tasks.spawn(async move {
        told.wait_for(|stop| *stop).await?;
        Err("the second".into())
    });
    let error = join(tasks, &stop).await.unwrap_err();
    assert_eq!(error.to_string(), "the first");
}

#[tokio::test]
async fn a_panic_is_a_failure() {
    let stop = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(waits(stop.subscribe()));
    tasks.spawn(async { panic!("on purpose") });
    assert!(join(tasks, &stop).await.unwrap_err().to_string().contains("panicked"));
}
