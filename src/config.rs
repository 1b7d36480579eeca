//! Every setting: a flag, an environment variable `NOTIHUB_…`, and a line of the same name in `notihub.toml`, in this
//! order of precedence. The doc comments are the manual that `--help` prints. The only place that reads the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::limits;
use crate::model::channel::{AddressKind, Channel, OnUnknown};
use crate::model::egress::{self, EgressRules};
use crate::model::retry::{COPIES, EMAIL_SCHEDULE, RetryPolicy};

#[derive(Debug, Clone, Args)]
pub struct Settings {
    #[command(flatten)]
    pub database: Database,
    #[command(flatten)]
    pub api: Api,
    #[command(flatten)]
    pub work: Work,
    #[command(flatten)]
    pub timing: Timing,
    #[command(flatten)]
    pub retry: Retry,
    #[command(flatten)]
    pub email: Email,
    #[command(flatten)]
    pub slack: Slack,
    #[command(flatten)]
    pub webhooks: Webhooks,
    #[command(flatten)]
    pub channels: Channels,
    #[command(flatten)]
    pub alerts: Alerts,
    #[command(flatten)]
    pub log: Log,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct Database {
    /// An existing PostgreSQL 15 or newer, as postgres://user:password@host:port/database. Several servers are tried in their
    /// order: host1:port1,host2:port2, with libpq's target_session_attrs and connect_timeout. Without it `up` starts a
    /// private server from the programs installed on this machine, and the other commands use that of a running `up`.
    #[arg(long, env = "NOTIHUB_DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = database_url)]
    pub database_url: Option<String>,
    /// The same database as the owner of its schema, or as a superuser: for `migrate`, which makes the login of
    /// --database-url and gives it what the hub needs. Every other process then runs as a login that owns nothing
    /// [default: --database-url].
    #[arg(long, env = "NOTIHUB_MIGRATE_DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = database_url)]
    pub migrate_database_url: Option<String>,
    /// Where the private PostgreSQL keeps its data [default: /var/lib/notihub for root, ~/.local/share/notihub else].
    #[arg(long, env = "NOTIHUB_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Connections for questions to the API.
    #[arg(long, env = "NOTIHUB_API_CONNECTIONS", default_value_t = 8, value_name = "N")]
    pub api_connections: u32,
    /// Connections for writing what is accepted: those that group requests, and batches.
    #[arg(long, env = "NOTIHUB_INTAKE_CONNECTIONS", default_value_t = 6, value_name = "N")]
    pub intake_connections: u32,
    /// Connections for the workers. Calls hold none, so few are enough.
    #[arg(long, env = "NOTIHUB_WORKER_CONNECTIONS", default_value_t = 6, value_name = "N")]
    pub worker_connections: u32,
    /// Connections for the workers to claim and settle webhooks with: so no endpoint takes those of other channels. Made when
    /// they are needed.
    #[arg(long, env = "NOTIHUB_WEBHOOK_CONNECTIONS", default_value_t = 4, value_name = "N")]
    pub webhook_connections: u32,
    /// Over how many shards new partners are spread. A partner keeps its shard for good.
    #[arg(long, env = "NOTIHUB_SHARDS", default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(i16).range(1..=1024))]
    pub shards: i16,
    /// Days a message and all under it are kept.
    #[arg(long, env = "NOTIHUB_RETENTION_DAYS", default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(62..))]
    pub retention_days: u16,
    /// Days the audit log is kept, by whole months. The database refuses to drop its last 90 days.
    #[arg(long, env = "NOTIHUB_AUDIT_RETENTION_DAYS", default_value_t = 730, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(90..))]
    pub audit_retention_days: u16,
    /// Seals secrets at rest: 32 bytes as base64 (`openssl rand -base64 32`). Several with commas while one replaces
    /// another: the first seals, all open. Give OLD,NEW to every process, then NEW,OLD, then run `notihub key reseal`, then
    /// NEW alone. `up` makes one in its data folder; without any, a key in the database does, which protects no backup of
    /// it.
    #[arg(long = "master-key", env = "NOTIHUB_MASTER_KEY", hide_env_values = true, value_delimiter = ',', value_name = "BASE64", value_parser = crate::crypt::read_key)]
    pub master_keys: Vec<[u8; crate::crypt::KEY_BYTES]>,
    /// Start even where what is sealed in the database does not open: its master key is lost.
    #[arg(long, env = "NOTIHUB_ACCEPT_UNOPENED")]
    pub accept_unopened: bool,
    /// Start even where the server may lose what it confirmed (fsync, full_page_writes or synchronous_commit off).
    #[arg(long, env = "NOTIHUB_ACCEPT_LOSS")]
    pub accept_loss: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API")]
pub struct Api {
    /// Address and port the API listens on.
    #[arg(long, env = "NOTIHUB_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// A proxy of yours stands in front: a caller's address is the last that it wrote into `--proxy-header`. Without a
    /// proxy anybody could write there what they like.
    #[arg(long, env = "NOTIHUB_BEHIND_PROXY")]
    pub behind_proxy: bool,
    /// The header in which the proxy writes its caller's address: a list as X-Forwarded-For, one address as X-Real-IP,
    /// or Forwarded (RFC 7239). The proxy must write it into every request, or callers can.
    #[arg(long, env = "NOTIHUB_PROXY_HEADER", default_value = "x-forwarded-for", value_name = "NAME", value_parser = header_name)]
    pub proxy_header: String,
    /// Where /metrics is served without sign-in, for a scraper on a private network. On the API's own port an operator's
    /// token is needed.
    #[arg(long, env = "NOTIHUB_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Transactions that write accepted messages at the same time. While they write, further requests gather and go
    /// together in the next.
    #[arg(long, env = "NOTIHUB_INTAKE_WRITERS", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub intake_writers: u16,
    /// Deliveries a partner may have unfinished in a lane; what it posts beyond that gives way to others, in the order it
    /// came, and is as fast as ever while there are none. A huge number turns this off.
    #[arg(long, env = "NOTIHUB_FAIR_UNFINISHED", default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub fair_unfinished: u64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
pub struct Work {
    /// Deliveries of one channel that one worker process holds at a time, if its provider takes as many.
    #[arg(long, env = "NOTIHUB_IN_FLIGHT", default_value_t = 2048, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: u32,
    /// Deliveries claimed at once, at most.
    #[arg(long, env = "NOTIHUB_CLAIM_BATCH", default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub claim_batch: u32,
    /// Milliseconds between looks for work while idle. Hints wake a worker sooner; looking is what guarantees.
    #[arg(long, env = "NOTIHUB_POLL_IDLE_MS", default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub poll_idle_ms: u64,
    /// Milliseconds between looks for work while there is some.
    #[arg(long, env = "NOTIHUB_POLL_BUSY_MS", default_value_t = 250, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub poll_busy_ms: u64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timing")]
pub struct Timing {
    /// Milliseconds a provider has to answer, connecting and reading included. More than 10,000, the longest a statement
    /// may run.
    #[arg(long, env = "NOTIHUB_CALL_BUDGET_MS", default_value_t = 15_000, value_name = "MS")]
    pub call_budget_ms: u64,
    /// Milliseconds of the call budget that connecting may take.
    #[arg(long, env = "NOTIHUB_CONNECT_BUDGET_MS", default_value_t = 5_000, value_name = "MS")]
    pub connect_budget_ms: u64,
    /// Milliseconds kept for writing an outcome before the lease ends.
    #[arg(long, env = "NOTIHUB_SETTLE_BUDGET_MS", default_value_t = 5_000, value_name = "MS")]
    pub settle_budget_ms: u64,
    /// Milliseconds kept between the last write and the end of the lease.
    #[arg(long, env = "NOTIHUB_LEASE_MARGIN_MS", default_value_t = 5_000, value_name = "MS")]
    pub lease_margin_ms: u64,
    /// Milliseconds a worker may hold a delivery. When it is over, others take the delivery back.
    #[arg(long, env = "NOTIHUB_LEASE_MS", default_value_t = 30_000, value_name = "MS")]
    pub lease_ms: u64,
    /// Milliseconds between looks for deliveries whose lease is over.
    #[arg(long, env = "NOTIHUB_REAP_EVERY_MS", default_value_t = 5_000, value_name = "MS")]
    pub reap_every_ms: u64,
    /// Milliseconds between looks for scheduled deliveries and retries that are due.
    #[arg(long, env = "NOTIHUB_PROMOTE_EVERY_MS", default_value_t = 200, value_name = "MS")]
    pub promote_every_ms: u64,
    /// Milliseconds a stopping process has to finish its calls and write their outcomes.
    #[arg(long, env = "NOTIHUB_SHUTDOWN_GRACE_MS", default_value_t = 25_000, value_name = "MS")]
    pub shutdown_grace_ms: u64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retries")]
pub struct Retry {
    /// Attempts a delivery has in all, on channels without a schedule of their own.
    #[arg(long, env = "NOTIHUB_RETRY_MAX_ATTEMPTS", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(i16).range(1..=100))]
    pub retry_max_attempts: i16,
    /// Milliseconds the second attempt waits at most; chance spreads it over them, so that what failed together does not come
    /// back together.
    #[arg(long, env = "NOTIHUB_RETRY_BACKOFF_DELAY", default_value_t = 1000, value_name = "MS")]
    pub retry_backoff_delay: u64,
    /// Each further pause is so many times the one before.
    #[arg(long, env = "NOTIHUB_RETRY_MULTIPLIER", default_value_t = 2.0, value_name = "X")]
    pub retry_multiplier: f64,
    /// Seconds no pause is longer than, whatever a provider asks for.
    #[arg(long, env = "NOTIHUB_RETRY_CEILING_S", default_value_t = 3600, value_name = "S")]
    pub retry_ceiling_s: u64,
    /// The pauses between a channel's attempts, one after the other: "EMAIL=5s 1m 30m 2h". It then has one attempt more than
    /// pauses; "EMAIL=backoff" goes by the settings above. Several channels with commas. E-mail has a schedule of four days
    /// by default, the others have none; where another channel stands by, none is used. Webhooks keep theirs.
    #[arg(long = "retry-schedule", env = "NOTIHUB_RETRY_SCHEDULE", value_delimiter = ',', value_name = "CHANNEL=PAUSES", value_parser = retry_schedule)]
    pub retry_schedules: Vec<(Channel, Pauses)>,
    /// What to do when it is unknown whether a provider took a message: CHANNEL=retry or CHANNEL=hold. Several with
    /// commas. Paid channels hold by default, the others retry.
    #[arg(long, env = "NOTIHUB_ON_UNKNOWN", value_delimiter = ',', value_name = "CHANNEL=WHAT", value_parser = on_unknown)]
    pub on_unknown: Vec<(Channel, OnUnknown)>,
}

/// The pauses between the attempts of a channel; none: as long as the general settings say.
pub type Pauses = Vec<Duration>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmailKind {
    /// A real server over SMTP.
    Smtp,
    /// Only logs each mail.
    Mock,
    /// No e-mail from this installation.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SmtpTls {
    /// Plain at first, encrypted before anything is said (usually port 587). Required, not tried.
    Starttls,
    /// Encrypted from the first byte (usually port 465).
    Implicit,
    /// Not encrypted: only to this machine, unless --smtp-allow-plaintext.
    None,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "E-mail")]
pub struct Email {
    /// How e-mail leaves [default: smtp when --smtp-host is given; else `up` starts a simulator and `work` has the mock].
    #[arg(long, env = "NOTIHUB_EMAIL", value_name = "KIND")]
    pub email: Option<EmailKind>,
    #[arg(long, env = "NOTIHUB_SMTP_HOST", value_name = "HOST")]
    pub smtp_host: Option<String>,
    /// [default: 587 with starttls, 465 with implicit, 25 with none]
    #[arg(long, env = "NOTIHUB_SMTP_PORT", value_name = "PORT")]
    pub smtp_port: Option<u16>,
    #[arg(long, env = "NOTIHUB_SMTP_TLS", default_value = "starttls", value_name = "TLS")]
    pub smtp_tls: SmtpTls,
    #[arg(long, env = "NOTIHUB_SMTP_USERNAME", value_name = "NAME")]
    pub smtp_username: Option<String>,
    #[arg(long, env = "NOTIHUB_SMTP_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub smtp_password: Option<String>,
    /// Sender of all e-mail, as address or as Name <address>.
    #[arg(
        long,
        env = "NOTIHUB_SMTP_FROM",
        default_value = "Notification Hub <notihub@localhost.localdomain>",
        value_name = "MAILBOX"
    )]
    pub smtp_from: String,
    /// Seconds to wait for a mail server's answer to a mail it has got as a whole: it may look for viruses and spam until
    /// then, and a second copy would be sent if it were not waited for. RFC 5321 asks for ten minutes.
    #[arg(long, env = "NOTIHUB_SMTP_DATA_TIMEOUT_S", default_value_t = 600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub smtp_data_timeout_s: u64,
    /// Seconds to stay away from a mail server that refuses us for a while (4.7.x, and not because of one recipient).
    #[arg(long, env = "NOTIHUB_SMTP_THROTTLED_PAUSE_S", default_value_t = 300, value_name = "S")]
    pub smtp_throttled_pause_s: u64,
    /// Send unencrypted, password included, to another machine.
    #[arg(long, env = "NOTIHUB_SMTP_ALLOW_PLAINTEXT")]
    pub smtp_allow_plaintext: bool,
    /// A PEM file with a further certificate authority to trust, for e-mail, Slack and webhooks.
    #[arg(long, env = "NOTIHUB_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Slack")]
pub struct Slack {
    /// An incoming webhook under the name that messages use: NAME=URL. Several with commas. The URL is a secret: give it
    /// in the environment or in notihub.toml.
    #[arg(long = "slack-destination", env = "NOTIHUB_SLACK_DESTINATION", hide_env_values = true, value_delimiter = ',', value_name = "NAME=URL", value_parser = pair)]
    pub slack_destinations: Vec<(String, String)>,
    /// Destinations whose server takes Slack's posts but answers in its own words (Mattermost, Rocket.Chat, Discord's
    /// /slack): there any 2xx is acceptance. Elsewhere a 2xx that is neither Slack's yes nor its no has an unknown
    /// outcome. Several with commas [default: none].
    #[arg(long, env = "NOTIHUB_SLACK_COMPATIBLE", value_delimiter = ',', value_name = "NAME")]
    pub slack_compatible: Vec<String>,
    /// The destination of notifications in the short form, which name only the channel SLACK [default: ops, or the only one].
    #[arg(long, env = "NOTIHUB_SLACK_DEFAULT", value_name = "NAME")]
    pub slack_default: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Webhooks")]
pub struct Webhooks {
    /// Networks that partners' webhooks may lead to though they are not public: 10.0.0.0/8 for services in your own network,
    /// 127.0.0.0/8,::1 in development. Several with commas. Every partner may then have this hub call anything there. Where
    /// clouds keep their machines' credentials (169.254.169.254 and its like) is called never [default: none].
    #[arg(long = "webhook-allow-network", env = "NOTIHUB_WEBHOOK_ALLOW_NETWORK", value_delimiter = ',', value_name = "NETWORK", value_parser = egress::network)]
    pub webhook_allow_networks: Vec<IpNet>,
    /// Networks that webhooks may not lead to though they are public: your own addresses on the Internet, as far as they let
    /// in more from here than from elsewhere. This machine's own addresses are refused in any case. Several with commas.
    #[arg(long = "webhook-deny-network", env = "NOTIHUB_WEBHOOK_DENY_NETWORK", value_delimiter = ',', value_name = "NETWORK", value_parser = egress::network)]
    pub webhook_deny_networks: Vec<IpNet>,
    /// Take http:// for webhooks, too: whoever is on the way reads them, and may answer for the partner.
    #[arg(long, env = "NOTIHUB_WEBHOOK_ALLOW_HTTP")]
    pub webhook_allow_http: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Other channels")]
pub struct Channels {
    /// An account at a vendor, under the name that attempts and metrics show: NAME=ADAPTER[,OPTION=VALUE…]. Once for each; in
    /// the environment several are separated by semicolons; in notihub.toml each is a table [provider.NAME] with adapter and
    /// the options as its lines, which is the place for secrets. `notihub provider adapters` lists adapters and options. Several
    /// of one channel share it by weight (weight=2) and stand in for each other. Every account takes limit=100/m,
    /// limit-strategy=sliding-window|fixed-window|token-bucket, limit-burst=N, profile=gateway|internal.
    #[arg(long = "provider", env = "NOTIHUB_PROVIDER", hide_env_values = true, value_delimiter = ';', value_name = "NAME=ADAPTER", value_parser = provider)]
    pub providers: Vec<ProviderSettings>,
    /// Channels whose messages are only logged, with nothing personal in the log. Several with commas [default: none; `up`
    /// starts simulators for what is neither logged nor served].
    #[arg(long, env = "NOTIHUB_MOCK", value_delimiter = ',', value_name = "CHANNEL", value_parser = mockable)]
    pub mock: Vec<Channel>,
    /// What stands by for a channel where a message does not say: KAKAO_ALIMTALK=SMS sends by SMS, to the same number, what
    /// Kakao did not take, if the body fits there. Several with commas. A message's own `fallback` goes before, and [] is none
    /// [default: none].
    #[arg(long = "fallback", env = "NOTIHUB_FALLBACK", value_delimiter = ',', value_name = "CHANNEL=CHANNEL", value_parser = stand_by)]
    pub fallbacks: Vec<(Channel, Channel)>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Alerts")]
pub struct Alerts {
    /// The Slack destination where operators are told, once each, of a provider that is down, refuses us or is near its
    /// limit, of fallbacks, and when it is over [default: only the log tells].
    #[arg(long, env = "NOTIHUB_ALERT_SLACK", value_name = "NAME")]
    pub alert_slack: Option<String>,
    /// E-mail addresses that are told the same. Several with commas.
    #[arg(long, env = "NOTIHUB_ALERT_EMAIL", value_delimiter = ',', value_name = "ADDRESS", value_parser = mailbox)]
    pub alert_email: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct Log {
    /// error, warn, info, debug or trace; or by module, as in info,notihub::worker=debug.
    #[arg(long, env = "NOTIHUB_LOG", default_value = "info,sqlx::postgres::notice=warn", value_name = "LEVEL")]
    pub log: String,
    /// [default: text on a terminal, json otherwise]
    #[arg(long, env = "NOTIHUB_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// PostgreSQL's; the rest is read where it is used.
fn database_url(text: &str) -> Result<String, &'static str> {
    let is_ours = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    is_ours.then(|| text.to_owned()).ok_or(
        "write it as postgres://user:password@host:port/database, with several servers as host1:port1,host2:port2",
    )
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, url) = text.split_once('=').ok_or("write NAME=URL")?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err("a name has letters, digits, - _ . only".into());
    }
    Ok((name.to_owned(), url.to_owned()))
}

fn stand_by(text: &str) -> Result<(Channel, Channel), String> {
    let (first, other) = text.split_once('=').ok_or("write CHANNEL=CHANNEL, as in KAKAO_ALIMTALK=SMS")?;
    let (first, other): (Channel, Channel) = (first.parse()?, other.parse()?);
    if first == other || first.addressed_by() != other.addressed_by() {
        return Err(format!("{other} does not go to the same recipient as {first} in another way"));
    }
    Ok((first, other))
}

/// One account at a vendor.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderSettings {
    pub name: String,
    pub adapter: String,
    pub options: BTreeMap<String, String>,
}

/// Options hold secrets.
impl std::fmt::Debug for ProviderSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={},{:?}", self.name, self.adapter, self.options.keys())
    }
}

fn provider(text: &str) -> Result<ProviderSettings, String> {
    let (name, rest) = text.trim().split_once('=').ok_or("write NAME=ADAPTER,OPTION=VALUE,…")?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err("a name has letters, digits, - _ . only".into());
    }
    // As a table in the file is written here: any value can be in it.
    if rest.starts_with('{') {
        let mut options: BTreeMap<String, String> = serde_json::from_str(rest).map_err(|_| "it cannot be read")?;
        let adapter = adapter(&options.remove("adapter").ok_or("it names no adapter")?)?;
        return Ok(ProviderSettings { name: name.to_owned(), adapter, options });
    }
    let mut parts = rest.split(',');
    let adapter = adapter(parts.next().unwrap_or_default())?;
    let mut options = BTreeMap::new();
    for part in parts {
        let (option, value) =
            part.split_once('=').ok_or("an option is OPTION=VALUE; a value with a comma belongs into notihub.toml")?;
        if options.insert(option.to_owned(), value.to_owned()).is_some() {
            return Err("an option stands in it twice".into());
        }
    }
    Ok(ProviderSettings { name: name.to_owned(), adapter, options })
}

/// Whoever forgets it has an option in its place, with a secret perhaps, which no error may repeat.
fn adapter(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err(
            "after the name comes an adapter (`notihub provider adapters` lists them): NAME=ADAPTER,OPTION=VALUE,…",
        );
    }
    Ok(text.to_owned())
}

