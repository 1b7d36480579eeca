//! Start and stop of a hub, for `up`, `serve`, `work` and the commands that work at the database.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::config::{Database, EmailKind, Settings, SmtpTls};
use crate::crypt;
use crate::error::{Error, Result};
use crate::flow::{self, sealed};
use crate::http::server::ServerLimits;
use crate::hub::{Hub, Parts};
use crate::model::access::principal::Actor;
use crate::model::channel::{Channel, OnUnknown};
use crate::provider::http::{ClientSettings, ConnectionPolicy};
use crate::provider::{Account, Provider, Providers, inapp, mock, registry, slack, smtp, webhook};
use crate::shutdown::Shutdown;
use crate::store::role::GrantRepair;
use crate::store::{self, PoolSizes, Store};
use crate::worker::{self, Role};
use crate::{api, cli, http};

/// The URL of the database: the given one, or that of the private PostgreSQL of an `up` that runs on this machine.
///
/// # Errors
/// `Error::Setup` if none is given and no `up` runs.
pub fn database_url(database: &Database) -> Result<String> {
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

/// The URL of the same database with the login that owns the schema.
///
/// # Errors
/// As [`database_url`].
pub fn owner_url(database: &Database) -> Result<String> {
    if let Some(url) = database.migrate_database_url.as_ref().or(database.database_url.as_ref()) {
        return Ok(url.clone());
    }
    let owner = cli::pg::running_owner_url(&database.data_dir()?)?;
    owner.map_or_else(|| database_url(database), Ok)
}

/// Applies missing migrations, and repairs roles and grants. If the two logins differ, gives the hub's login its
/// rights.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Setup` if the schema is newer than this program.
/// Each migration is a transaction of its own: those before a failed one stay applied.
pub async fn migrate(database: &Database, owner_url: &str, app_url: &str) -> Result<GrantRepair> {
    let store = proven_store(database, owner_url).await?;
    let mut repaired = store.migrate().await?;
    if app_url != owner_url {
        let admitted = store::role::grant_app_login(&store, app_url).await?;
        repaired.done.extend(admitted.done);
        repaired.to_run.extend(admitted.to_run);
    }
    store.close().await;
    Ok(repaired)
}

/// Logs a warning if the hub's database role has more rights than it needs.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn warn_of_role(store: &Store) -> Result<()> {
    if let Some(fault) = store::role::check(store.api()).await?.fault() {
        tracing::warn!("{fault}: `notihub doctor` shows how to run the hub as a role that does not");
    }
    Ok(())
}

/// A store with the pool sizes of the settings. It does not connect yet.
///
/// # Errors
/// `Error::Usage` if the URL is not valid.
pub fn open_store(database: &Database, url: &str) -> Result<Store> {
    Store::new(url, pool_sizes(database))
}

/// A store for a process that writes. Its sessions are proven (see `Store::prove`).
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Setup` if its sessions cannot write.
pub async fn proven_store(database: &Database, url: &str) -> Result<Store> {
    let store = open_store(database, url)?;
    store.prove_sessions().await?;
    Ok(store)
}

/// A store for a command that only reads and may use a hot standby. Its sessions are proven.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Setup` if its sessions are not usable.
pub async fn reading_store(database: &Database, url: &str) -> Result<Store> {
    let store = Store::new_read_only(url, pool_sizes(database))?;
    store.prove_sessions().await?;
    Ok(store)
}

fn pool_sizes(database: &Database) -> PoolSizes {
    PoolSizes {
        api: database.api_connections,
        intake: database.intake_connections,
        engine: database.worker_connections,
        webhooks: database.webhook_connections,
    }
}

/// Checks that the server is new enough and does not lose confirmed transactions in a crash. `accept_loss`: skip the
/// second check.
///
/// # Errors
/// `Error::Setup` if a check fails; `Error::Unavailable` if the database cannot be reached.
pub async fn check_durability(store: &Store, accept_loss: bool) -> Result<()> {
    let settings = store::hub::server_settings(store.api()).await?;
    let value = |name: &str| settings.iter().find(|s| s.name == name).map_or("", |s| s.setting.as_str());
    let version: u32 = value("server_version_num").parse().unwrap_or(0);
    if version < 150_000 {
        return Err(Error::Setup(format!("PostgreSQL {} is too old; 15 or newer is needed", value("server_version"))));
    }
    let off: Vec<&str> =
        ["fsync", "full_page_writes", "synchronous_commit"].into_iter().filter(|n| value(n) == "off").collect();
    if !off.is_empty() && !accept_loss {
        return Err(Error::Setup(format!(
            "the database may lose confirmed transactions: {} is off. Turn it on, or give --accept-loss",
            off.join(", ")
        )));
    }
    Ok(())
}

