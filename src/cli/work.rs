//! `notihub serve` and `notihub work`: API and workers, on any host, against one database.

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
    #[command(flatten)]
    settings: Settings,
    /// Deliver in this process as well.
    #[arg(long, env = "NOTIHUB_SERVE_WORK")]
    work: bool,
}

// Its own group name: the settings have a group called Work already.
#[derive(Debug, Args)]
#[group(id = "work_command")]
#[command(
    after_help = "From cron:\n  * * * * * notihub work --once\n\nOn a schedule of its own (with or without seconds):\n  \
notihub work --cron '*/10 * * * * *'"
)]
pub struct Work {
    #[command(flatten)]
    settings: Settings,
    /// Deliver what is due now, and exit.
    #[arg(long, conflicts_with = "cron")]
    once: bool,
    /// Deliver what is due whenever this line of a crontab fires, in UTC: minute, hour, day, month, weekday (0 and 7 are
    /// Sunday), or six fields with seconds in front.
    #[arg(long, env = "NOTIHUB_WORK_CRON", value_name = "EXPRESSION")]
    cron: Option<String>,
}

async fn open(settings: Settings) -> Result<Hub> {
    telemetry::start_logs(&settings.log)?;
    settings.check()?;
    let store = process::proven_store(&settings.database, &process::database_url(&settings.database)?).await?;
    let hub = process::open_hub(settings, store, Shutdown::new()).await?;
    process::warn_of_mocks(&hub);
    Ok(hub)
}

pub async fn serve(args: Serve) -> Result<u8> {
    let hub = open(args.settings).await?;
    let address = process::start(&hub, if args.work { Role::Both } else { Role::Api }).await?;
    tracing::info!(address = address.map(|a| a.to_string()), "the API answers");
    signalled().await;
    Ok(process::stop(&hub).await)
}

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
    tracing::info!(channels = process::channel_names(&hub.providers.channels()), "the worker claims");
    signalled().await;
    Ok(process::stop(&hub).await)
}

/// One pass; says how many were claimed. Where no loop ever runs, the statistics are rolled up here.
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
            Ok(claimed) => tracing::info!(claimed, "delivered what was due"),
            Err(e) => tracing::warn!(error = %e, "could not deliver what was due; next time"),
        }
    }
    Ok(())
}