fn header_name(text: &str) -> Result<String, &'static str> {
    let is_name = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_name.then(|| text.to_owned()).ok_or("a header's name is letters, digits and '-', as in X-Forwarded-For")
}

fn mailbox(text: &str) -> Result<String, String> {
    if crate::model::intake::is_mailbox(text) {
        Ok(text.to_owned())
    } else {
        Err("that is not an e-mail address".into())
    }
}

fn mockable(text: &str) -> Result<Channel, String> {
    let channel: Channel = text.parse()?;
    if channel.addressed_by() == AddressKind::Unserved {
        return Err(format!("no message can be sent over {channel} yet"));
    }
    Ok(channel)
}

fn retry_schedule(text: &str) -> Result<(Channel, Pauses), String> {
    let form = "write CHANNEL=PAUSES, as in \"EMAIL=5s 1m 30m 2h\", or CHANNEL=backoff";
    let (channel, pauses) = text.split_once('=').ok_or(form)?;
    let channel: Channel = channel.trim().parse()?;
    if channel == Channel::Webhook {
        return Err("webhooks keep their schedule: partners are told of it".to_owned());
    }
    if pauses.trim() == "backoff" {
        return Ok((channel, Vec::new()));
    }
    let pauses: Vec<Duration> = pauses.split_whitespace().map(pause).collect::<Result<_, _>>()?;
    if pauses.is_empty() || pauses.len() > 99 { Err(form.to_owned()) } else { Ok((channel, pauses)) }
}

