//! Tail of a small queue table: where this process begins to read it.
//!
//! Rows are appended and soon deleted. While an old snapshot lives, vacuum cannot remove the dead ones, and a read from
//! the beginning takes longer with each batch. Then most reads begin where the last one ended: vacuum frees no place
//! before that, so new rows come after it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock::lock;
use crate::error::Result;

/// A read from the beginning that takes no longer than this is cheap: the next one begins there too.
const CHEAP: Duration = Duration::from_millis(10);
/// Of a read from the beginning that is not cheap, the next is this many times its duration later, but not later than
/// `AT_LATEST`. It finds rows that were committed late, or written to places that became free again.
const PAUSE_FACTOR: u32 = 20;
const AT_LATEST: Duration = Duration::from_secs(30);

/// The position `P` of the last row read, and when to read from the beginning again.
pub struct Tail<P>(Mutex<State<P>>);

struct State<P> {
    last: Option<P>,
    /// None: now.
    from_beginning_at: Option<Instant>,
}

impl<P> Default for Tail<P> {
    fn default() -> Tail<P> {
        Tail(Mutex::new(State { last: None, from_beginning_at: None }))
    }
}

impl<P: Copy> Tail<P> {
    /// Runs a statement that reads from the given position on (None: from the beginning), and returns its rows and the
    /// position of the last one, if there is one.
    ///
    /// # Errors
    /// Those of the statement; the position stays then.
    pub async fn read<T>(&self, statement: impl AsyncFnOnce(Option<P>) -> Result<(T, Option<P>)>) -> Result<T> {
        let began = Instant::now();
        let from = lock(&self.0).start(began);
        let (rows, last) = statement(from).await?;
        lock(&self.0).record(from.is_none(), last, began.elapsed(), Instant::now());
        Ok(rows)
    }
}

impl<P: Copy> State<P> {
    fn start(&self, now: Instant) -> Option<P> {
        self.last.filter(|_| self.from_beginning_at.is_some_and(|at| now < at))
    }

    fn record(&mut self, from_beginning: bool, last: Option<P>, took: Duration, now: Instant) {
        self.last = last.or(self.last);
        if from_beginning {
            self.from_beginning_at = (took > CHEAP).then(|| now + (took * PAUSE_FACTOR).min(AT_LATEST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads begin at the beginning while that is cheap, and after a dear one at the last row for a while.
    #[test]
    fn read_begins_at_the_last_row_after_a_dear_one() {
        let (mut state, now) = (State::<i64> { last: None, from_beginning_at: None }, Instant::now());
        assert_eq!(state.start(now), None);
        state.record(true, Some(7), CHEAP, now);
        assert_eq!(state.start(now), None);
        state.record(true, Some(8), CHEAP * 2, now);
        assert_eq!(state.start(now), Some(8));
        state.record(false, None, CHEAP * 9, now);
        assert_eq!(state.start(now), Some(8));
        state.record(false, Some(9), CHEAP, now);
        assert_eq!(state.start(now), Some(9));
        assert_eq!(state.start(now + CHEAP * 2 * PAUSE_FACTOR), None);
        state.record(true, None, Duration::from_secs(60), now);
        assert_eq!(state.start(now + AT_LATEST - CHEAP), Some(9));
        assert_eq!(state.start(now + AT_LATEST), None);
    }
}