/// Makes the providers that the settings describe. `clock` and `shutdown` are those of the hub.
///
/// # Errors
/// `Error::Usage` if an account's settings are not valid.
pub fn providers(settings: &Settings, clock: &Clock, shutdown: &Shutdown) -> Result<Providers> {
    let mut all: Vec<Account> = Vec::new();
    let mut mocks: BTreeSet<Channel> = settings.channels.mock.iter().copied().collect();
    let email = &settings.email;
    let kind = email.email.unwrap_or(if email.smtp_host.is_some() { EmailKind::Smtp } else { EmailKind::Mock });
    match kind {
        EmailKind::Off => (),
        EmailKind::Mock => drop(mocks.insert(Channel::Email)),
        EmailKind::Smtp => all.push(account(smtp::Smtp::new(smtp_settings(settings, clock, shutdown)?)?)),
    }
    let common = ClientSettings::from_settings(settings, clock);
    let connections =
        |channel| ConnectionPolicy::for_on_unknown(settings.retry.on_unknown(channel).unwrap_or(OnUnknown::Retry));
    if !settings.slack.slack_destinations.is_empty() {
        all.push(account(slack::Slack::new(&slack::SlackSettings {
            destinations: settings.slack.destinations(),
            compatible: settings.slack.compatible(),
            connections: connections(Channel::Slack),
            common: common.clone(),
        })?));
    }
    all.push(account(inapp::Inapp));
    all.push(account(webhook::Webhook::new(webhook::WebhookSettings {
        rules: settings.webhooks.rules(),
        connections: connections(Channel::Webhook),
        common: common.clone(),
    })?));
    for settings in &settings.channels.providers {
        all.push(registry::build_account(settings, &common)?);
    }
    // A mocked channel has no other provider.
    for account in &mut all {
        account.capabilities.retain(|c| !mocks.contains(&c.channel));
    }
    all.retain(|account| !account.capabilities.is_empty());
    if !mocks.is_empty() {
        all.push(account(mock::Mock::new(mocks.into_iter().collect())));
    }
    Providers::new(all)
}

/// Whether a provider only logs: the built-in mock, or an account with the mock adapter.
pub fn is_mock(settings: &Settings, account: &Account) -> bool {
    let made = settings.channels.providers.iter().find(|made| made.name == account.name());
    made.map_or(account.name(), |made| made.adapter.as_str()) == mock::ADAPTER.name
}

/// Logs a warning about mocked channels, because their deliveries look sent everywhere else.
pub fn warn_of_mocks(hub: &Hub) {
    let mut mocked = hub.providers.channels();
    mocked.retain(|channel| hub.providers.for_channel(*channel).iter().any(|account| is_mock(&hub.settings, account)));
    if !mocked.is_empty() {
        tracing::warn!(
            channels = channel_names(&mocked),
            "these channels are mocked: their messages are logged and not sent. To send e-mail, give --smtp-host and \
                leave \
             out --email mock; for other channels, give an account with --provider in place of --mock"
        );
    }
}

/// The names of channels, separated by commas.
pub fn channel_names(channels: &[Channel]) -> String {
    channels.iter().map(|channel| channel.as_str()).collect::<Vec<_>>().join(", ")
}

fn account(provider: impl Provider) -> Account {
    Account::from(Arc::new(provider) as Arc<dyn Provider>)
}

fn smtp_settings(settings: &Settings, clock: &Clock, shutdown: &Shutdown) -> Result<smtp::SmtpSettings> {
    let email = &settings.email;
    let host = email.smtp_host.clone().ok_or_else(|| Error::Usage("--email smtp needs --smtp-host".into()))?;
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
        connect_budget: settings.timing.connect_budget(),
        data_timeout: Duration::from_secs(email.smtp_data_timeout_s),
        ca_file: email.ca_file.clone(),
        helo: None,
        allow_plaintext: email.smtp_allow_plaintext,
        throttled_pause: Duration::from_secs(email.smtp_throttled_pause_s),
        clock: clock.clone(),
        shutdown: shutdown.clone(),
    })
}

/// The master keys of the settings, then the one that `up` keeps beside its private PostgreSQL.
///
/// # Errors
/// `Error::Setup` if the kept key cannot be read.
pub fn master_keys(database: &Database) -> Result<Vec<[u8; crypt::KEY_BYTES]>> {
    let mut keys = database.master_keys.clone();
    if database.database_url.is_some() {
        return Ok(keys);
    }
    let file = database.data_dir()?.join(MASTER_KEY_FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let key = crypt::read_key(&text).map_err(|e| Error::Setup(format!("{}: {e}", file.display())))?;
            keys.push(key);
            Ok(keys)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(keys),
        Err(e) => Err(Error::Setup(format!("{} cannot be read: {e}", file.display()))),
    }
}