/// "90s", "5m", "2h", "1d"; a week at most.
fn pause(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no pause: write a number with s, m, h or d, from 1s to 7d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds).filter(|s| (1..=7 * 86_400).contains(s)).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

fn on_unknown(text: &str) -> Result<(Channel, OnUnknown), String> {
    let (channel, what) = text.split_once('=').ok_or("write CHANNEL=retry or CHANNEL=hold")?;
    Ok((channel.parse()?, what.parse()?))
}

impl Settings {
    /// For commands that need little more than the database: all else as the environment has it, or by default.
    pub fn on(database: Database) -> Result<Settings> {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            settings: Settings,
        }
        let alone = <Alone as clap::Parser>::try_parse_from(["notihub"]);
        let settings =
            alone.map_err(|e| Error::Usage(format!("the environment's settings are not right: {e}")))?.settings;
        Ok(Settings { database, ..settings })
    }

    /// Rules between settings: each would lose or double messages quietly, so we refuse to start and name the two that
    /// disagree.
    pub fn check(&self) -> Result<()> {
        let t = &self.timing;
        let rule = |holds: bool, text: String| if holds { Ok(()) } else { Err(Error::Usage(text)) };
        rule(
            t.connect_budget_ms <= t.call_budget_ms,
            format!(
                "connect-budget-ms ({}) must not exceed call-budget-ms ({}): connecting is part of the call",
                t.connect_budget_ms, t.call_budget_ms
            ),
        )?;
        rule(
            t.call_budget_ms + t.settle_budget_ms + t.lease_margin_ms + 1000 <= t.lease_ms,
            format!(
                "lease-ms ({}) must be at least a second more than call-budget-ms + settle-budget-ms + lease-margin-ms \
                 ({} + {} + {}): else no call can begin in time, or another worker takes a delivery while its call is \
                 still running",
                t.lease_ms, t.call_budget_ms, t.settle_budget_ms, t.lease_margin_ms
            ),
        )?;
        rule(
            t.shutdown_grace_ms >= t.call_budget_ms + t.settle_budget_ms,
            format!(
                "shutdown-grace-ms ({}) must be at least call-budget-ms + settle-budget-ms ({} + {}): else a stopping \
                 worker leaves calls behind whose outcome nobody knows",
                t.shutdown_grace_ms, t.call_budget_ms, t.settle_budget_ms
            ),
        )?;
        let statement_ms = limits::STATEMENT_TIMEOUT.as_millis();
        rule(
            statement_ms < u128::from(t.call_budget_ms),
            format!(
                "call-budget-ms ({}) must exceed the statement time-out ({statement_ms} ms): a stuck database must be \
                 noticed before a lease is lost",
                t.call_budget_ms
            ),
        )?;
        rule(
            self.retry.retry_multiplier >= 1.0 && self.retry.retry_multiplier <= 100.0,
            format!("retry-multiplier ({}) must be between 1 and 100", self.retry.retry_multiplier),
        )?;
        if let Some(name) = &self.alerts.alert_slack {
            rule(
                self.slack.destinations().contains_key(name),
                format!("alert-slack names '{name}', which is not among the names in slack-destination"),
            )?;
        }
        for name in &self.slack.slack_compatible {
            rule(
                self.slack.names().contains(name),
                format!("slack-compatible names '{name}', which is not among the names in slack-destination"),
            )?;
        }
        if let Some(name) = &self.slack.slack_default {
            rule(
                self.slack.destinations().contains_key(name),
                format!("slack-default names '{name}', which is not among the names in slack-destination"),
            )?;
        }
        Ok(())
    }
}

