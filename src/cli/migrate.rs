//! `notihub migrate`.

use chrono::TimeDelta;
use clap::Args;

use super::{Output, print, process};
use crate::clock::Clock;
use crate::config::{Database, Log};
use crate::error::Result;
use crate::store::partition;
use crate::telemetry;

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
    /// Only say what is missing; exit 1 if anything is.
    #[arg(long)]
    check: bool,
}

pub async fn run(args: Migrate, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let url = process::database_url(&args.database)?;
    let store = match args.check {
        true => process::reading_store(&args.database, &url).await?,
        false => process::proven_store(&args.database, &url).await?,
    };
    let missing = store.migrations_missing().await?;
    let mut made = 0;
    if !args.check {
        store.migrate().await?;
        let now = Clock::system().now();
        let oldest = now - TimeDelta::days(i64::from(args.database.retention_days));
        made = partition::maintain(&store, now, oldest).await?.made.len();
    }
    match output {
        Output::Json => print::json(&serde_json::json!({
            "missing": missing, "applied": if args.check { 0 } else { missing }, "partitionsMade": made
        })),
        Output::Text if missing == 0 => anstream::println!("the schema is up to date"),
        Output::Text if args.check => anstream::println!("{missing} migrations are missing: run `notihub migrate`"),
        Output::Text => anstream::println!("{missing} migrations applied, {made} partitions made"),
    }
    Ok(u8::from(args.check && missing > 0))
}
