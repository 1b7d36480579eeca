//! The only place that starts tasks and waits for their end.
//!
//! Stopping has two steps. `stop` makes every loop take nothing new. `drained` waits until the last task has ended: a
//! provider call in flight is finished and settled, never dropped, because a dropped call has an unknown outcome and a
//! dropped query future can poison its connection.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Signal to stop, and the tasks to wait for; clones share both.
#[derive(Clone, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Makes a running one.
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// Starts a task; `drained` waits for its end.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Runs a computation that takes long on a thread of its own, so that it blocks no async task.
    ///
    /// # Errors
    /// `Error::Internal` if the computation panicked.
    pub async fn compute<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.tasks.spawn_blocking(task).await.map_err(|e| Error::Internal(format!("a computation failed: {e}")))
    }

    /// Makes every loop take nothing new. Idempotent.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns whether `stop` was called.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves once `stop` was called.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until every task has ended; returns false if `grace` passed first.
    pub async fn drained(&self, grace: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }

    /// Sleeps; returns false at once when `stop` is called.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            () = self.stop.cancelled() => false,
        }
    }
}

/// Resolves at SIGTERM or SIGINT. If no handler can be installed it never resolves, and the signal ends the process.
pub async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the default disposition ends the process.
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => (), _ = int.recv() => () }
}

/// A named step at which a test can abort this process like `kill -9`: no destructor runs, nothing is flushed. Only in
/// a program built with fail points, and only if `FAILPOINTS` names the step.
pub fn may_die_at(step: &'static str) {
    fail::fail_point!(step, |_| std::process::abort());
    // Used only with fail points.
    let _named = step;
}

/// Like `may_die_at`, but only if `is_held` is true for the WHAT in `FAILPOINTS=step=return(WHAT)`.
pub fn may_die_holding(step: &'static str, is_held: impl Fn(&str) -> bool) {
    fail::fail_point!(step, |what: Option<String>| {
        if what.is_some_and(|what| is_held(&what)) {
            std::process::abort()
        }
    });
    // Used only with fail points.
    let _named = (step, is_held);
}

/// The VALUE of `FAILPOINTS=defect=return(VALUE)`, by which a test switches on a defect to see that its check finds it.
/// None in a program built without fail points.
pub fn seeded_defect(defect: &'static str) -> Option<String> {
    fail::fail_point!(defect, |value: Option<String>| value);
    // Used only with fail points.
    let _named = defect;
    None
}

/// Applies `FAILPOINTS` while the returned guard lives; None in a program built without fail points.
pub fn steps_to_die_at() -> Option<fail::FailScenario<'static>> {
    fail::has_failpoints().then(fail::FailScenario::setup)
}
