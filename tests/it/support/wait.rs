//! Waiting for a condition, asked again and again.

use std::time::Duration;

/// How long a condition is waited for before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer.
pub async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until it is so.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    wait_for(what, async || so().await.then_some(())).await;
}
