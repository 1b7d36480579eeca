//! One loop for all: run, wait, again. A failed run is told once and tried again after a growing pause; nothing ends a
//! loop but the process's stop, and a run that has begun is finished.

use std::future::Future;
use std::time::Duration;

use crate::error::Result;
use crate::hub::Hub;

#[derive(Debug, Clone, Copy)]
pub struct Repeat {
    every: Duration,
}

impl Repeat {
    pub fn every(every: Duration) -> Repeat {
        Repeat { every }
    }
}

/// Repeats `run`, at once when it says there is more, else after the period, give or take a tenth so that processes
/// started together do not stay together.
pub fn repeat<F, R>(hub: &Hub, name: &'static str, repeat: Repeat, mut run: F)
where
    F: FnMut(Hub) -> R + Send + 'static,
    R: Future<Output = Result<bool>> + Send + 'static,
{
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        let mut failures: u32 = 0;
        loop {
            let pause = match run(hub.clone()).await {
                Ok(more) => {
                    if failures > 0 {
                        tracing::info!(name, failures, "works again");
                    }
                    failures = 0;
                    if more { Duration::ZERO } else { repeat.every }
                }
                Err(e) => {
                    if failures == 0 {
                        tracing::warn!(name, error = %e, "failed; it is tried again");
                    }
                    failures += 1;
                    Duration::from_millis(100 << failures.min(6)).min(repeat.every.max(Duration::from_secs(1)))
                }
            };
            let jittered = pause.mul_f64(0.9 + 0.2 * rand::random::<f64>());
            if !hub.shutdown.sleep(jittered).await {
                return;
            }
        }
    });
}
