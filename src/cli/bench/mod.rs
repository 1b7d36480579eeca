//! `notihub bench`: what this hub does on this machine, scenario by scenario, with durability on and `fsck` at the end.

mod bed;
mod drainer;
mod endpoint;
mod faults;
mod floor;
mod hang;
pub mod judge;
mod load;
mod report;
mod scenario;
mod webhook;

use clap::{Args, Subcommand};

use super::Output;
use crate::config::Settings;
use crate::error::Result;
use crate::telemetry;

#[derive(Debug, Args)]
#[command(
    after_help = "Each scenario makes a database of its own, on a private PostgreSQL or beside the one --database-url \
names, and drops it afterwards. Sizes are flags; the defaults take about a minute each on two cores. Settings of the hub go \
before the scenario. A goal that is missed is a figure like another: exit code 0.\n\nExamples:\n  notihub \
bench drain\n  notihub bench history --rows 10000000\n  notihub bench all --output json > figures.jsonl"
)]
pub struct Bench {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    sizes: Sizes,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sizes")]
pub struct Sizes {
    /// Seconds a timed scenario runs.
    #[arg(long, global = true, default_value_t = 15, value_name = "S")]
    seconds: u64,
    /// Seconds the old snapshot is held in `pinned`; at least 12, so that its first and last sixth say something.
    #[arg(long, global = true, default_value_t = 120, value_name = "S", value_parser = clap::value_parser!(u64).range(12..))]
    pinned_seconds: u64,
    /// Deliveries drained.
    #[arg(long, global = true, default_value_t = 200_000, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    deliveries: i64,
    /// Settled deliveries lying in the tables in `history`, waiting in `delayed`, pending in `backlog`, dead in `redrive`:
    /// each its own default when not given (1M, 1M, 2M, 100k).
    #[arg(long, global = true, value_name = "N")]
    rows: Option<i64>,
    /// Messages of the flood.
    #[arg(long, global = true, default_value_t = 500_000, value_name = "N")]
    flood: u64,
    /// Messages in `webhook`, each with three events.
    #[arg(long, global = true, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(200..))]
    webhook_messages: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Scenario {
    /// HTTP POST, one message each, 1, 16 and 64 connections.
    Intake,
    /// HTTP POST in batches of 500.
    IntakeBatch,
    /// Pending deliveries, a provider that does nothing, one worker process.
    Drain,
    /// 20 messages a second, idle: accept answered → provider called, in one process and across two.
    Latency,
    /// Intake and drain together at 60 % of the lower.
    Steady,
    /// `drain` with settled deliveries lying in the tables.
    History,
    /// `drain` out of a large backlog.
    Backlog,
    /// Intake and drain while somebody holds an old snapshot.
    Pinned,
    /// `drain` beside scheduled deliveries.
    Delayed,
    /// One partner posts a flood, a hundred others post one message a second each: what the others wait.
    Flood,
    /// A partner with the default limit, offered three times as much by two API processes: what passes.
    Limit,
    /// Messages of a partner whose endpoint hears all: how fast events arrive, and what being heard costs intake and drain.
    Webhook,
    /// One partner's endpoint never answers, with 1,000 events waiting: what another's waits.
    Tarpit,
    /// A channel's only provider takes requests and never answers, with 3,000 waiting: what another channel's wait.
    Hang,
    /// Dead letters are redriven at 2,000 a second: what new messages wait meanwhile.
    Redrive,
    /// Memory of a process that idles.
    Idle,
    /// What breaks, breaks under load: workers and PostgreSQL killed, stopped and stalled, a killed API, cut answers, storms,
    /// throttling, greylisting, locks, an endpoint that flaps or wants order. A judge compares what clients were told with the database and with what the provider and the endpoint received, and every fault is run a second
    /// time with its defence turned off, where the judge must object. Exit code 1 when it is not so.
    Faults {
        /// Only these; without, all.
        #[arg(value_parser = faults::NAMES)]
        names: Vec<String>,
    },
    /// All of them, but `faults`.
    All,
    /// The load generator, a process of its own.
    #[command(hide = true)]
    Load(load::Load),
    /// A worker process with the provider that does nothing.
    #[command(hide = true)]
    Drainer,
}

pub async fn run(args: Bench, output: Output) -> Result<u8> {
    if let Scenario::Load(load) = &args.scenario {
        return load::run(load).await;
    }
    let mut settings = args.settings;
    if settings.log.log.starts_with("info,sqlx") {
        settings.log.log = "error".into();
    }
    telemetry::start_logs(&settings.log)?;
    settings.check()?;
    if args.scenario == Scenario::Drainer {
        return drainer::run(settings).await;
    }
    let ground = bed::Ground::prepare(&settings).await?;
    let result = match &args.scenario {
        Scenario::Faults { names } => faults::run(names, &settings, &args.sizes, &ground, output).await,
        scenario => scenario::run(scenario, &settings, &args.sizes, &ground, output).await.map(|()| true),
    };
    ground.leave().await;
    // A speed that is missed is told; a promise that is broken is a failure.
    Ok(u8::from(!result?))
}
