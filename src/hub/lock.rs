//! Locks of this process's state: held briefly, never across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a state, poisoned or not: no state in this folder passes through an inconsistent step that a panic could leave
/// behind.
pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