/// Makes a master key in the data folder, if the private PostgreSQL is used and there is no key.
///
/// # Errors
/// `Error::Setup` if the file cannot be written.
pub fn make_master_key(database: &Database) -> Result<()> {
    if database.database_url.is_some() || !master_keys(database)?.is_empty() {
        return Ok(());
    }
    write_secret(&database.data_dir()?.join(MASTER_KEY_FILE), &crypt::write_key(&crypt::random()))
}

const MASTER_KEY_FILE: &str = "master.key";

/// Writes a file that only its owner can read.
///
/// # Errors
/// `Error::Setup` if it cannot be written.
pub fn write_secret(file: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |e: std::io::Error| Error::Setup(format!("{} cannot be written: {e}", file.display()));
    let mut options = std::fs::OpenOptions::new();
    let mut opened = options.write(true).create(true).truncate(true).mode(0o600).open(file).map_err(failed)?;
    opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()).map_err(failed)
}

/// Makes a hub: checks settings, durability, schema, role and encryption keys, and makes partitions. It starts neither
/// the API nor loops.
///
/// # Errors
/// `Error::Usage` for settings that contradict each other; `Error::Setup` for a failed check; `Error::Unavailable` if
/// the database cannot be reached.
pub async fn open_hub(settings: Settings, store: Store, shutdown: Shutdown) -> Result<Hub> {
    settings.check()?;
    check_durability(&store, settings.database.accept_loss).await?;
    let missing = store.migrations_missing().await?;
    if missing > 0 {
        return Err(Error::Setup(format!("the schema lacks {missing} migrations: run `notihub migrate`")));
    }
    warn_of_role(&store).await?;
    let clock = Clock::system();
    let providers = providers(&settings, &clock, &shutdown)?;
    let master_keys = master_keys(&settings.database)?;
    if !settings.database.accept_unopened {
        let keyring = sealed::keyring(&store, &master_keys).await?;
        sealed::check(&store, &keyring, clock.now()).await?;
    }
    let hub = flow::start(Parts { settings, store, providers, clock, shutdown, master_keys }).await?;
    worker::calibrate(hub.clone()).await?;
    crate::flow::retain::partitions(&hub).await?;
    Ok(hub)
}

/// Makes a hub for a command at the database, without API, loops and providers, and the actor `user@host` for the audit
/// log.
///
/// # Errors
/// `Error::Setup` if migrations are missing; `Error::Unavailable` if the database cannot be reached.
pub async fn open_for_command(database: &Database) -> Result<(Hub, Actor)> {
    let store = proven_store(database, &database_url(database)?).await?;
    let missing = store.migrations_missing().await?;
    if missing > 0 {
        return Err(Error::Setup(format!("the schema lacks {missing} migrations: run `notihub migrate`")));
    }
    let parts = Parts {
        settings: Settings::with_database(database.clone())?,
        store,
        providers: Providers::default(),
        clock: Clock::system(),
        shutdown: Shutdown::new(),
        master_keys: master_keys(database)?,
    };
    let hub = flow::start(parts).await?;
    worker::calibrate(hub.clone()).await?;
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |u| u.name);
    let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok()).unwrap_or_default();
    Ok((hub, Actor::local_admin(format!("{user}@{host}"))))
}

/// Starts the servers of the settings and the loops of this role. Returns the address of the API; none for a worker.
///
/// # Errors
/// `Error::Setup` if an address cannot be listened on.
pub async fn start(hub: &Hub, role: Role) -> Result<Option<std::net::SocketAddr>> {
    let listen = async |wanted: std::net::SocketAddr, flag: &str| {
        TcpListener::bind(wanted).await.map_err(|e| {
            Error::Setup(format!("cannot listen on {wanted}: {e}; is another hub running? Give another {flag}"))
        })
    };
    if let Some(wanted) = hub.settings.api.metrics_listen {
        let listener = listen(wanted, "--metrics-listen").await?;
        http::server::start(listener, api::health::metrics_router(hub), &hub.shutdown);
    }
    let mut address = None;
    if role != Role::Worker {
        let listener = listen(hub.settings.api.listen, "--listen").await?;
        address = listener.local_addr().ok();
        let streams = usize::try_from(hub.settings.api.live_connections).unwrap_or(usize::MAX);
        let mut allowance = ServerLimits { streams, ..ServerLimits::default() };
        // Behind a proxy all callers have its address, so the proxy has to limit them.
        if hub.settings.api.behind_proxy {
            allowance.unauthenticated_per_network = None;
        }
        http::server::start_with(allowance, listener, api::router(hub), &hub.shutdown);
    }
    worker::start(hub, role);
    Ok(address)
}

/// Stops accepting and claiming at once and finishes what is in flight. Returns the exit code: 0 if that was done
/// within the grace, 1 otherwise.
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
        "stopped with work in flight; other workers take it when its leases end"
    );
    1
}
