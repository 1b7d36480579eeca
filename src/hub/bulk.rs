//! Bulk work: statements with hundreds of rows, of batches and of overflow lanes. Each keeps a core of the database
//! busy for milliseconds, and single messages would wait behind many at once.

use std::sync::Mutex;
use std::time::Instant;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::lock::lock;
use crate::limits;

/// Lets only a few bulk statements of this process run at once while single messages come.
pub struct Bulk {
    turns: Semaphore,
    /// When a single message was last accepted, or one was claimed from a prompt lane.
    prompt_at: Mutex<Option<Instant>>,
}

impl Default for Bulk {
    /// Half as many turns as this machine has cores: the database's may be others, but seldom fewer.
    fn default() -> Bulk {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Bulk { turns: Semaphore::new((cores / 2).max(1)), prompt_at: Mutex::default() }
    }
}

impl Bulk {
    /// Notes that prompt work was done.
    pub fn note_prompt(&self) {
        *lock(&self.prompt_at) = Some(Instant::now());
    }

    /// Whether prompt work was done within `limits::OTHERS_FOR`.
    pub fn prompt_is_busy(&self) -> bool {
        lock(&self.prompt_at).is_some_and(|at| at.elapsed() < limits::OTHERS_FOR)
    }

    /// Waits for the turn of one bulk statement. None: prompt lanes are idle and it needs none, or it has waited for
    /// `limits::BULK_TURN`. One that waits for a lock must not hold up all others.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if !self.prompt_is_busy() {
            return None;
        }
        tokio::time::timeout(limits::BULK_TURN, self.turns.acquire()).await.ok()?.ok()
    }
}
