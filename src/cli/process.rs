//! What `up`, `serve` and `work` share: from settings to a running hub, and back down in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::config::{EmailKind, Settings, SmtpTls};
use crate::error::{Error, Result};
use crate::hub::{Hub, Parts};
use crate::model::channel::Channel;
use crate::provider::{Provider, Providers, mock::Mock, slack, smtp};
use crate::shutdown::Shutdown;
use crate::store::{self, PoolSizes, Store};
use crate::worker::{self, Role};
use crate::{api, cli};

/// The database these settings lead to: the named one, or the private one of a running `up` on this machine.
pub fn database_url(database: &crate::config::Database) -> Result<String> {
    if let Some(url) = &database.database_url {
        return Ok(url.clone());
    }
    let folder = database.data_dir()?;
    cli::pg::running_url(&folder)?.ok_or_else(|| {
        Error::Setup(format!(
            "no database: give --database-url, or start `notihub up`, whose private PostgreSQL in {} is then used",
            folder.display()
        ))
    })
}

pub fn open_store(database: &crate::config::Database, url: &str) -> Result<Store> {
    let sizes = PoolSizes {
        api: database.api_connections,
        intake: database.intake_connections,
        engine: database.worker_connections,
    };
    Store::new(url, sizes)
}

/// Refuses a server that may lose what it confirmed.
pub async fn check_durability(store: &Store, accept_loss: bool) -> Result<()> {
    let settings = store::hub::settings(store.api()).await?;
    let value = |name: &str| settings.iter().find(|s| s.name == name).map_or("", |s| s.setting.as_str());
    let version: u32 = value("server_version_num").parse().unwrap_or(0);
    if version < 150_000 {
        return Err(Error::Setup(format!("PostgreSQL {} is too old; 15 or newer is needed", value("server_version"))));
    }
    let off: Vec<&str> =
        ["fsync", "full_page_writes", "synchronous_commit"].into_iter().filter(|n| value(n) == "off").collect();
    if !off.is_empty() && !accept_loss {
        return Err(Error::Setup(format!(
            "the database may lose what it confirmed: {} is off. Turn it on, or say --accept-loss",
            off.join(", ")
        )));
    }
    Ok(())
}

/// Providers as the settings describe them.
pub fn providers(settings: &Settings) -> Result<Providers> {
    let mut all: Vec<Arc<dyn Provider>> = Vec::new();
    let email = &settings.email;
    let kind = email.email.unwrap_or(if email.smtp_host.is_some() { EmailKind::Smtp } else { EmailKind::Mock });
    match kind {
        EmailKind::Off => (),
        EmailKind::Mock => all.push(Arc::new(Mock(Channel::Email))),
        EmailKind::Smtp => all.push(Arc::new(smtp::Smtp::new(smtp_settings(settings)?)?)),
    }
    if !settings.slack.slack_destinations.is_empty() {
        all.push(Arc::new(slack::Slack::new(&slack::SlackSettings {
            destinations: settings.slack.destinations(),
            call_budget: settings.timing.call_budget(),
            ca_file: email.ca_file.clone(),
        })?));
    }
    // The last of a channel holds: who asks for a mock gets it.
    all.extend(settings.channels.mock.iter().map(|channel| Arc::new(Mock(*channel)) as Arc<dyn Provider>));
    Ok(Providers::new(all))
}

fn smtp_settings(settings: &Settings) -> Result<smtp::SmtpSettings> {
    let email = &settings.email;
    let host = email.smtp_host.clone().ok_or_else(|| Error::Setup("--email smtp needs --smtp-host".into()))?;
    let (tls, port) = match email.smtp_tls {
        SmtpTls::Starttls => (smtp::Tls::Starttls, 587),
        SmtpTls::Implicit => (smtp::Tls::Implicit, 465),
        SmtpTls::None => (smtp::Tls::None, 25),
    };
    Ok(smtp::SmtpSettings {
        host,
        port: email.smtp_port.unwrap_or(port),
        tls,
        username: email.smtp_username.clone(),
        password: email.smtp_password.clone(),
        from: email.smtp_from.clone(),
        call_budget: settings.timing.call_budget(),
        ca_file: email.ca_file.clone(),
        helo: None,
        allow_plaintext: email.smtp_allow_plaintext,
        throttled_pause: Duration::from_secs(email.smtp_throttled_pause_s),
    })
}

/// Connects, checks what must hold before anything is accepted or claimed, and makes partitions. Starts no loops.
pub async fn open_hub(settings: Settings, store: Store, shutdown: Shutdown) -> Result<Hub> {
    settings.check()?;
    check_durability(&store, settings.database.accept_loss).await?;
    let missing = store.migrations_missing().await?;
    if missing > 0 {
        return Err(Error::Setup(format!("the schema lacks {missing} migrations: run `notihub migrate`")));
    }
    let providers = providers(&settings)?;
    let hub = Hub::start(Parts { settings, store, providers, clock: Clock::system(), shutdown }).await?;
    worker::calibrate(hub.clone()).await?;
    crate::flow::retain::retain(&hub).await?;
    Ok(hub)
}

/// Starts the API where the settings say, and the loops of this role. Returns the address in use.
pub async fn start(hub: &Hub, role: Role) -> Result<Option<std::net::SocketAddr>> {
    let mut address = None;
    if role != Role::Worker {
        let wanted = hub.settings.api.listen;
        let listener = TcpListener::bind(wanted).await.map_err(|e| {
            Error::Setup(format!("cannot listen on {wanted}: {e}; is another hub running? Give another --listen"))
        })?;
        address = listener.local_addr().ok();
        api::server::start(listener, api::router(hub), &hub.shutdown);
    }
    worker::start(hub, role);
    Ok(address)
}

/// Stops claiming and accepting at once, finishes what is in flight; 0 within the grace, 1 when it took longer.
pub async fn stop(hub: &Hub) -> u8 {
    let grace = hub.settings.timing.shutdown_grace();
    hub.shutdown.stop();
    if hub.shutdown.drained(grace).await {
        hub.store.close().await;
        tracing::info!("stopped; nothing is left in flight");
        return 0;
    }
    tracing::error!(
        grace_ms = grace.as_millis() as u64,
        "stopped with work in flight; its leases run out and others take it"
    );
    1
}
