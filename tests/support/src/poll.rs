//! Waiting for what no one announces: look, and look again, until a deadline.

use std::time::{Duration, Instant};

/// Between two looks.
pub const STEP: Duration = Duration::from_millis(25);

/// Looks until there is an answer; none once `timeout` is over.
pub async fn until<T>(timeout: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(answer) = look().await {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(STEP).await;
    }
}
