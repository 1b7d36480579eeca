//! The durations and sizes of scenarios.

use clap::Args;
use clap::builder::TypedValueParser as _;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sizes")]
pub struct Sizes {
    /// Seconds that a timed scenario runs.
    #[arg(long, global = true, default_value_t = 15, value_name = "S")]
    pub seconds: u64,
    /// Seconds for which `pinned` and `rooms-pinned` hold the old snapshot; at least 12, so that the first and last
    /// sixth are meaningful.
    #[arg(
        long,
        global = true,
        default_value_t = 120,
        value_name = "S",
        value_parser = clap::value_parser!(u64).range(12..)
    )]
    pub pinned_seconds: u64,
    /// The number of deliveries to drain.
    #[arg(
        long,
        global = true,
        default_value_t = 200_000,
        value_name = "N",
        value_parser = clap::value_parser!(i64).range(1..)
    )]
    pub deliveries: i64,
    /// The number of deliveries that are prepared: settled in `history` [default: 1M], scheduled in `delayed` [default:
    /// 1M], pending in `backlog` [default: 2M], dead letters in `redrive` [default: 100k]. Messages of rooms in
    /// `rooms-history` [default: 10M].
    #[arg(long, global = true, value_name = "N")]
    pub rows: Option<i64>,
    /// The number of messages of the flood.
    #[arg(long, global = true, default_value_t = 500_000, value_name = "N")]
    pub flood: u64,
    /// The number of messages in `webhook`, each with three events.
    #[arg(
        long,
        global = true,
        default_value_t = 10_000,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(200..)
    )]
    pub webhook_messages: u64,
    /// The number of users in `inbox`.
    #[arg(
        long,
        global = true,
        default_value_t = 100_000,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(500..).map(|n| n as usize)
    )]
    pub users: usize,
    /// The number of rooms in `send`, `rooms-pinned` and `rooms-history`.
    #[arg(
        long,
        global = true,
        default_value_t = 2_000,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000).map(|n| n as usize)
    )]
    pub rooms: usize,
    /// The number of open connections in `connections`, half of them STOMP, and of streams in `resume`, which has
    /// 5,000 at most.
    #[arg(
        long,
        global = true,
        default_value_t = 8_000,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(100..=100_000).map(|n| n as usize)
    )]
    pub streams: usize,
}
