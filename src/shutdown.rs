//! The one place that starts tasks and ends them.
//!
//! Stopping has two steps. *Stop* tells every loop to take nothing new. *Drained* is when the last task has ended: a
//! provider call in flight is finished and settled, never dropped, because a dropped call is an unknown outcome and a
//! dropped query future can poison its connection.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

#[derive(Clone, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Starts a task that is waited for when the process stops.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Does what takes long without waiting, on a thread of its own.
    pub async fn compute<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.tasks.spawn_blocking(task).await.map_err(|e| Error::Internal(format!("a computation failed: {e}")))
    }

    /// Tells every loop to take nothing new. Idempotent.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves once `stop` was called.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until every task has ended; false when `grace` passed first.
    pub async fn drained(&self, grace: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }

    /// Sleeps unless the process begins to stop; false then.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            () = self.stop.cancelled() => false,
        }
    }
}

/// Resolves at SIGTERM or SIGINT.
pub async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the default disposition ends the process, which is what was asked for.
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => (), _ = int.recv() => () }
}

/// A named step at which a test may have this process die as it would by `kill -9`: no destructor runs, nothing is flushed.
/// Only in a program that was built for tests, and only where `FAILPOINTS` names the step.
pub fn may_die_at(step: &'static str) {
    fail::fail_point!(step, |_| std::process::abort());
    // Without fail points there is nothing to name.
    let _named = step;
}

/// The same, where `FAILPOINTS` names what has to be held, as `return(WHAT)`.
pub fn may_die_holding(step: &'static str, is_held: impl Fn(&str) -> bool) {
    fail::fail_point!(step, |what: Option<String>| {
        if what.is_some_and(|what| is_held(&what)) {
            std::process::abort()
        }
    });
    // Without fail points there is nothing to hold.
    let _named = (step, is_held);
}

/// Reads `FAILPOINTS`, for as long as what it returns lives.
pub fn steps_to_die_at() -> Option<fail::FailScenario<'static>> {
    fail::has_failpoints().then(fail::FailScenario::setup)
}