impl Timing {
    pub fn call_budget(&self) -> Duration {
        Duration::from_millis(self.call_budget_ms)
    }

    pub fn connect_budget(&self) -> Duration {
        Duration::from_millis(self.connect_budget_ms)
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// How long after its claim was sent a call may still begin.
    pub fn begin_within(&self) -> Duration {
        Duration::from_millis(
            self.lease_ms.saturating_sub(self.call_budget_ms + self.settle_budget_ms + self.lease_margin_ms),
        )
    }

    /// How long a call may go on once the process stops: what is left of the grace is for writing its outcome. At least
    /// a call budget.
    pub fn grace_of_calls(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms.saturating_sub(self.settle_budget_ms))
    }

    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }
}

impl Retry {
    /// How a delivery of this channel is tried again. `stands_by`: another channel is asked when its attempts are spent, which
    /// must not take days.
    pub fn policy(&self, channel: Channel, stands_by: bool) -> RetryPolicy<'_> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        if channel == Channel::Webhook {
            return RetryPolicy::webhook();
        }
        let patience = match channel {
            Channel::Email => 4 * DAY,
            Channel::Slack => 3 * DAY,
            _ => DAY,
        };
        let general = RetryPolicy {
            max_attempts: self.retry_max_attempts,
            backoff: Duration::from_millis(self.retry_backoff_delay),
            multiplier: self.retry_multiplier,
            ceiling: Duration::from_secs(self.retry_ceiling_s),
            patience,
            ..RetryPolicy::default()
        };
        let set = self.retry_schedules.iter().rev().find(|(c, _)| *c == channel).map(|(_, pauses)| pauses.as_slice());
        let own: &[Duration] = if channel == Channel::Email { &EMAIL_SCHEDULE } else { &[] };
        match set.unwrap_or(own) {
            schedule if stands_by || schedule.is_empty() => general,
            schedule => RetryPolicy { copies: COPIES, ..general.scheduled(schedule) },
        }
    }

    /// What the settings say of a channel, if anything.
    pub fn on_unknown(&self, channel: Channel) -> Option<OnUnknown> {
        self.on_unknown.iter().rev().find(|(c, _)| *c == channel).map(|(_, what)| *what)
    }
}

