//! The periodic loop that all background work uses. The first failure in a row is logged, and failed runs are tried
//! again after a growing pause. A loop ends only when the process stops, and never in the middle of a run.

use std::future::Future;
use std::time::Duration;

use crate::error::Result;
use crate::hub::Hub;

/// The pause between two runs of a loop.
#[derive(Debug, Clone, Copy)]
pub struct Period {
    every: Duration,
}

impl Period {
    /// Makes a period of this length.
    pub fn every(every: Duration) -> Period {
        Period { every }
    }
}

/// Starts a task that repeats `run` until the process stops: at once if `run` returns true ("there is more"), otherwise
/// after the period. The pause varies by a tenth, so that processes started together drift apart. After a failure the
/// pause grows from 200 ms to 6.4 s, but not above the period (or one second, if that is more). `name` is for the log.
///
/// # Errors
/// None: a failed run is logged when it is the first in a row, and tried again.
pub fn repeat<F, R>(hub: &Hub, name: &'static str, repeat: Period, mut run: F)
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
                        tracing::info!(name, failures, "the background loop works again");
                    }
                    failures = 0;
                    if more { Duration::ZERO } else { repeat.every }
                }
                Err(e) => {
                    if failures == 0 {
                        tracing::warn!(name, error = %e, "the background loop failed; it is tried again");
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
