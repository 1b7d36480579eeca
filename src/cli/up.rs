//! `notihub up`: the whole hub in one process, for a first try and for a single machine.

use std::time::Instant;

use chrono::TimeDelta;
use clap::Args;

use super::client::SavedKeys;
use super::pg::{PgPlace, PrivatePg};
use super::stand_ins::{self, Simulators};
use super::{Output, demo, print, process, simulate};
use crate::config::Settings;
use crate::crypt;
use crate::error::{Error, Result};
use crate::flow;
use crate::flow::partner::{Credentials, PartnerChange};
use crate::hub::Hub;
use crate::model::access::principal::Actor;
use crate::model::access::role::{self, StaffRole};
use crate::model::channel::Channel;
use crate::model::egress;
use crate::shutdown::{Shutdown, signalled};
use crate::store;
use crate::telemetry;
use crate::worker::Role;

#[derive(Debug, Args)]
pub struct Up {
    // These flags come before the settings, whose last heading would otherwise apply to them.
    /// Post three example messages and show what happened to each: an order completed, a payment failed, an outage.
    /// Endpoints may then be on this machine, as with --webhook-allow-http --webhook-allow-network 127.0.0.0/8,::1.
    #[arg(long)]
    demo: bool,
    /// Stop after the example messages (with --demo), or at once.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    settings: Settings,
}

/// `notihub up`: starts PostgreSQL if none is given, simulators for missing providers, and the hub, and runs until a
/// signal. Returns the exit code: 1 if an example message was not sent, or the stop took too long.
///
/// # Errors
/// `Error::Usage` for settings that contradict each other; `Error::Setup` if a part cannot start.
pub async fn run(args: Up, output: Output) -> Result<u8> {
    let began = Instant::now();
    let mut settings = args.settings;
    // The demo prints for people: log only warnings, unless the level was set.
    if args.demo && settings.log.log.starts_with("info,sqlx") {
        settings.log.log = "warn,notihub::cli::pg=info".into();
    }
    telemetry::start_logs(&settings.log)?;
    settings.check()?;
    // PostgreSQL and the simulators, which are stopped after the hub.
    let dependencies = Shutdown::new();
    // Handle signals from the beginning, so that PostgreSQL is always stopped in order.
    let asked = Shutdown::new();
    let (stop, gone) = (asked.clone(), dependencies.clone());
    dependencies.spawn(async move {
        tokio::select! { () = signalled() => stop.stop(), () = gone.stopping() => () }
    });
    let options = UpOptions { demo: args.demo, once: args.once, stop_requested: asked, output, began };
    let code = run_hub(settings, &dependencies, &options).await;
    dependencies.stop();
    dependencies.drained(std::time::Duration::from_secs(30)).await;
    code
}

/// The options of a run.
struct UpOptions {
    demo: bool,
    once: bool,
    /// Stops when a signal arrives.
    stop_requested: Shutdown,
    output: Output,
    began: Instant,
}

async fn run_hub(mut settings: Settings, dependencies: &Shutdown, options: &UpOptions) -> Result<u8> {
    let UpOptions { output, began, .. } = *options;
    let (owner_url, url) = match &settings.database.database_url {
        Some(url) => (process::owner_url(&settings.database)?, url.clone()),
        None => start_private_postgres(&settings, dependencies).await?,
    };
    let repaired = process::migrate(&settings.database, &owner_url, &url).await?;
    if !repaired.to_run.is_empty() {
        tracing::warn!(statements = repaired.to_run.join("; "), "a database administrator must run these statements");
    }
    let store = process::proven_store(&settings.database, &url).await?;
    let simulators = stand_ins::start(&mut settings, dependencies).await?;
    if options.demo {
        // `notihub webhook listen` runs on the same machine.
        let loopback = ["127.0.0.0/8", "::1"].into_iter().filter_map(|text| egress::parse_network(text).ok());
        settings.webhooks.webhook_allow_networks.extend(loopback);
        settings.webhooks.webhook_allow_http = true;
    }
    process::make_master_key(&settings.database)?;
    let hub = process::open_hub(settings, store, Shutdown::new()).await?;
    let kept = load_or_make_keys(&hub).await?;
    if options.demo {
        allow_sign_up(&hub).await?;
    }
    let address = process::start(&hub, Role::Both).await?;
    let url = address.map(|a| format!("http://{a}")).unwrap_or_default();
    for (vendor, name, _) in simulators.vendors.iter().filter(|_| address.is_some()) {
        vendor.set_callback("", &simulate::receipt_url(&url, name))?;
    }
    if output == Output::Text {
        print_banner(&hub, &url, &simulators, options);
    }
    let mut good = true;
    if options.demo {
        good = tokio::select! {
            good = demo::run(&hub, &url, &kept.partner, &simulators, output, began) => good?,
            () = options.stop_requested.stopping() => true,
        };
    }
    if !options.once {
        if output == Output::Text {
            if options.demo {
                demo::print_page_links(&url, &kept.partner).await?;
            }
            demo::print_next_steps(
                &url,
                &hub.settings.database.data_dir()?,
                &kept,
                hub.settings.webhooks.webhook_allow_http,
            );
        }
        options.stop_requested.stopping().await;
    }
    let stopped = process::stop(&hub).await;
    Ok(if good { stopped } else { 1 })
}

