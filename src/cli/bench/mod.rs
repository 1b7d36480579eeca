//! `notihub bench`: what this hub does on this machine, scenario by scenario, with durability on and `fsck` at the end.

mod bed;
mod drain;
mod drainer;
mod endpoint;
mod faults;
mod flood;
mod floor;
mod hang;
mod intake;
pub mod judge;
mod latency;
mod load;
mod report;
mod run;
mod sizes;
mod webhook;

use clap::{Args, Subcommand};

use super::Output;
use crate::config::Settings;
use crate::error::Result;
use crate::model::delivery::Status;
use crate::telemetry;

use run::Run;
use sizes::Sizes;

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
        scenario => {
            let mut run = Run::new(&settings, &args.sizes, &ground, output);
            scenarios(scenario, &mut run).await.map(|()| true)
        }
    };
    ground.leave().await;
    // A speed that is missed is told; a promise that is broken is a failure.
    Ok(u8::from(!result?))
}

/// Runs one scenario, or all one after the other. Figures are printed as each ends: a later one that fails must not
/// take them along.
async fn scenarios(which: &Scenario, run: &mut Run<'_>) -> Result<()> {
    let is = |scenario: Scenario| *which == Scenario::All || *which == scenario;
    if is(Scenario::Idle) {
        intake::idle(run).await?;
        run.told();
    }
    if is(Scenario::Intake) {
        intake::intake(run).await?;
        run.told();
    }
    if is(Scenario::IntakeBatch) {
        intake::intake_batch(run).await?;
        run.told();
    }
    if is(Scenario::Drain) {
        drain::drain(run).await?;
        run.told();
    }
    if is(Scenario::Latency) {
        latency::latency(run).await?;
        run.told();
    }
    if is(Scenario::Steady) {
        latency::steady(run).await?;
        run.told();
    }
    if is(Scenario::History) {
        drain::beside(run, "history", Status::Sent, 1_000_000).await?;
        run.told();
    }
    if is(Scenario::Backlog) {
        drain::backlog(run).await?;
        run.told();
    }
    if is(Scenario::Delayed) {
        drain::beside(run, "delayed", Status::Scheduled, 1_000_000).await?;
        run.told();
    }
    if is(Scenario::Pinned) {
        latency::pinned(run).await?;
        run.told();
    }
    if is(Scenario::Flood) {
        flood::flood(run).await?;
        run.told();
    }
    if is(Scenario::Limit) {
        intake::limit(run).await?;
        run.told();
    }
    if is(Scenario::Webhook) {
        webhook::webhook(run).await?;
        run.told();
    }
    if is(Scenario::Tarpit) {
        webhook::tarpit(run).await?;
        run.told();
    }
    if is(Scenario::Hang) {
        hang::hang(run).await?;
        run.told();
    }
    if is(Scenario::Redrive) {
        webhook::redrive(run).await?;
        run.told();
    }
    Ok(())
}
