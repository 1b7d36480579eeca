//! Maintenance: erasure, statistics, the ledger and alerts.

mod alert;
mod erase;
mod ledger;
mod stats;
