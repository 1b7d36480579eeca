//! Logs and metrics. Neither contains message content, addresses or secrets.

mod logs;
mod metrics;

pub use logs::start_logs;
pub use metrics::{MetricDescription, Metrics, observe};
