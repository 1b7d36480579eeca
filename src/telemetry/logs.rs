//! The log.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};
use crate::error::{Error, Result};

/// Starts logging to standard error: text on a terminal, JSON otherwise.
///
/// # Errors
/// `Error::Usage` if `--log` cannot be parsed; `Error::Internal` if logging was started before.
pub fn start_logs(log: &Log) -> Result<()> {
    let targets: Targets =
        log.log.parse().map_err(|e| Error::Usage(format!("--log: {e}; write a level, or module=level with commas")))?;
    // sqlx logs each refused session as an error; `store::session` logs the first of a series.
    let targets = targets.with_target("sqlx_core::pool::inner", tracing::level_filters::LevelFilter::OFF);
    let terminal = std::io::stderr().is_terminal();
    let format = log.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => registry.with(layer.with_ansi(terminal).with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init(),
    };
    started.map_err(|e| Error::Internal(format!("logging was started twice: {e}")))
}
