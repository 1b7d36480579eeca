//! Settings of rooms.

use clap::Args;

/// Settings of rooms.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rooms")]
pub struct Rooms {
    /// Concurrent transactions that store messages of rooms. A room always goes to the same one; while it runs, further
    /// messages are collected and stored together in the next.
    #[arg(
        long,
        env = "NOTIHUB_CHAT_WRITERS",
        default_value_t = 2,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=16)
    )]
    pub chat_writers: u16,
    /// Messages that a user may write in a second, at each process, with bursts of twice as many.
    #[arg(
        long,
        env = "NOTIHUB_USER_SENDS",
        default_value_t = 10,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub user_sends: u32,
    /// Messages that may be written in a room in a second, at each process, with bursts of twice as many.
    #[arg(
        long,
        env = "NOTIHUB_ROOM_SENDS",
        default_value_t = 100,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub room_sends: u32,
    /// Hours for which a message can be edited by its sender.
    #[arg(
        long,
        env = "NOTIHUB_EDIT_WINDOW_HOURS",
        default_value_t = 24,
        value_name = "HOURS",
        value_parser = clap::value_parser!(u32).range(0..=87_600)
    )]
    pub edit_window_hours: u32,
}
