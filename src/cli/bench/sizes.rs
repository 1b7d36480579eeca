//! How long and how large scenarios are.

use clap::Args;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sizes")]
pub struct Sizes {
    /// Seconds a timed scenario runs.
    #[arg(long, global = true, default_value_t = 15, value_name = "S")]
    pub seconds: u64,
    /// Seconds the old snapshot is held in `pinned`; at least 12, so that its first and last sixth say something.
    #[arg(long, global = true, default_value_t = 120, value_name = "S", value_parser = clap::value_parser!(u64).range(12..))]
    pub pinned_seconds: u64,
    /// Deliveries drained.
    #[arg(long, global = true, default_value_t = 200_000, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub deliveries: i64,
    /// Settled deliveries lying in the tables in `history`, waiting in `delayed`, pending in `backlog`, dead in `redrive`:
    /// each its own default when not given (1M, 1M, 2M, 100k).
    #[arg(long, global = true, value_name = "N")]
    pub rows: Option<i64>,
    /// Messages of the flood.
    #[arg(long, global = true, default_value_t = 500_000, value_name = "N")]
    pub flood: u64,
    /// Messages in `webhook`, each with three events.
    #[arg(long, global = true, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(200..))]
    pub webhook_messages: u64,
}
