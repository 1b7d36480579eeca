//! `notihub bench`: what this hub does on this machine, scenario by scenario, with durability on and `fsck` at the end.

mod child;
mod compare;
mod drain;
mod drainer;
mod endpoint;
mod faults;
mod flood;
mod floor;
mod hang;
mod helper;
mod intake;
pub mod judge;
mod latency;
mod listen;
mod live;
mod live_fault;
mod load;
mod report;
mod room_bed;
mod rooms;
mod run;
mod sizes;
mod stomp;
mod talk;
mod testbed;
mod webhook;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Output;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::model::delivery::Status;
use crate::telemetry;

use run::Run;
use sizes::Sizes;

const AFTER_HELP: &str = "\
Each scenario makes a database of its own, on a private PostgreSQL or beside the one that --database-url names, and \
drops it afterwards. Sizes are flags; the defaults take about a minute each on two cores. Settings of the hub stand \
before the scenario. A goal that is missed is a figure like another: exit code 0.

Examples:
  notihub bench drain
  notihub bench history --rows 10000000
  notihub bench all --output json > figures.jsonl
  notihub bench --seconds 6 compare ./notihub-before drain intake";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
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
    /// Intake and drain while another session holds an old snapshot.
    Pinned,
    /// `drain` beside scheduled deliveries.
    Delayed,
    /// One partner posts a flood, a hundred others post one message a second each: what the others wait.
    Flood,
    /// A partner with the default limit, offered three times as much by two API processes: what passes.
    Limit,
    /// Messages of a partner whose endpoint subscribes to all events: how fast events arrive, and what that costs
    /// intake and drain.
    Webhook,
    /// One partner's endpoint never answers, with 1,000 events waiting: what another's waits.
    Tarpit,
    /// A channel's only provider takes requests and never answers, with 3,000 waiting: what another channel's wait.
    Hang,
    /// Dead letters are redriven at 2,000 a second: what new messages wait meanwhile.
    Redrive,
    /// Memory of a process that idles.
    Idle,
    /// Messages to the inboxes of many users: items a second, and posted → on an open stream.
    Inbox,
    /// Open streams and STOMP connections on which nothing happens: memory and CPU.
    Connections,
    /// Streams that are cut at once and have missed 20 items each: until all are whole.
    Resume,
    /// Messages over STOMP, each with its receipt: 64 and 16 connections over many rooms, 64 in one.
    Send,
    /// Messages to a room of 500 listeners, then to 50 rooms of 100, faster and faster until they come late.
    FanOut,
    /// 200 messages a second, sent → received by another user, in one process and across two.
    LiveLatency,
    /// `send` while another session holds an old snapshot.
    RoomsPinned,
    /// `send` with older messages of rooms lying in the tables.
    RoomsHistory,
    /// Faults under load, each judged by ledgers on both sides.
    ///
    /// Workers and PostgreSQL killed, stopped and stalled, a killed API, cut answers, storms, throttling, greylisting,
    /// locks, an endpoint that flaps or demands order; and a room (`live`) whose processes, PostgreSQL and listening
    /// connections are killed while it is written to. A judge compares what clients were told with the database and
    /// with what the provider and the endpoint received. Each fault is run a second time with its defence turned off,
    /// where the judge must object. Exit code 1 otherwise.
    Faults {
        /// Only these; without, all.
        #[arg(value_parser = faults::NAMES)]
        names: Vec<String>,
    },
    /// All of them, but `faults`, each in a process of its own.
    All {
        /// Minutes after which a scenario is killed; the next one begins then.
        #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        bound_minutes: u64,
    },
    /// This program and another one in turns, scenario by scenario: pairs, their ratios, the spread of the ratios.
    ///
    /// Settings and sizes go to both programs. Both run on one server; each run makes a database of its own.
    Compare(compare::Compare),
    /// The load generator, a process of its own.
    #[command(hide = true)]
    Load(load::Load),
    /// The readers of inboxes, a process of its own.
    #[command(hide = true)]
    Listen(listen::Listen),
    /// The users of rooms, a process of its own.
    #[command(hide = true)]
    Talk,
    /// A worker process with the provider that does nothing.
    #[command(hide = true)]
    Drainer,
}