impl Slack {
    pub fn destinations(&self) -> BTreeMap<String, String> {
        self.slack_destinations.iter().cloned().collect()
    }

    pub fn compatible(&self) -> BTreeSet<String> {
        self.slack_compatible.iter().cloned().collect()
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.slack_destinations.iter().map(|d| d.0.clone()).collect()
    }

    /// Where a message goes that names only the channel.
    pub fn default_name(&self) -> Option<String> {
        let names = self.names();
        let ops = || names.contains("ops").then(|| "ops".to_owned());
        let only = || (names.len() == 1).then(|| names.iter().next().cloned()).flatten();
        self.slack_default.clone().or_else(ops).or_else(only)
    }
}

impl Webhooks {
    pub fn rules(&self) -> EgressRules {
        EgressRules {
            allow: self.webhook_allow_networks.clone(),
            deny: self.webhook_deny_networks.clone(),
            http: self.webhook_allow_http,
        }
    }
}

impl Database {
    pub fn data_dir(&self) -> Result<PathBuf> {
        data_dir(self.data_dir.as_ref())
    }
}

/// The folder given, or where data is kept on this machine.
pub fn data_dir(given: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(folder) = given {
        return Ok(folder.clone());
    }
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/notihub".into());
    }
    let home = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    home.map(|h| h.join("notihub"))
        .ok_or_else(|| Error::Usage("there is no home folder to keep data in; give one with --data-dir".into()))
}

