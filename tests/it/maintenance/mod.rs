//! Maintenance: erasure, statistics and alerts.

mod alert;
mod erase;
mod stats;