/// Runs `notihub bench`. Returns the exit code: 1 when a promise was broken or a scenario did not end, otherwise 0.
///
/// # Errors
/// `Error::Setup` for settings or a server that does not start; the scenario's own error otherwise.
pub async fn run(args: Bench, output: Output) -> Result<u8> {
    if let Scenario::Load(load) = &args.scenario {
        return load::run(load).await;
    }
    if let Scenario::Listen(listen) = &args.scenario {
        return listen::run(listen).await;
    }
    if args.scenario == Scenario::Talk {
        return talk::run().await;
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
    let ground = testbed::BenchServer::prepare(&settings).await?;
    let result = match &args.scenario {
        Scenario::Faults { names } => all_faults(names, &settings, &args.sizes, &ground, output).await,
        Scenario::All { bound_minutes } => all(ground.url(), output, Duration::from_secs(bound_minutes * 60)).await,
        Scenario::Compare(compare) => compare::run(compare, ground.url(), output).await.map(|()| true),
        scenario => {
            let mut run = Run::new(&settings, &args.sizes, &ground, output);
            run_one(scenario, &mut run).await.map(|()| true)
        }
    };
    ground.stop().await;
    // A missed speed is a figure; a broken promise is a failure.
    Ok(u8::from(!result?))
}

/// Runs the named faults, or all: those of messages, and the one of rooms.
async fn all_faults(
    names: &[String],
    settings: &Settings,
    sizes: &Sizes,
    ground: &testbed::BenchServer,
    output: Output,
) -> Result<bool> {
    let is_live = |name: &String| name == faults::LIVE;
    let mut kept = true;
    if names.is_empty() || !names.iter().all(is_live) {
        kept &= faults::run(names, settings, sizes, ground, output).await?;
    }
    if names.is_empty() || names.iter().any(is_live) {
        kept &= live_fault::run(settings, sizes, ground, output).await?;
    }
    Ok(kept)
}

/// All scenarios but `faults`, in the order `all` runs them, by the names of their commands.
const ALL: [&str; 24] = [
    "idle",
    "intake",
    "intake-batch",
    "drain",
    "latency",
    "steady",
    "history",
    "backlog",
    "delayed",
    "pinned",
    "flood",
    "limit",
    "webhook",
    "tarpit",
    "hang",
    "redrive",
    "inbox",
    "connections",
    "resume",
    "send",
    "fan-out",
    "live-latency",
    "rooms-pinned",
    "rooms-history",
];

/// Runs each scenario in a process of its own, on one server. Returns whether each ended well within `bound`: one that
/// does not is killed, and the others go on.
async fn all(url: &str, output: Output, bound: Duration) -> Result<bool> {
    let program = std::env::current_exe().map_err(|e| Error::Internal(format!("this program's path: {e}")))?;
    let flags = child::arguments_without("all");
    let mut failed = Vec::new();
    for (n, scenario) in ALL.into_iter().enumerate() {
        let busy = child::machine_busy().await;
        anstream::eprintln!("{scenario}: {} of {}; other processes use {busy:.0} % of one core", n + 1, ALL.len());
        let args: Vec<_> = flags.iter().cloned().chain([scenario.into()]).collect();
        if !child::run(program.as_os_str(), &args, url, output, bound).await? {
            failed.push(scenario);
        }
    }
    if !failed.is_empty() {
        anstream::eprintln!("failed, or did not end within {} minutes: {}", bound.as_secs() / 60, failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// Runs one scenario and prints its figures.
async fn run_one(scenario: &Scenario, run: &mut Run<'_>) -> Result<()> {
    match scenario {
        Scenario::Idle => intake::idle(run).await?,
        Scenario::Intake => intake::intake(run).await?,
        Scenario::IntakeBatch => intake::intake_batch(run).await?,
        Scenario::Drain => drain::drain(run).await?,
        Scenario::Latency => latency::latency(run).await?,
        Scenario::Steady => latency::steady(run).await?,
        Scenario::History => drain::beside(run, "history", Status::Sent, 1_000_000).await?,
        Scenario::Backlog => drain::backlog(run).await?,
        Scenario::Delayed => drain::beside(run, "delayed", Status::Scheduled, 1_000_000).await?,
        Scenario::Pinned => latency::pinned(run).await?,
        Scenario::Flood => flood::flood(run).await?,
        Scenario::Limit => intake::limit(run).await?,
        Scenario::Webhook => webhook::webhook(run).await?,
        Scenario::Tarpit => webhook::tarpit(run).await?,
        Scenario::Hang => hang::hang(run).await?,
        Scenario::Redrive => webhook::redrive(run).await?,
        Scenario::Inbox => live::inbox(run).await?,
        Scenario::Connections => live::connections(run).await?,
        Scenario::Resume => live::resume(run).await?,
        Scenario::Send => rooms::send(run).await?,
        Scenario::FanOut => rooms::fan_out(run).await?,
        Scenario::LiveLatency => rooms::live_latency(run).await?,
        Scenario::RoomsPinned => rooms::pinned(run).await?,
        Scenario::RoomsHistory => rooms::history(run).await?,
        Scenario::Faults { .. }
        | Scenario::All { .. }
        | Scenario::Compare(_)
        | Scenario::Load(_)
        | Scenario::Listen(_)
        | Scenario::Talk
        | Scenario::Drainer => (),
    }
    run.told();
    Ok(())
}