/// Whether a variable has a value. An empty one has none.
pub fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// The variables that are set and whose names begin as those of settings do. Kubernetes sets some for a service called
/// notihub (`NOTIHUB_SERVICE_HOST`, `NOTIHUB_PORT_8080_TCP`, …); those are left out.
pub fn variables() -> Vec<String> {
    let ours = |(name, value): (OsString, OsString)| {
        Some(name.to_str()?.to_owned()).filter(|name| name.starts_with("NOTIHUB_") && !value.is_empty())
    };
    // `vars` would panic where one is not UTF-8.
    let mut names: Vec<String> = std::env::vars_os().filter_map(ours).collect();
    names.push("NOTIHUB_SERVICE_HOST".into());
    let services: Vec<String> =
        names.iter().filter_map(|name| Some(name.strip_suffix("_SERVICE_HOST")?.to_owned())).collect();
    let of_a_service = |name: &str| {
        let rest = services.iter().filter_map(|service| name.strip_prefix(service.as_str()));
        rest.into_iter().any(|rest| rest == "_PORT" || rest.starts_with("_PORT_") || rest.starts_with("_SERVICE_"))
    };
    names.retain(|name| !of_a_service(name));
    names.sort();
    names
}

/// A setting in the file.
#[derive(Debug)]
pub struct Written {
    pub values: Vec<String>,
    /// File and line, as `notihub.toml line 3`.
    pub at: String,
    /// The same of each account, where the setting is `provider`.
    pub accounts: BTreeMap<String, String>,
}