/// The partner of the example messages.
const DEMO: &str = "demo";

/// Lets people make users of the demo partner, so that sign-up can be tried.
async fn allow_sign_up(hub: &Hub) -> Result<()> {
    let actor = Actor::local_admin("notihub up".into());
    match store::partner::find_by_name(hub.store.api(), DEMO).await? {
        Some(demo) if !demo.sign_up => {
            let change = PartnerChange { sign_up: Some(true), ..PartnerChange::default() };
            flow::partner::update(hub, actor.admin_permit()?, demo.partner_id, change).await?;
        }
        _ => (),
    }
    Ok(())
}

/// The keys of the demo partner and of an operator, from the data folder. Makes and keeps new ones if they are missing
/// or no longer valid.
async fn load_or_make_keys(hub: &Hub) -> Result<SavedKeys> {
    let folder = hub.settings.database.data_dir()?;
    if let Some(kept) = SavedKeys::load(&folder)?
        && is_valid(hub, &kept.partner).await?
        && is_valid(hub, &kept.operator).await?
    {
        return Ok(kept);
    }
    let actor = Actor::local_admin("notihub up".into());
    let permit = actor.admin_permit()?;
    let partner = match store::partner::find_by_name(hub.store.api(), DEMO).await? {
        Some(demo) => flow::partner::rotate(hub, permit, demo.partner_id, TimeDelta::hours(1)).await?,
        None => {
            let change = PartnerChange { name: Some(DEMO.into()), ..PartnerChange::default() };
            flow::partner::create(hub, permit, change).await?.1
        }
    };
    let keys = store::key::list(hub.store.api()).await?;
    let is_operators = |k: &&store::key::ListedKey| match k.role {
        role::Role::Staff(StaffRole::Operator) => true,
        role::Role::Staff(StaffRole::Admin) | role::Role::Partner => false,
    };
    let mut operators = keys.iter().filter(is_operators);
    let mine = operators.find(|k| k.name == "notihub up" && k.revoked_at.is_none());
    let operator = match mine {
        Some(key) => flow::partner::rotate_key(hub, permit, &key.client_id, TimeDelta::hours(1)).await?,
        None => flow::partner::create_key(hub, permit, StaffRole::Operator, "notihub up").await?,
    };
    let kept = SavedKeys { partner, operator };
    if let Err(e) =
        std::fs::create_dir_all(&folder).map_err(|e| Error::Setup(e.to_string())).and_then(|()| kept.save(&folder))
    {
        tracing::warn!(error = %e, "the keys could not be saved; the next start will make new ones");
    }
    Ok(kept)
}

async fn is_valid(hub: &Hub, credentials: &Credentials) -> Result<bool> {
    let key = store::key::get(hub.store.api(), &credentials.client_id).await?;
    let hash = crypt::keyed_hash(&hub.pepper, credentials.client_secret.as_bytes());
    Ok(key.is_some_and(|key| key.revoked_at.is_none() && crypt::same(&key.secret_hash, &hash)))
}

/// Starts the private PostgreSQL, which runs until `dependencies` stops. Returns its URLs as the owner and as the hub's
/// role.
async fn start_private_postgres(settings: &Settings, dependencies: &Shutdown) -> Result<(String, String)> {
    let mut pg = PrivatePg::start(PgPlace { data_dir: settings.database.data_dir()?, throw_away: false }).await?;
    let urls = (pg.url().to_owned(), pg.app_url().to_owned());
    let stop = dependencies.clone();
    dependencies.spawn(async move {
        pg.supervise(stop.stopping()).await;
        if let Err(e) = pg.stop().await {
            tracing::error!(error = %e, "the private PostgreSQL did not stop in order");
        }
    });
    Ok(urls)
}

fn print_banner(hub: &Hub, url: &str, simulators: &Simulators, options: &UpOptions) {
    anstream::println!(
        "{} notihub {} answers at {url} after {:.1} s",
        print::paint(print::GOOD, "up"),
        env!("CARGO_PKG_VERSION"),
        options.began.elapsed().as_secs_f64()
    );
    let email = match &simulators.smtp {
        Some(smtp) => format!("simulator; received: http://{}/_records", smtp.control_address()),
        None => hub.providers.for_channel(Channel::Email).first().map_or("off".into(), |a| a.name().to_owned()),
    };
    let slack = match &simulators.slack {
        Some(slack) => format!("simulator, destination ops; received: http://{}/_records", slack.address()),
        None => format!("destinations {}", hub.settings.slack.names().into_iter().collect::<Vec<_>>().join(", ")),
    };
    anstream::println!("   e-mail  {email}\n   slack   {slack}");
    if options.demo {
        anstream::println!("   hooks   endpoints may be on this machine (127.0.0.0/8, ::1), also with http");
    }
    for (vendor, _, channels) in &simulators.vendors {
        let (name, channels) = (vendor.name(), process::channel_names(channels));
        anstream::println!("   {name:<7} simulator for {channels}; received: {}/_records", vendor.url());
    }
    let mocked = &hub.settings.channels.mock;
    if !mocked.is_empty() {
        anstream::println!("   logged  {} (mocked: logged and not sent)", process::channel_names(mocked));
    }
}
