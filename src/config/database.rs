//! The database, and what is kept in it.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};

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

/// PostgreSQL's; the rest is read where it is used.
fn database_url(text: &str) -> Result<String, &'static str> {
    let is_ours = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    is_ours.then(|| text.to_owned()).ok_or(
        "write it as postgres://user:password@host:port/database, with several servers as host1:port1,host2:port2",
    )
}