/// The file of settings: `--config`, `NOTIHUB_CONFIG`, or `notihub.toml` here. Returns its values by setting name.
///
/// # Errors
/// `Error::Usage`, which names file, line and what is wrong, but never quotes a value: it may be a secret.
pub fn file(named: Option<&std::path::Path>) -> Result<BTreeMap<String, Written>> {
    let env = std::env::var_os("NOTIHUB_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let asked = named.map(std::path::Path::to_path_buf).or(env);
    let path = asked.clone().unwrap_or_else(|| "notihub.toml".into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && asked.is_none() => return Ok(BTreeMap::new()),
        Err(e) => return Err(Error::Usage(format!("{} cannot be read: {e}", path.display()))),
    };
    let table: toml::Table = toml::from_str(&text).map_err(|e| {
        // The library's own text quotes the line, which may hold a secret.
        let span = e.span().unwrap_or_default();
        let line = text[..span.start].matches('\n').count() + 1;
        let what = match e.message() {
            "duplicate key" => format!("'{}' stands there twice; a list is name = [\"…\", \"…\"]", &text[span]),
            message => format!("{message}; a setting is a line as name = \"text\", name = 3 or name = true"),
        };
        Error::Usage(format!("{} is not right in line {line}: {what}", path.display()))
    })?;
    let written = |(name, value): (String, toml::Value)| {
        let place = |name: &str| format!("{} line {}", path.display(), line_of(&text, name));
        let at = place(&name);
        let accounts = value.as_table().into_iter().flat_map(toml::Table::keys);
        let accounts = accounts.map(|account| (account.clone(), place(&format!("{name}.{account}")))).collect();
        Ok((name.clone(), Written { values: file_values(&at, &name, value)?, at, accounts }))
    };
    table.into_iter().map(written).collect()
}

/// The line, from 1, on which a setting begins: `name = …`, or the first `[name.…]`.
fn line_of(text: &str, name: &str) -> usize {
    let begins = |line: &str| {
        let line = line.trim_start().trim_start_matches(['[', '"', '\'']);
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['=', ' ', '\t', '.', ']', '"', '\'']))
    };
    text.lines().position(begins).map_or(1, |n| n + 1)
}

