//! The locks of this process's state: held briefly, never over an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a state, poisoned or not: none of the states kept in this folder has a step in between that a panic could
/// leave behind.
pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
