//! `notihub serve` and `notihub work`: the API and the workers, each on any host, with one database.

use clap::Args;

use super::{Output, print, process};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::flow;
use crate::hub::Hub;
use crate::model::crontab::Crontab;
use crate::shutdown::{Shutdown, signalled};
use crate::telemetry;
use crate::worker::{self, Role};

#[derive(Debug, Args)]
pub struct Serve {
    // Before the settings, whose last heading would otherwise apply to it.
    /// Run a worker in this process as well.
    #[arg(long, env = "NOTIHUB_SERVE_WORK")]
    work: bool,
    #[command(flatten)]
    settings: Settings,
}

// A group name of its own, because the settings contain a group called Work.
#[derive(Debug, Args)]
#[group(id = "work_command")]
#[command(
    after_help = "From cron:\n  * * * * * notihub work --once\n\nWith its own schedule (seconds are optional):\n  \
notihub work --cron '*/10 * * * * *'"
)]
pub struct Work {
    // These flags come before the settings, whose last heading would otherwise apply to them.
    /// Send the deliveries that are due now, and exit.
    #[arg(long, conflicts_with = "cron")]
    once: bool,
    /// Send due deliveries on this schedule, in UTC: minute, hour, day, month and weekday (0 and 7 are Sunday), or six
    /// fields with seconds first.
    #[arg(long, env = "NOTIHUB_WORK_CRON", value_name = "EXPRESSION")]
    cron: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

async fn open(settings: Settings) -> Result<Hub> {
    telemetry::start_logs(&settings.log)?;
    settings.check()?;
    let store = process::proven_store(&settings.database, &process::database_url(&settings.database)?).await?;
    let hub = process::open_hub(settings, store, Shutdown::new()).await?;
    process::warn_of_mocks(&hub);
    Ok(hub)
}

/// `notihub serve`: runs the API, and with `--work` a worker, until a signal. Returns the exit code.
///
/// # Errors
/// `Error::Usage` for settings that contradict each other; `Error::Setup` if the hub cannot start.
pub async fn serve(args: Serve) -> Result<u8> {
    let hub = open(args.settings).await?;
    let address = process::start(&hub, if args.work { Role::Both } else { Role::Api }).await?;
    tracing::info!(address = address.map(|a| a.to_string()), "the API answers requests");
    signalled().await;
    Ok(process::stop(&hub).await)
}

/// `notihub work`: runs a worker until a signal, once, or on a schedule. Returns the exit code.
///
/// # Errors
/// `Error::Usage` for settings that contradict each other or an invalid schedule; `Error::Setup` if the hub cannot
/// start.
pub async fn work(args: Work, output: Output) -> Result<u8> {
    let cron = args.cron.as_deref().map(schedule).transpose()?;
    let hub = open(args.settings).await?;
    if args.once {
        stop_when_signalled(&hub);
        let claimed = deliver_due(&hub).await?;
        match output {
            Output::Text => anstream::println!("{claimed} deliveries claimed and settled"),
            Output::Json => print::json(&serde_json::json!({"claimed": claimed})),
        }
        return Ok(process::stop(&hub).await);
    }
    if let Some(cron) = cron {
        stop_when_signalled(&hub);
        on_schedule(&hub, &cron).await?;
        return Ok(process::stop(&hub).await);
    }
    process::start(&hub, Role::Worker).await?;
    tracing::info!(channels = process::channel_names(&hub.providers.channels()), "the worker is running");
    signalled().await;
    Ok(process::stop(&hub).await)
}

/// Sends the deliveries that are due and returns their number. It also rolls up the statistics, because no loop does it
/// here.
async fn deliver_due(hub: &Hub) -> Result<u64> {
    let claimed = worker::deliver::deliver_due(hub).await?;
    while flow::rollup::rollup(hub).await? {}
    Ok(claimed)
}

fn stop_when_signalled(hub: &Hub) {
    let shutdown = hub.shutdown.clone();
    hub.shutdown.spawn(async move {
        tokio::select! {
            () = signalled() => shutdown.stop(),
            () = shutdown.stopping() => (),
        }
    });
}

fn schedule(text: &str) -> Result<Crontab> {
    Crontab::parse(text)
        .map_err(|e| Error::Usage(format!("--cron '{text}' is not a cron expression: {e}; for example '*/5 * * * *'")))
}

async fn on_schedule(hub: &Hub, cron: &Crontab) -> Result<()> {
    while !hub.shutdown.is_stopping() {
        let now = hub.clock.now();
        let Some(next) = cron.next_after(now) else { return Ok(()) };
        if !hub.shutdown.sleep((next - now).to_std().unwrap_or_default()).await {
            return Ok(());
        }
        match deliver_due(hub).await {
            Ok(claimed) => tracing::info!(claimed, "sent the due deliveries"),
            Err(e) => tracing::warn!(error = %e, "could not send the due deliveries; trying again at the next time"),
        }
    }
    Ok(())
}