fn file_values(at: &str, name: &str, value: toml::Value) -> Result<Vec<String>> {
    match value {
        toml::Value::Table(accounts) if name == "provider" => {
            let account = |(account, options): (String, toml::Value)| {
                let wrong = || Error::Usage(format!("{at}: [provider.{account}] must be a table"));
                let toml::Value::Table(options) = options else { return Err(wrong()) };
                let plain = |(option, value): (String, toml::Value)| {
                    let values = file_values(at, &format!("provider.{account}.{option}"), value)?;
                    Ok((option, values.join("+")))
                };
                let options = options.into_iter().map(plain).collect::<Result<BTreeMap<String, String>>>()?;
                let json = serde_json::to_string(&options).map_err(|_| wrong())?;
                // A semicolon separates accounts; in JSON it can be written otherwise.
                Ok(format!("{account}={}", json.replace(';', "\\u003b")))
            };
            accounts.into_iter().map(account).collect()
        }
        toml::Value::String(text) => Ok(vec![text]),
        toml::Value::Integer(n) => Ok(vec![n.to_string()]),
        toml::Value::Float(x) => Ok(vec![x.to_string()]),
        toml::Value::Boolean(b) => Ok(vec![b.to_string()]),
        toml::Value::Array(items) => {
            let nested: Vec<Vec<String>> =
                items.into_iter().map(|item| file_values(at, name, item)).collect::<Result<_>>()?;
            Ok(nested.concat())
        }
        toml::Value::Table(_) => Err(Error::Usage(format!(
            "{at}: there is no table '{name}'; accounts are tables as [provider.NAME], every other setting is a line \
             before them, as name = \"text\""
        ))),
        toml::Value::Datetime(_) => {
            Err(Error::Usage(format!("{at}: '{name}' must be a text, a number, true or false, or a list")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_is_written_wrong_shows_no_secret() {
        for wrong in [
            "main=api-secret=SECRET",
            "main=,api-secret=SECRET",
            "main=SECRET",
            r#"main={"adapter":"api-secret=SECRET"}"#,
            r#"main={"api-secret":"SECRET"}"#,
            "main=solapi,SECRET",
            "main=solapi,api-secret=a,api-secret=SECRET",
            "SECRET",
        ] {
            let error = provider(wrong).unwrap_err();
            assert!(!error.contains("SECRET"), "{wrong}: {error}");
        }
        let twice = provider("main=solapi,a=1,a=1").unwrap_err();
        assert!(twice.contains("twice"), "{twice}");
        let good = provider("main=nhn-sms,a=1,b=x=y").unwrap();
        assert_eq!((good.name.as_str(), good.adapter.as_str(), good.options["b"].as_str()), ("main", "nhn-sms", "x=y"));
    }

    /// Fault E3: later belongs to the channel, and an operator may say what it is.
    #[test]
    fn a_channels_schedule_is_read_and_used() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            retry: Retry,
        }
        let of = |args: &[&str], channel, stands_by| {
            let flags = Flags::try_parse_from(std::iter::once("test").chain(args.iter().copied())).expect("flags");
            let policy = flags.retry.policy(channel, stands_by);
            (policy.max_attempts, policy.schedule.map(|s| s.iter().map(Duration::as_secs).collect::<Vec<_>>()))
        };
        assert_eq!(of(&[], Channel::Email, false).0, 13);
        assert_eq!(of(&[], Channel::Email, true), (3, None), "another channel stands by");
        assert_eq!(of(&[], Channel::Sms, false), (3, None));
        let set = ["--retry-schedule=SLACK=5s 1m,EMAIL=backoff", "--retry-max-attempts=4"];
        assert_eq!(of(&set, Channel::Slack, false), (3, Some(vec![5, 60])));
        assert_eq!(of(&set, Channel::Email, false), (4, None));
        for wrong in ["EMAIL", "EMAIL=", "EMAIL=5", "EMAIL=0s", "EMAIL=8d", "EMAIL=5s x", "FAX=5s", "WEBHOOK=5s"] {
            assert!(retry_schedule(wrong).is_err(), "{wrong}");
        }
    }
}
